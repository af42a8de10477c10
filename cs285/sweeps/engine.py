"""Runs a sweep by Ray Tune: on this machine's cores and GPUs, or on a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.logger import read_rows
from cs285.infrastructure.run_folder import PROGRESS
from cs285.sweeps.cluster import connected
from cs285.sweeps.folder import ENDED, Trial, read_trials
from cs285.sweeps.plan import Sweep
from cs285.sweeps.values import Choice, Range

if TYPE_CHECKING:
    from cs285.sweeps.view import View

FAILURES = 20  # of a trial's workers and nodes, after which it is given up
ENGINE = "tune"  # folder of what Ray Tune keeps
REDUCTION = 3  # of ASHA: a third of the trials goes on at each rung


@dataclass(frozen=True)
class Resources:
    """Where trials go, and what each one gets."""

    address: str | None = None  # of a cluster; None: this machine
    jobs: int | None = None  # at once, at most
    cpus: int = 1
    gpus: float | None = None  # None: 1 where there are some and they are not refused


def run(sweep: Sweep, folder: Path, resources: Resources) -> list[Trial]:
    """Bring the trials of a sweep to their end, and return them all as they then are.

    Those that are not ENDED were interrupted. Raises UsageError.
    """
    from cs285.sweeps.view import View

    known = read_trials(folder, sweep)
    ended = [trial for trial in known if trial.job.state in ENDED]
    open_ = [trial.values for trial in known if trial.job.state not in ENDED]
    names = {trial.job.name for trial in known}
    if not sweep.is_adaptive:
        open_ += [values for values in sweep.values() if sweep.name_of(values) not in names]
    count = sweep.search - len(ended) if sweep.is_adaptive else len(open_)
    if not count:
        return ended
    with connected(resources.address):
        view = View(sweep, folder, ended)
        make_tuner(sweep, folder, resources, view, open_, count).fit()
    shutil.rmtree(folder / ENGINE, ignore_errors=True)  # all that counts is in our own files
    return read_trials(folder, sweep)


def make_tuner(
    sweep: Sweep,
    folder: Path,
    resources: Resources,
    view: View,
    open_: Sequence[dict[str, Any]],
    count: int,
) -> Any:
    """Return what runs `count` trials: those that are `open_`, or begin with them.

    Raises UsageError: no node can ever hold a trial.
    """
    from ray import tune

    from cs285.sweeps.trial import RunTrial

    ended = list(view.trials.values())
    needs = {"cpu": float(resources.cpus), "gpu": gpus_of(sweep, resources)}
    check_needs(needs)
    search = make_search(sweep, ended, open_) if sweep.is_adaptive else None
    shared = {"sweep": sweep, "folder": folder, "threads": resources.cpus, "cwd": Path.cwd()}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(RunTrial, **shared), needs),
        param_space=None if search else {"values": tune.grid_search(list(open_))},
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=make_asha(sweep, ended) if sweep.asha else None,
            num_samples=count if search else 1,
            max_concurrent_trials=resources.jobs,
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


def gpus_of(sweep: Sweep, resources: Resources) -> float:
    """Return the share of a GPU that a trial gets."""
    import ray

    if resources.gpus is not None:
        return resources.gpus
    refused = bool(sweep.fixed.get("no_gpu"))
    return 1.0 if ray.cluster_resources().get("GPU", 0) > 0 and not refused else 0.0


def check_needs(needs: dict[str, float]) -> None:
    """Raise UsageError: no node has so many cores, or so much of a GPU."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for flag, kind in (("cpus_per_trial", "CPU"), ("gpus_per_trial", "GPU")):
        most = max(node.get(kind, 0.0) for node in nodes)
        if needs[kind.lower()] > most:
            raise UsageError(
                f"--{flag} {needs[kind.lower()]:g}: allowed is up to {most:g}, as the nodes have"
            )


def make_search(sweep: Sweep, ended: Sequence[Trial], open_: Sequence[dict[str, Any]]) -> Any:
    """Return Optuna's search, which knows the trials that `ended` and begins with those `open_`."""
    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def domain(choice: Choice) -> Any:
        if not isinstance(choice, Range):
            return tune.choice(list(choice))
        if choice.whole:
            low, high = int(choice.low), int(choice.high) + 1  # without the last
            return tune.lograndint(low, high) if choice.log else tune.randint(low, high)
        draw = tune.loguniform if choice.log else tune.uniform
        return draw(choice.low, choice.high)

    search = OptunaSearch(
        {name: domain(sweep.choices[name]) for name in sweep.varied},
        metric=sweep.metric,
        mode=sweep.mode,
        points_to_evaluate=list(open_) or None,
        seed=sweep.sampler_seed + len(ended),
    )
    for trial in ended:
        if "metric" in trial.result:
            search.add_evaluated_point(trial.values, float(trial.result["metric"]))
    return search


def make_asha(sweep: Sweep, ended: Sequence[Trial]) -> Any:
    """Return the scheduler that stops trials that are behind, fed with what `ended` ones logged."""
    from ray.tune.experiment import Trial as TuneTrial
    from ray.tune.schedulers import ASHAScheduler

    longest = max(sweep.job(values).n_iter for values in sweep.values())
    scheduler = ASHAScheduler(
        time_attr="iterations",
        metric=sweep.metric,
        mode=sweep.mode,
        max_t=longest,
        grace_period=max(1, round(longest / REDUCTION**2)),
        reduction_factor=REDUCTION,
    )
    nobody: Any = None  # no controller is asked anything
    for trial in ended:
        stand_in = TuneTrial("RunTrial", stub=True)
        scheduler.on_trial_add(nobody, stand_in)
        for row in read_rows(trial.job.folder / PROGRESS) if trial.job.folder else []:
            if row.get(sweep.metric):
                result = {"iterations": int(row["Iteration"]) + 1}
                scheduler.on_trial_result(
                    nobody, stand_in, {**result, sweep.metric: float(row[sweep.metric])}
                )
    return scheduler
