"""Command-line flags from dataclass fields. A wrong flag gives a one-line error on stderr."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import math
import re
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from cs285.infrastructure.errors import UsageError, one_line
from cs285.infrastructure.value_types import WORDS, has_type, shortened

Config = TypeVar("Config")
ABSENT = argparse.SUPPRESS  # as the default, it keeps a flag that is not given out of the values


@dataclass(frozen=True)
class Check:
    """A condition on a flag's value. An error message says "must be " and then `must_be`."""

    holds: Callable[[Any], bool]
    must_be: str


LARGEST = 10**15  # sizes near 2^63 give torch errors that do not mention memory
COUNT = Check(lambda value: 1 <= value <= LARGEST, "an integer from 1 to 10^15")
LAYERS = Check(lambda value: 1 <= value <= 1000, "an integer from 1 to 1000")
STEPS = Check(lambda value: 0 <= value <= 10**5, "an integer from 0 to 100000")
INDEX = Check(lambda value: value >= 0, "a non-negative integer")
FREQUENCY = Check(lambda value: value == -1 or value >= 1, "-1 (off) or a positive integer")
RATE = Check(lambda value: math.isfinite(value) and value > 0, "a positive, finite number")
NOT_NEGATIVE = Check(lambda value: 0 <= value < math.inf, "a non-negative, finite number")
FINITE = Check(math.isfinite, "a finite number")
UNIT = Check(lambda value: 0 <= value <= 1, "a number from 0 to 1")
FITTING = "0, or 1e-30 to 1e30 in size"  # see fits_float32
ANYTHING = Check(lambda value: True, "any value")


def one_of(*choices: str) -> Check:
    """Return the check that a value is one of `choices`."""
    words = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
    return Check(lambda value: value in choices, words)


