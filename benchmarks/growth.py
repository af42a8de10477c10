"""Growth of the time of planning, collecting and fitting with the settings that determine it.

Run `python -m benchmarks.growth` on an idle machine.

The script varies one setting at a time, fits a line to log time over log setting, and reports its
slope. A slope of 1 means that the time is proportional to the setting. A slope of 0 means that the
time does not depend on it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.dynamics_fit import random_data
from benchmarks.planning import ENV, collector
from benchmarks.timing import write
from cs285.agents.mb_agent import MBAgent
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs import inspect_task
from cs285.infrastructure.pytorch_util import make_generator
from cs285.models.training import fit_ensemble
from cs285.networks.cpu_tuning import tune_cpu
from cs285.policies.base_policy import Memory

Cases = dict[int, Callable[[], Callable[[], Any]]]  # size -> function that builds the work
CPU = torch.device("cpu")
PLANNER: dict[str, Any] = {"mpc_num_action_sequences": 1000, "mpc_horizon": 15}
MODEL: dict[str, Any] = {"ensemble_size": 3, "size": 250}
PLANNING = {
    "mpc_num_action_sequences": (250, 500, 1000, 2000, 4000),
    "mpc_horizon": (5, 10, 20, 40),
    "ensemble_size": (1, 2, 4, 8),
    "size": (64, 128, 256, 512),
}
WORKERS, DECISIONS = (1, 2), 40
REPLAY, FIT_STEPS = (1_000, 10_000, 100_000, 1_000_000), 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="measured rounds")
    arguments = parser.parse_args()
    tune_cpu()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a worker process has one thread
    content: dict[str, Any] = {
        "unit": "median seconds of one decision on one thread, of collecting, and of a fit of "
        f"{FIT_STEPS} gradient steps with the input statistics of the whole replay buffer"
    }
    for name, values in PLANNING.items():
        cases: Cases = {value: partial(decision, name, value) for value in values}
        content[f"planning by {name}"] = measure_growth(cases, arguments.repeats)
    torch.set_num_threads(threads)
    workers: Cases = {count: partial(collector, "random", DECISIONS, count) for count in WORKERS}
    content[f"collecting {DECISIONS} env steps by workers"] = measure_growth(
        workers, arguments.repeats
    )
    fits: Cases = {rows: partial(fit, rows) for rows in REPLAY}
    content["fit by replay size"] = measure_growth(fits, arguments.repeats)
    write("growth", content)


def measure_growth(cases: Cases, repeats: int) -> dict[str, Any]:
    """Time the cases in turn. Return their median seconds and the slope of the fitted line."""
    works = {value: build() for value, build in cases.items()}
    seconds: dict[int, list[float]] = {value: [] for value in works}
    for repeat in range(repeats + 1):
        for value, work in works.items():
            start = time.perf_counter()
            work()
            if repeat > 0:
                seconds[value].append(time.perf_counter() - start)
    medians = {value: statistics.median(times) for value, times in seconds.items()}
    slope = np.polyfit(np.log(list(medians)), np.log(list(medians.values())), 1)[0]
    rounded = {str(value): round(median, 5) for value, median in medians.items()}
    return {"slope": round(float(slope), 3), "seconds": rounded}


def decision(name: str, value: int) -> Callable[[], Any]:
    model: dict[str, Any] = {key: value if key == name else usual for key, usual in MODEL.items()}
    planner: dict[str, Any] = {
        key: value if key == name else usual for key, usual in PLANNER.items()
    }
    agent = MBAgent(inspect_task(ENV), ModelConfig(**model), PlannerConfig(**planner), 1, CPU)
    agent.model.fit_statistics(random_data())
    obs, memories = np.zeros((1, 21), np.float32), [Memory(make_generator(1, "benchmark"))]
    return lambda: agent.actor.get_action(obs, memories)


def fit(rows: int) -> Callable[[], Any]:
    agent = MBAgent(inspect_task(ENV), ModelConfig(**MODEL), PlannerConfig(), 1, CPU)
    copies = -(-rows // 10_000)
    repeated = random_data().each(lambda c: c.repeat(copies, *[1] * (c.dim() - 1)))
    data = repeated.between(0, rows)

    def work() -> None:
        indices = torch.randint(rows, (FIT_STEPS, 3, 512))
        assert agent.optimizer is not None
        fit_ensemble(agent.model, agent.optimizer, data, indices)

    return work


if __name__ == "__main__":
    main()
