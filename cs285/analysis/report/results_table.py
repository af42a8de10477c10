"""The report's table: what the experiments reached, beside what is stated and wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cs285.analysis.plots import last_value
from cs285.analysis.runs import EVAL_RETURN, Run, exported_runs
from cs285.experiments.suites import Experiment, Result

PREDICTION_ERROR = "mean prediction error"  # of question 1's picture; in the JSON, not the CSV


def table(experiments: Sequence[Experiment], results: Path) -> list[str]:
    """Return the report's table as lines of Markdown; experiments without a run say so."""
    lines = [
        "| experiment | value | stated | wanted | reached, by seed | | time here | stated time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for experiment in experiments:
        runs = exported_runs(results, experiment.name)
        for index, result in enumerate(_bounded(results, r) for r in experiment.results):
            what = result.column + (f", last {result.last}" * (result.last > 1))
            time = [_time_of(runs), experiment.stated_time] if index == 0 else ["", ""]
            cells = [experiment.name, what, result.stated, _wanted(result), *_values(runs, result)]
            lines.append("| " + " | ".join([*cells, *time]) + " |")
        if perfect := through_simulator(results, experiment.name):
            cells = [f"the same, planned through the simulator: {experiment.name}", EVAL_RETURN]
            lines.append("| " + " | ".join([*cells, "", "", _by_seed(perfect), "", "", ""]) + " |")
    return lines


def through_simulator(results: Path, experiment: str) -> list[float]:
    """Return what the planner reached with a perfect model, by seed: results/perfect_model.py."""
    files = sorted(results.glob(f"*/{experiment}_seed*_perfect.json"))
    return [float(json.loads(file.read_text())["mean"]) for file in files]


def reached(run: Run, result: Result) -> float:
    """Return the value that a run reached."""
    if result.column == PREDICTION_ERROR:
        return float(run.config["run"]["mean_prediction_error"])
    return last_value(run, result.column, result.last)


def _bounded(results: Path, result: Result) -> Result:
    """Return it with what the experiment it names has reached as the bound, if that is done."""
    others = exported_runs(results, result.at_least_that_of) if result.at_least_that_of else []
    if not others or any(map(_progress_of, others)):
        return result
    return replace(result, at_least=float(np.mean([reached(run, result) for run in others])))


def _values(runs: Sequence[Run], result: Result) -> tuple[str, str]:
    """Return the cells of what was reached, and of whether that is what is wanted."""
    if not runs:
        return "not run", ""
    values = [reached(run, result) for run in runs]
    if unfinished := list(filter(None, map(_progress_of, runs))):
        return f"{_by_seed(values)}; {', '.join(unfinished)}", "not done"
    met = result.is_met(float(np.mean(values)))
    verdict = {True: "met", False: "**missed**", None: ""}[met]
    return _by_seed(values), verdict


def _progress_of(run: Run) -> str:
    """Return how far a run came that was exported before its end; nothing of one that is done."""
    done = run.config.get("run", {}).get("iterations")
    wanted = run.config.get("flags", {}).get("n_iter")
    if None in (done, wanted) or done >= wanted:
        return ""
    return f"seed {run.seed} at iteration {done} of {wanted}"


def _by_seed(values: Sequence[float]) -> str:
    several = f" (mean {np.mean(values):.4g})" if len(values) > 1 else ""
    return ", ".join(f"{value:.4g}" for value in values) + several


def _wanted(result: Result) -> str:
    bounds = (("≥", result.at_least), ("≤", result.at_most))
    said = ", ".join(f"{sign} {bound:.4g}" for sign, bound in bounds if bound is not None)
    other = f" (that of {result.at_least_that_of})" if result.at_least_that_of else ""
    return (said or "≥" * bool(other)) + other


def _time_of(runs: Sequence[Run]) -> str:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if not seconds:
        return ""
    mean = float(np.mean(seconds))
    return f"{mean:.0f} s" if mean < 120 else f"{mean / 60:.0f} min"
