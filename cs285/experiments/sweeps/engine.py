"""Runs a sweep by Ray Tune, on the Ray that is connected."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler

from cs285.experiments.job import FAILED, WAITING
from cs285.experiments.sweeps.folder import ENDED, Trial, read_trials
from cs285.experiments.sweeps.plan import Sweep
from cs285.experiments.sweeps.search import OptunaSearch
from cs285.experiments.sweeps.trial import RunTrial
from cs285.experiments.sweeps.view import FAILURES, View
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.logger import read_rows
from cs285.infrastructure.run_folder import PROGRESS

ENGINE = "tune"  # folder of what Ray Tune keeps
REDUCTION = 3  # of ASHA: a third of the trials goes on at each rung


class Needs(NamedTuple):
    """What a trial gets."""

    cpus: int
    gpus: float


def needs_of(sweep: Sweep, cpus: int, gpus: float | None) -> Needs:
    """Return what each trial gets: None is a GPU where there are some and they are not refused.

    Raises UsageError: no node has that much.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        is_wanted = not any(sweep.choices.get("no_gpu", ()))
        gpus = float(is_wanted and any(node.get("GPU", 0) >= 1 for node in nodes))
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        flags = f"--cpus_per_trial {cpus}" + f" --gpus_per_trial {gpus:g}" * (gpus > 0)
        most = [f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes]
        raise UsageError(f"{flags}: allowed is what a node has: {' or '.join(dict.fromkeys(most))}")
    return Needs(cpus, gpus)


def wanted(sweep: Sweep, folder: Path) -> list[Trial]:
    """Return the trials of a sweep as far as they are known; those to be run are WAITING."""
    trials = {trial.job.name: trial for trial in read_trials(folder, sweep)}
    for trial in trials.values():
        if trial.job.state not in ENDED:
            trial.job.state = WAITING
    if not sweep.is_adaptive:
        for values in sweep.values():
            trials.setdefault(sweep.name_of(values), Trial(sweep, values))
    return list(trials.values())


def is_finished(sweep: Sweep, trials: Sequence[Trial]) -> bool:
    """Return whether there is nothing left to run."""
    return len(trials) == sweep.size and all(trial.job.state in ENDED for trial in trials)


def run(sweep: Sweep, folder: Path, needs: Needs, jobs: int | None = None) -> list[Trial]:
    """Run the trials that have not ended, `jobs` at once at most; returns all as they then are.

    Those that are neither ENDED nor FAILED were interrupted.
    """
    trials = wanted(sweep, folder)
    for _ in range(FAILURES):
        view = View(sweep, folder, trials)
        make_tuner(sweep, folder, needs, jobs, view).fit()
        shutil.rmtree(folder / ENGINE, ignore_errors=True)  # all that counts is in our own files
        trials = list(view.trials.values())
        if not view.is_to_go_on:
            break
    return trials


def make_tuner(sweep: Sweep, folder: Path, needs: Needs, jobs: int | None, view: View) -> Any:
    """Return what runs the trials of `view` that are WAITING, and of a search those still to come.

    `view` follows them.
    """
    trials = list(view.trials.values())
    open_ = [trial for trial in trials if trial.job.state == WAITING]
    search = OptunaSearch(sweep, trials) if sweep.is_adaptive else None
    shared = {"sweep": sweep, "folder": folder, "needs": needs, "cwd": Path.cwd()}
    resources = {"cpu": float(needs.cpus), "gpu": needs.gpus}
    grid = {"values": tune.grid_search([trial.values for trial in open_])}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(RunTrial, **shared), resources),
        param_space=None if search else grid,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=make_asha(sweep, trials) if sweep.asha else None,
            num_samples=sweep.size - (len(trials) - len(open_)) if search else 1,
            max_concurrent_trials=jobs,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=ENGINE,
            storage_path=str(folder),
            failure_config=tune.FailureConfig(max_failures=FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[view],
            verbose=0,
        ),
    )


def make_asha(sweep: Sweep, trials: Sequence[Trial]) -> ASHAScheduler:
    """Return the scheduler that stops trials that are behind (Li et al. 2020), fed with their logs.

    Those that go on tell it what they log from there on.
    """
    longest = max(sweep.job(values).n_iter for values in sweep.values())
    scheduler = ASHAScheduler(
        time_attr="iterations",
        metric=sweep.metric,
        mode=sweep.mode,
        max_t=longest,
        grace_period=max(1, math.floor(longest / REDUCTION**2)),
        reduction_factor=REDUCTION,
    )
    nobody: Any = None  # no controller is asked anything
    for trial in trials:
        if trial.job.state == FAILED or trial.job.folder is None:
            continue
        stand_in = TuneTrial("RunTrial", stub=True)
        scheduler.on_trial_add(nobody, stand_in)
        for row in read_rows(trial.job.folder / PROGRESS):
            if row.get(sweep.metric):
                told = {
                    "iterations": int(row["Iteration"]) + 1,
                    sweep.metric: float(row[sweep.metric]),
                }
                scheduler.on_trial_result(nobody, stand_in, told)
    return scheduler
