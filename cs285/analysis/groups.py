"""Which runs are seeds of one setting, and which of them can be shown together."""

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
    """Return the runs by their setting, in order of appearance.

    Runs of one setting have the same name, less the seed at its end, the same program, and no flag
    with different values, as far as these are known. Where that makes several settings of a name,
    their labels have such flags. Of the runs of a seed the longest counts, which is said of the
    others.
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
    """Return the runs that have values in a column; the others are said.

    Raises UsageError, which names the `flag` that asked for it: there are none.
    """
    found = [run for run in runs if np.isfinite(run.columns.get(name, np.nan)).any()]
    if not found:
        known = ", ".join(sorted({column for run in runs for column in run.columns}))
        raise UsageError(f"{flag} {name}: no run has values of it; allowed are {known}")
    for run in runs:
        if not any(run is other for other in found):
            notify(f"{run.path}: passed over, it has no values of {name}")
    return found


def _identity(run: Run) -> dict[str, Any]:
    """Return what makes a run the one it is, as far as it is known: its program first."""
    program = {"script": run.config["script"]} if "script" in run.config else {}
    flags = run.config.get("flags", {})
    return program | {name: value for name, value in flags.items() if name not in VARY_WITHIN}


def _differences(runs: Sequence[Run]) -> list[str]:
    """Return the flags that all of the runs have, with different values."""
    flags = [_identity(run) for run in runs]
    return [
        name
        for name, value in flags[0].items()
        if all(name in own for own in flags) and any(own[name] != value for own in flags)
    ]


def _labels(firsts: Sequence[Run]) -> list[str]:
    """Return a label for each setting: its name, with as many flags as tell it from its twins."""
    labels = []
    for first in firsts:
        twins = [other for other in firsts if other.setting == first.setting]
        names = _differences(twins)
        while names and len({_words(twin, names[:-1]) for twin in twins}) == len(twins):
            names.pop()
        labels.append(" ".join([first.setting, *_words(first, names)]))
    # Twins of which one or the other has no such flag are told apart by where they are.
    return [
        label if labels.count(label) == 1 else f"{label} {first.path}"
        for label, first in zip(labels, firsts, strict=True)
    ]


def _words(run: Run, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}={_identity(run)[name]}" for name in names)


def _one_of_each_seed(members: Sequence[Run], notify: Notify) -> list[Run]:
    """Return the longest run of each seed; runs whose seed is not known are one each."""
    chosen: dict[Any, Run] = {}
    for run in members:
        key = run.path if run.seed is None else run.seed
        shorter, longer = sorted([run, chosen.get(key, run)], key=len)
        if longer is not shorter:
            notify(f"{shorter.path}: passed over for another run of its seed, {longer.path}")
        chosen[key] = longer
    return list(chosen.values())
