"""The values of a flag in a sweep: a single value, several values, or a range."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from cs285.config import flags as flag_tools
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.value_types import has_type, shortened

TRUTH = {"true": True, "false": False}


class Range(NamedTuple):
    """A uniform or log-uniform distribution of numbers from `low` to `high`, both inclusive."""

    low: float
    high: float
    log: bool  # log-uniform
    whole: bool  # integers only


Choice = Sequence[Any] | Range  # one or more values, or a range


# --preset is not a field of a config, but a sweep can vary it like one.
PRESET: Any = flag_tools.flag(None, "named setting")
PRESET.name = "preset"


def varied_fields(config_class: type) -> dict[str, tuple[dataclasses.Field, type]]:
    """Return the flags of an agent that a sweep accepts, as {name: (field, type of its values)}."""
    typed: list[tuple[dataclasses.Field, type]] = [(PRESET, str)]
    for group in flag_tools.groups(config_class).values():
        typed += flag_tools.typed_fields(group)
    return {field.name: (field, kind) for field, kind in typed}


def parse(field: dataclasses.Field, kind: type, text: str) -> Choice:
    """Parse the text of a flag: VALUE, VALUE,VALUE,..., LOW:HIGH or LOW:HIGH:log.

    Flags whose values may contain commas use semicolons as separators. Raises UsageError: a value
    is invalid or repeated.
    """
    if kind in (int, float) and ":" in text:
        return _range(field, kind, text)
    separator = ";" if field.metadata["commas"] else ","
    values = [parse_one(field, kind, word.strip()) for word in text.split(separator)]
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise UsageError(
            f"--{field.name} {shortened(text)}: {shortened(twice[0])} is repeated; values must be "
            "unique"
        )
    return values


def parse_one(field: dataclasses.Field, kind: type, word: str) -> Any:
    """Parse one value of a flag. Raises UsageError: the value is invalid."""
    if kind is bool:
        if word not in TRUTH:
            raise flag_tools.invalid(field, kind, word)
        return TRUTH[word]
    value = flag_tools.converter(kind, field)(word)
    if not (has_type(value, kind) and field.metadata["check"].holds(value)):
        raise flag_tools.invalid(field, kind, word)
    return value


def _range(field: dataclasses.Field, kind: type, text: str) -> Range:
    low_word, high_word, *how = text.split(":", 3)
    low, high = parse_one(field, kind, low_word), parse_one(field, kind, high_word)
    log = how == ["log"]
    if not (low < high < math.inf) or (how and not log) or (log and low <= 0):
        raise UsageError(
            f"--{field.name} {text}: must be LOW:HIGH or LOW:HIGH:log with LOW < HIGH, and LOW > 0 "
            "for log"
        )
    return Range(low, high, log, kind is int)


def word_of(value: Any) -> str:
    """Return a value as text, as on the command line and in the name of a trial."""
    return str(value).lower() if isinstance(value, bool) else f"{value}"
