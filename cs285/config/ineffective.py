"""Flags that other flags make ineffective: a run reports them, a sweep refuses to vary them.

The rules stand in the `rules` of the flag groups (and of the configs that combine groups), beside
the fields that they are about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cs285.config.flags import groups, to_flat

Flat = dict[str, Any]  # every flag of a run and its value


class Rule(NamedTuple):
    """Flags that have no effect where `applies` holds of a run's flags."""

    flags: tuple[str, ...]
    applies: Callable[[Flat], bool]
    reason: str  # its {names} are flags


def ineffective_if(name: str, value: Any, *flags: str) -> Rule:
    """Return the rule that `flags` have no effect where the flag `name` has this value."""
    return Rule(flags, lambda flat: flat[name] == value, f"--{name} is {value}")


def names_of(group: type, but: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the flags of a group, except some."""
    return tuple(field.name for field in dataclasses.fields(group) if field.name not in but)


def without_effect_on_curve(group: type) -> tuple[str, ...]:
    """Return the flags of a group that change no curve, whatever their values."""
    fields = dataclasses.fields(group)
    return tuple(field.name for field in fields if not field.metadata["changes_curve"])


def flags_without_effect_on_curve(config_class: type) -> set[str]:
    """Return the flags of a config that change no curve."""
    return {
        name for group in groups(config_class).values() for name in without_effect_on_curve(group)
    }


def ineffective_flags(config: Any) -> dict[str, str]:
    """Return the flags that have no effect in a run of this config, and why."""
    flat = to_flat(config)
    found: dict[str, str] = {}
    for holder in (type(config), *groups(type(config)).values()):
        for rule in getattr(holder, "rules", ()):
            if rule.applies(flat):
                reason = rule.reason.format_map(flat)
                found |= {name: reason for name in rule.flags if name in flat and name not in found}
    return found


def describe_ineffective(given: Flat, config: Any, defaults: Flat) -> list[str]:
    """Return a line per reason why flags that were `given` have no effect in a run of `config`.

    A flag that was given its default is left out: scripts give every flag.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in ineffective_flags(config).items():
        if name in given and given[name] != defaults[name]:
            by_reason.setdefault(reason, []).append(name)
    return [
        f"--{', --'.join(names)}: without effect, as {reason}"
        for reason, names in by_reason.items()
    ]


def signature(config: Any) -> tuple[Any, ...]:
    """Return what decides a run's curve: two configs with the same signature give the same curve.

    A group's `canonical()` gives one value to settings that mean the same.
    """
    flat = to_flat(config)
    for group in vars(config).values():
        flat |= getattr(group, "canonical", dict)()
    left_out = {*ineffective_flags(config), *flags_without_effect_on_curve(type(config))}
    return tuple(value for name, value in flat.items() if name not in left_out)
