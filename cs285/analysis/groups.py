"""Group runs into settings: the seeds of one setting form one curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cs285.analysis.runs import Run
from cs285.config.ineffective import without_effect_on_curve
from cs285.config.run import RunConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.progress import Notify, silent

# Flags that may differ between runs of one setting.
VARY_WITHIN = (*without_effect_on_curve(RunConfig), "seed", "n_iter")


def group_seeds(runs: Iterable[Run], notify: Notify = silent) -> dict[str, list[Run]]:
    """Return the runs by setting, in order of appearance.

    Runs belong to one setting if they have the same name without the seed at its end, the same
    script and agent, and no known flag with different values. If one name covers several settings,
    the labels include the flags that differ. If a seed has several runs, the longest run is kept
    and `notify` reports the others.
    """
    settings: list[list[Run]] = []
    for run in runs:
        alike = (members for members in settings if not _differences([members[0], run]))
        own = next((members for members in alike if members[0].setting == run.setting), None)
        if own is None:
            settings.append([run])
        else:
            own.append(run)
    labels = _labels([members[0] for members in settings])
    return {
        label: _one_of_each_seed(members, notify)
        for label, members in zip(labels, settings, strict=True)
    }


def with_column(flag: str, name: str, runs: Sequence[Run], notify: Notify = silent) -> list[Run]:
    """Return the runs that have finite values in a column, and report the other runs.

    Raises UsageError, which names the command-line `flag`: no run has such values.
    """
    found = [run for run in runs if np.isfinite(run.columns.get(name, np.nan)).any()]
    if not found:
        known = ", ".join(sorted({column for run in runs for column in run.columns}))
        raise UsageError(f"{flag} {name}: no run has values of it; must be one of {known}")
    for run in runs:
        if not any(run is other for other in found):
            notify(
                f"{run.path}: skipped because it has no values of {name}; choose another column, "
                "or wait until the run has logged it"
            )
    return found


def _identity(run: Run) -> dict[str, Any]:
    """Return the script, the agent and the flags that identify the setting of a run, if known."""
    entry = {name: run.config[name] for name in ("script", "agent") if name in run.config}
    if ":" not in entry.get("agent", ":"):
        del entry["agent"]  # the script tells it, and old runs lack it
    flags = run.config.get("flags", {})
    return entry | {name: value for name, value in flags.items() if name not in VARY_WITHIN}


def _differences(runs: Sequence[Run]) -> list[str]:
    """Return the flags that every run has, but not with the same value."""
    flags = [_identity(run) for run in runs]
    return [
        name
        for name, value in flags[0].items()
        if all(name in own for own in flags) and any(own[name] != value for own in flags)
    ]


def _labels(firsts: Sequence[Run]) -> list[str]:
    """Return a unique label for each setting, given its first run.

    The label is the setting's name, followed by the flags that distinguish it from other settings
    of the same name.
    """
    labels = []
    for first in firsts:
        namesakes = [other for other in firsts if other.setting == first.setting]
        names = _differences(namesakes)
        while names and len({_words(run, names[:-1]) for run in namesakes}) == len(namesakes):
            names.pop()
        labels.append(" ".join([first.setting, *_words(first, names)]))
    # If one run lacks the flag that differs, only the path distinguishes the settings.
    return [
        label if labels.count(label) == 1 else f"{label} {first.path}"
        for label, first in zip(labels, firsts, strict=True)
    ]


def _words(run: Run, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}={_identity(run)[name]}" for name in names)


def _one_of_each_seed(members: Sequence[Run], notify: Notify) -> list[Run]:
    """Return the longest run of each seed, and every run whose seed is unknown."""
    chosen: dict[Any, Run] = {}
    for run in members:
        key = run.path if run.seed is None else run.seed
        shorter, longer = sorted([run, chosen.get(key, run)], key=len)
        if longer is not shorter:
            notify(
                f"{shorter.path}: skipped because {longer.path} has the same seed; pass only one "
                "of the two runs"
            )
        chosen[key] = longer
    return list(chosen.values())
