"""The table of results/README.md on swing-ups: how much interaction each algorithm needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cs285.analysis.report.study import markdown_table
from cs285.analysis.runs import ENV_STEPS, Run, exported_runs
from cs285.envs.swingup.swingup_env import STEP_SECONDS

EXPERIMENTS: Mapping[str, str] = {  # with their algorithm
    "pilco_pendulum": "PILCO, pendulum",
    "pilco_cartpole": "PILCO, cart-pole",
    "pilco_cartpole_certain": "PILCO without model uncertainty, cart-pole",
    "pets_cartpole_swingup": "PETS (iCEM), cart-pole",
    "dhmbpo_cartpole_swingup": "double-horizon MBPO, cart-pole",
}
SHARE = 0.9  # of the evaluation's episodes
TARGETS: Mapping[str, tuple[int, float]] = {  # successful seeds of SEEDS, seconds of interaction
    "pilco_pendulum": (10, 16.0),
    "pilco_cartpole": (8, 28.0),
}
SEEDS = 10
HEADER = (
    "algorithm and task",
    "seconds of interaction by seed",
    "strict criterion",
    "success at the end",
    "evaluations from the first success on that succeed",
    "PILCO's trials: inside the predicted 95% band",
    "cost above the prediction",
    "target",
)


def swingup_table(results: Path) -> list[str]:
    """Return the table as lines of Markdown."""
    rows: list[Sequence[str]] = [HEADER]
    for experiment, algorithm in EXPERIMENTS.items():
        runs = exported_runs(results, experiment)
        columns = ("Eval_Success", "Eval_StrictSuccess")
        cells = [_by_seed([seconds_until(run, column) for run in runs]) for column in columns]
        at_end = [run.column("Eval_Success")[-1] for run in runs]
        cells.append(", ".join(f"{share:.0%}" for share in at_end))
        cells += [_kept(runs), *_predictions(runs)]
        rows.append((algorithm, *cells, _target(experiment, runs)))
    return markdown_table(rows)


def seconds_until(run: Run, column: str) -> float | None:
    """Return the seconds of interaction before the first evaluation with a share of at least SHARE.

    None means that no evaluation of the run has it.
    """
    succeeded = np.flatnonzero(run.column(column) >= SHARE)
    return float(run.column(ENV_STEPS)[succeeded[0]] * STEP_SECONDS) if len(succeeded) else None


def _kept(runs: Sequence[Run]) -> str:
    """Return the share of the evaluations that succeed, from the first such one of each run on."""
    kept: list[bool] = []
    for run in runs:
        succeeds = run.column("Eval_Success") >= SHARE
        kept += succeeds[succeeds.argmax() :].tolist() if succeeds.any() else []
    return f"{np.mean(kept):.0%}" if kept else ""


def _predictions(runs: Sequence[Run]) -> tuple[str, str]:
    """Return the means over PILCO's trials of their coverage, and of cost minus predicted cost."""
    names = ("Trial Coverage", "Trial Cost", "Trial Predicted Cost")
    if not runs or any(name not in run.columns for name in names for run in runs):
        return "", ""
    coverage, cost, predicted = (np.hstack([run.column(name) for run in runs]) for name in names)
    return f"{np.nanmean(coverage):.0%}", f"{np.nanmean(cost - predicted):.1f}"


def _target(experiment: str, runs: Sequence[Run]) -> str:
    """Return the cell of the target, with a verdict once all seeds have run."""
    if experiment not in TARGETS:
        return ""
    needed, limit = TARGETS[experiment]
    times = [seconds_until(run, "Eval_Success") for run in runs]
    done = sum(time is not None and time <= limit for time in times)
    verdict = "met" if done >= needed else "missed"
    if len(runs) < SEEDS:
        verdict = f"{done} of {len(runs)} so far"
    return f"{needed} of {SEEDS} seeds within {limit:g} s: {verdict}"


def _by_seed(seconds: Sequence[float | None]) -> str:
    """Return the cell: the seconds of each seed, the number of successes, and the median."""
    if not seconds:
        return "not run"
    listed = ", ".join("never" if value is None else f"{value:g}" for value in seconds)
    succeeded = sum(value is not None for value in seconds)
    median = np.median([np.inf if value is None else value for value in seconds])
    middle = "never" if np.isinf(median) else f"{median:g} s"
    return f"{listed} ({succeeded} of {len(seconds)} seeds, median {middle})"
