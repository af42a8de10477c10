"""Flags that other flags make ineffective. A run reports them, and a sweep cannot vary them.

Flag groups, and configs that combine groups, list their rules in the class attribute `rules`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cs285.config.flags import groups, to_flat

Flat = dict[str, Any]  # {flag name: value} of all flags of a run


class Rule(NamedTuple):
    """The `flags` have no effect if `applies` is true for a run's flags."""

    flags: tuple[str, ...]
    applies: Callable[[Flat], bool]
    reason: str  # completes "has no effect because ..."; a {flag name} stands for its value


def ineffective_if(name: str, value: Any, *flags: str) -> Rule:
    """Return the rule that `flags` have no effect if the flag `name` has this value."""
    return Rule(flags, lambda flat: flat[name] == value, f"--{name} is {value}")


def names_of(group: type, excluded: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the flags of a group, except the `excluded` ones."""
    return tuple(field.name for field in dataclasses.fields(group) if field.name not in excluded)


def without_effect_on_curve(group: type) -> tuple[str, ...]:
    """Return the flags of a group that never affect the learning curve."""
    fields = dataclasses.fields(group)
    return tuple(field.name for field in fields if not field.metadata["changes_curve"])


def flags_without_effect_on_curve(config_class: type) -> set[str]:
    """Return the flags of a config class that never affect the learning curve."""
    return {
        name for group in groups(config_class).values() for name in without_effect_on_curve(group)
    }


def ineffective_flags(config: Any) -> dict[str, str]:
    """Return {flag: reason} for the flags that have no effect in a run with this config."""
    flat = to_flat(config)
    found: dict[str, str] = {}
    for holder in (type(config), *groups(type(config)).values()):
        for rule in getattr(holder, "rules", ()):
            if rule.applies(flat):
                reason = rule.reason.format_map(flat)
                found |= {name: reason for name in rule.flags if name in flat and name not in found}
    return found


def describe_ineffective(given: Flat, config: Any, defaults: Flat) -> list[str]:
    """Return one warning per reason for the `given` flags that have no effect in a run of `config`.

    Flags with their default values are skipped, because scripts pass every flag.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in ineffective_flags(config).items():
        if name in given and given[name] != defaults[name]:
            by_reason.setdefault(reason, []).append(name)
    return [
        f"warning: --{', --'.join(names)} {'has' if len(names) == 1 else 'have'} no effect because "
        f"{reason}; omit {'it' if len(names) == 1 else 'them'}"
        for reason, names in by_reason.items()
    ]


def signature(config: Any) -> tuple[Any, ...]:
    """Return the values that determine a run's learning curve.

    Two configs with the same signature give the same curve. A group's `canonical()` replaces
    equivalent settings by one value.
    """
    flat = to_flat(config)
    for group in vars(config).values():
        flat |= getattr(group, "canonical", dict)()
    left_out = {*ineffective_flags(config), *flags_without_effect_on_curve(type(config))}
    return tuple(value for name, value in flat.items() if name not in left_out)
