"""The types of values from files and command lines, and their words in error messages."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

WORDS = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}


def check_types(table: Mapping[str, Any], types_of: Mapping[str, Any]) -> None:
    """Raise ValueError unless each value in `table` whose key has a known type is of that type."""
    for key, value in table.items():
        if key in types_of and not has_type(value, types_of[key]):
            raise ValueError(f"{key} {shortened(value)}: must be {_words_of(types_of[key])}")


def has_type(value: Any, hint: Any) -> bool:
    """Return whether a value has the type that a type hint describes.

    A float must be finite and may be an int. A list counts as a tuple, because JSON and TOML have
    no tuples.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(has_type(value, each) for each in inner)
    if hint in (None, types.NoneType):
        return value is None
    if origin in (tuple, list):
        return isinstance(value, list | tuple) and all(has_type(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            has_type(k, inner[0]) and has_type(v, inner[1]) for k, v in value.items()
        )
    if hint is float:
        return has_type(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def shortened(value: Any) -> str:
    """Return a value as text of at most 60 characters."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _words_of(hint: Any) -> str:
    """Return what a value of a type must be, for an error message."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_words_of, inner))
    if origin in (tuple, list):
        return f"a list ({_words_of(inner[0])})"
    return "an object" if origin is dict else WORDS.get(hint, "empty")
