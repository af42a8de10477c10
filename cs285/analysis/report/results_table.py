"""The tables of results/README.md: what each experiment reached, next to the stated figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cs285.agents.registry import find_agent
from cs285.analysis.report.study import markdown_table
from cs285.analysis.runs import EVAL_RETURN, Run, exported_runs
from cs285.analysis.statistics import last_value
from cs285.config.flags import from_flat
from cs285.config.ineffective import ineffective_flags
from cs285.experiments.job import run_of
from cs285.experiments.suites import Experiment, Result, preset_name
from cs285.infrastructure.files import read_json, reading

SHARP = "sharp"  # the preset whose values the table shows next to the default's
IN_JSON = {  # values of question 1 that are in the exported JSON, not in the CSV
    "mean prediction error": "mean_prediction_error",
    "ensemble prediction error": "ensemble_prediction_error",
}
HEADER = (
    "experiment",
    "metric",
    "value by seed",
    "with `--preset sharp`",
    "stated figure",
    "project target",
    "time here",
    "stated time",
)


def table(experiments: Sequence[Experiment], results: Path) -> list[str]:
    """Return the table as lines of Markdown, also with the experiments that have not been run."""
    rows: list[Sequence[str]] = [HEADER]
    derived = {preset_name(e.name, preset) for e in experiments for preset in e.presets}
    for experiment in (e for e in experiments if e.name not in derived):
        runs = exported_runs(results, experiment.name)
        sharp = exported_runs(results, preset_name(experiment.name, SHARP))
        changed = changed_flags(runs, experiment)
        changed_sharp: list[str] = []
        if SHARP in experiment.presets:
            changed_sharp = changed_flags(sharp, experiment.with_preset(SHARP))
        for index, result in enumerate(_bounded(results, r) for r in experiment.results):
            metric = result.column + (f", mean of last {result.last}" * (result.last > 1))
            if result.at_env_steps is not None:
                metric += f" at {result.at_env_steps // 1000}k env steps"
            times = [_time_of(runs), experiment.stated_time] if index == 0 else ["", ""]
            with_sharp = ""
            if SHARP in experiment.presets:
                with_sharp = _values(sharp, result, changed_sharp)
            values = [_values(runs, result, changed), with_sharp]
            rows.append([experiment.name, metric, *values, *_judge(runs, result), *times])
        final = [final_evaluation(run) for run in runs]
        if evaluated := [returns for returns in final if returns]:
            metric = f"return of the final policy, {len(evaluated[0])} new episodes"
            means = [float(np.mean(returns)) for returns in evaluated]
            rows.append([experiment.name, metric, _by_seed(means), "", "", "", "", ""])
        if perfect := returns_with_perfect_model(results, experiment.name):
            name = f"{experiment.name}, with a perfect model"
            rows.append([name, EVAL_RETURN, _by_seed(perfect), "", "", "", "", ""])
    return markdown_table(rows)


def returns_with_perfect_model(results: Path, experiment: str) -> list[float]:
    """Return the planner's return with a perfect model, by seed (results/perfect_model.py)."""
    files = sorted(results.glob(f"*/{experiment}_seed*_perfect.json"))
    means = []
    for file in files:
        with reading(str(file), "the output of results/perfect_model.py"):
            means.append(float(read_json(file)["mean"]))
    return means


def final_evaluation(run: Run) -> list[float]:
    """Return the returns of the final policy that the run's JSON file holds; [] if it has none."""
    return run.config.get("run", {}).get("final_evaluation", {}).get("returns", [])


def reached(run: Run, result: Result) -> float:
    """Return the value that a run reached. Raises UsageError: the run lacks it."""
    if result.column in IN_JSON:
        with reading(f"{run.path.with_suffix('.json')}", "the JSON file of a run of question 1"):
            return float(run.config["run"][IN_JSON[result.column]])
    until = math.inf if result.at_env_steps is None else result.at_env_steps
    return last_value(run, result.column, result.last, until)