def whole_number(least: int, most: int = 10**6) -> Callable[[str], int]:
    """Return an argparse type for integers from `least` to `most`."""

    def convert(text: str) -> int:
        if not (text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
            must_be = f"must be an integer of at least {least} and at most {most}"
            raise argparse.ArgumentTypeError(f"{shortened(text)}: {must_be}")
        return int(text)

    return convert


def flag(
    default: Any,
    text: str,
    *aliases: str,
    check: Check = ANYTHING,
    free: bool = False,
    commas: bool = False,
    words: bool = False,
    changes_curve: bool = True,
) -> Any:
    """Declare a dataclass field that is also a command-line flag.

    `text` is its help text and `check` the condition on its value. A `free` flag may change on
    --resume, because it does not affect past results. `commas` says that one value may contain
    commas. A flag of `words` takes one or more words; its value joins them with spaces. A flag
    with `changes_curve` False never affects the learning curve.
    """
    metadata = {
        "help": text,
        "aliases": aliases,
        "check": check,
        "free": free,
        "commas": commas,
        "words": words,
        "changes_curve": changes_curve,
    }
    return dataclasses.field(default=default, metadata=metadata)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser without abbreviated flags. Its errors are UsageErrors of one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        # argparse's own pattern has no exponents, so argparse would read -1e3 as a flag.
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")

    def error(self, message: str) -> NoReturn:
        # argparse writes "argument --flag: VALUE: must be X" or "argument --flag: expected ...".
        words = re.sub(r"^argument (?:\S+/)?(\S+): (\S+: must be)", r"\1 \2", message)
        words = re.sub(
            r"^argument (?:-\w+/)?(--\w+)\S*: ignored explicit argument .*",
            r"\1: must have no value",
            words,
        )
        words = re.sub(r"^argument (\S+): expected .*", r"\1: must have a value", words)
        raise UsageError(one_line(words))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            must_be = one_of(*action.choices).must_be
            raise argparse.ArgumentError(action, f"{value}: must be {must_be}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._option_string_actions, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; see --help"
            self.error(f"unknown argument {unknown[0]}{hint}")
        return parsed


class _Joined(argparse.Action):
    """Stores the words of a flag with spaces between them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, " ".join(values))


def add_flags(parser: argparse.ArgumentParser, config_class: type) -> None:
    """Add a flag for every field of `config_class`. Flags not given are absent from the result."""
    for group in groups(config_class).values():
        section = parser.add_argument_group((group.__doc__ or group.__name__).split("\n")[0])
        for field, kind in typed_fields(group):
            shown = "" if field.default in (None, "") else f" (default: {field.default})"
            options: dict[str, Any] = {
                "default": ABSENT,
                "help": (field.metadata["help"] + shown).replace("%", "%%"),
            }
            if kind is bool:
                options["action"] = argparse.BooleanOptionalAction  # --no-flag overrides a preset
            elif field.metadata["words"]:
                options |= {"nargs": "+", "action": _Joined, "metavar": "WORD"}
            else:
                options |= {"type": converter(kind, field), "metavar": kind.__name__.upper()}
            section.add_argument(f"--{field.name}", *field.metadata["aliases"], **options)


@functools.cache
def _hints(group: type) -> dict[str, Any]:
    """Return {field name: type} of a dataclass. Python takes a millisecond to evaluate them."""
    return typing.get_type_hints(group)


def typed_fields(group: type) -> list[tuple[dataclasses.Field, type]]:
    """Return the fields of a flag group with their types: bool, int, float or str.

    Raises UsageError: a field was not declared by `flag`.
    """
    for field in dataclasses.fields(group):
        if "help" not in field.metadata:
            raise UsageError(
                f"{group.__name__}.{field.name}: must be declared by cs285.config.flags.flag("
                "default, help text)"
            )
    types = {name: typing.get_args(t) or (t,) for name, t in _hints(group).items()}
    return [
        (field, next(t for t in (bool, int, float, str) if t in types[field.name]))
        for field in dataclasses.fields(group)
    ]


def groups(config_class: type) -> dict[str, type]:
    """Return the flag groups of a config class as {field name: dataclass}."""
    types = _hints(config_class)
    return {field.name: types[field.name] for field in dataclasses.fields(config_class)}


def from_flat(config_class: type[Config], values: dict[str, Any]) -> Config:
    """Build a config from {flag name: value} and the defaults.

    Raises UsageError: a value is invalid, or two values do not fit together.
    """
    built = {}
    for name, group in groups(config_class).items():
        chosen = {f.name: values[f.name] for f in dataclasses.fields(group) if f.name in values}
        check_values(group, chosen)
        built[name] = group(**chosen)  # the group itself then checks combinations of flags
    return config_class(**built)


def to_flat(config: Any) -> dict[str, Any]:
    """Return {flag name: value} over all groups of a config."""
    return {name: value for group in vars(config).values() for name, value in vars(group).items()}


def defaults(config_class: type) -> dict[str, Any]:
    """Return {flag name: default} over all groups of a config class."""
    fields = [f for group in groups(config_class).values() for f in dataclasses.fields(group)]
    return {field.name: field.default for field in fields}


def flags_free_on_resume(config_class: type) -> set[str]:
    """Return the names of the flags that may change on --resume."""
    fields = [f for group in groups(config_class).values() for f in dataclasses.fields(group)]
    return {f.name for f in fields if f.metadata["free"]}


def numbers(text: str) -> list[float]:
    """Return the numbers of a list with commas. Raises ValueError: a part is not a number."""
    return [float(part) for part in text.split(",")]


def fits_float32(value: float) -> bool:
    """Return whether a number is far from the limits of float32."""
    return not value or 1e-30 <= abs(value) <= 1e30


def check_values(group: type, values: dict[str, Any]) -> None:
    """Check the types and values of a flag group. Raises UsageError: a value is invalid."""
    hints = _hints(group)
    for field, kind in typed_fields(group):
        if field.name in values:
            value = values[field.name]
            is_of_type = has_type(value, hints[field.name])
            if kind is float and is_of_type and value is not None and not fits_float32(value):
                raise UsageError(f"--{field.name} {value}: must be {FITTING}")
            if not (is_of_type and (value is None or field.metadata["check"].holds(value))):
                raise invalid(field, kind, value)


def converter(kind: type, field: dataclasses.Field) -> Callable[[str], Any]:
    """Return an argparse type for a field. Its error names the flag and the value."""

    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise invalid(field, kind, text) from None

    return convert


def invalid(field: dataclasses.Field, kind: type, value: Any) -> UsageError:
    """Return the error about the value of a flag."""
    check = field.metadata["check"]
    must_be = WORDS[kind] if check is ANYTHING else check.must_be
    # A whole number, as it was probably given.
    text = str(value).removesuffix(".0") if isinstance(value, float) else shortened(value)
    return UsageError(f"--{field.name} {text}: must be {must_be}")


def parse_values(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """Parse the command line and return {flag name: value} of the given flags."""
    return vars(parser.parse_args(sys.argv[1:] if argv is None else argv))
