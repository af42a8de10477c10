"""The values of a sweep's flags: one value, several, or a range to draw from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from cs285.config import flags as flag_tools
from cs285.infrastructure.errors import UsageError

TRUTH = {"true": True, "false": False}


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included; drawn evenly, or evenly in their logarithm."""

    low: float
    high: float
    log: bool
    whole: bool


Choice = Sequence[Any] | Range  # one value or several, or a range


PRESET: Any = flag_tools.flag(None, "named setting")  # not a field of a config, but varied like one
PRESET.name = "preset"


def varied_fields(config_class: type) -> dict[str, tuple[dataclasses.Field, type]]:
    """Return the flags of an agent that a sweep accepts, and the types of their values."""
    typed: list[tuple[dataclasses.Field, type]] = [(PRESET, str)]
    for group in flag_tools.groups(config_class).values():
        typed += flag_tools.typed_fields(group)
    return {field.name: (field, kind) for field, kind in typed}


def parse(field: dataclasses.Field, kind: type, text: str) -> Choice:
    """Return the values of a flag's text: VALUE, VALUE,VALUE ..., LOW:HIGH or LOW:HIGH:log.

    Values that contain commas are separated by semicolons. Raises UsageError if a value is not
    allowed, or given twice.
    """
    if kind in (int, float) and ":" in text:
        return _range(field, kind, text)
    separator = ";" if field.metadata["commas"] else ","
    values = [parse_one(field, kind, word.strip()) for word in text.split(separator)]
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise UsageError(f"--{field.name} {text}: {twice[0]} is there twice; allowed: once")
    return values


def parse_one(field: dataclasses.Field, kind: type, word: str) -> Any:
    """Return the value of a word. Raises UsageError if it is not allowed."""
    if kind is bool:
        if word not in TRUTH:
            raise UsageError(f"--{field.name} {word}: allowed are true and false")
        return TRUTH[word]
    value = flag_tools.converter(kind, field)(word)
    check = field.metadata["check"]
    if not check.holds(value):
        raise UsageError(f"--{field.name} {word}: must be {check.must_be}")
    return value


def _range(field: dataclasses.Field, kind: type, text: str) -> Range:
    low_word, high_word, *how = text.split(":")
    low, high = parse_one(field, kind, low_word), parse_one(field, kind, high_word)
    log = how == ["log"]
    if not (low < high < math.inf) or (how and not log) or (log and low <= 0):
        raise UsageError(
            f"--{field.name} {text}: allowed are LOW:HIGH and LOW:HIGH:log, LOW below HIGH, with "
            "log above 0"
        )
    return Range(low, high, log, kind is int)


def word_of(value: Any) -> str:
    """Return a value as it is typed, and as a trial's name contains it."""
    return str(value).lower() if isinstance(value, bool) else f"{value}"