def _bounded(results: Path, result: Result) -> Result:
    """Return the result with the mean of the experiment that it names as the lower bound.

    Return it unchanged if it names none, or if that experiment has not finished.
    """
    others = exported_runs(results, result.at_least_that_of) if result.at_least_that_of else []
    if not others or any(map(_progress_of, others)):
        return result
    return replace(result, at_least=float(np.mean([reached(run, result) for run in others])))


def _values(runs: Sequence[Run], result: Result, changed: Sequence[str]) -> str:
    """Return the cell of the values, with the progress of unfinished runs and `changed_flags`."""
    if not runs:
        return "not run"
    key = IN_JSON.get(result.column)
    if key and not all(key in run.config["run"] for run in runs):
        return "not measured"
    values = _by_seed([reached(run, result) for run in runs])
    notes = [f"run with other values of {', '.join(changed)}"] if changed else []
    return "; ".join([values, *filter(None, map(_progress_of, runs)), *notes])


def changed_flags(runs: Sequence[Run], experiment: Experiment) -> list[str]:
    """Return the flags that had other values in the runs than in the experiment of today.

    Flags without an effect in today's runs are left out.
    """
    if not (runs and experiment.script):  # not run, or runs of another program
        return []
    job = run_of(experiment, experiment.seeds[0])
    today = {**job.settings, "n_iter": job.n_iter}
    ignored = {
        "seed",
        *ineffective_flags(from_flat(find_agent(experiment.script).config_class, today)),
    }
    before = [run.config.get("flags", {}) for run in runs]
    return [
        f"`--{name}`"
        for name, value in today.items()
        if name not in ignored and any(flags.get(name, value) != value for flags in before)
    ]


def _judge(runs: Sequence[Run], result: Result) -> tuple[str, str]:
    """Return the cells of the stated figure and the target, with a verdict on the mean over seeds.

    There is no verdict if there are no runs, or no number to compare with.
    """
    stated = result.stated or _bounds(result.stated_at_least, result.stated_at_most)
    target = _target(result)
    if not runs:
        return stated, target
    mean = float(np.mean([reached(run, result) for run in runs]))
    has_finished = not any(map(_progress_of, runs))
    return (
        stated + _verdict(result.reaches_stated(mean), "reached", "not reached", has_finished),
        target + _verdict(result.is_met(mean), "met", "missed", has_finished),
    )


def _verdict(holds: bool | None, yes: str, no: str, has_finished: bool) -> str:
    if holds is None:
        return ""
    return f": {(yes if holds else no) if has_finished else 'unfinished'}"


def _progress_of(run: Run) -> str:
    """Return the progress of a run that was exported before its end, or "" if it has finished."""
    completed = run.config.get("run", {}).get("iterations")
    n_iter = run.config.get("flags", {}).get("n_iter")
    if None in (completed, n_iter) or completed >= n_iter:
        return ""
    return f"seed {run.seed} at iteration {completed} of {n_iter}"


def _by_seed(values: Sequence[float]) -> str:
    mean = f" (mean {np.mean(values):.4g})" if len(values) > 1 else ""
    return ", ".join(f"{value:.4g}" for value in values) + mean


def _target(result: Result) -> str:
    """Return the project's target as text; it may be another experiment's mean."""
    numbers = _bounds(result.at_least, result.at_most)
    if not result.at_least_that_of:
        return numbers
    mean = f"mean of {result.at_least_that_of}"
    return f"{numbers} ({mean})" if numbers else f"≥ {mean}"


def _bounds(low: float | None, high: float | None) -> str:
    bounds = (("≥", low), ("≤", high))
    return ", ".join(f"{sign} {bound:.4g}" for sign, bound in bounds if bound is not None)


def _time_of(runs: Sequence[Run]) -> str:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if not seconds:
        return ""
    mean = float(np.mean(seconds))
    return f"{mean:.0f} s" if mean < 120 else f"{mean / 60:.0f} min"
