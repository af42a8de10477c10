"""Decisions per second of each planner: CEM, iCEM, MPPI and random shooting.

Run `python -m benchmarks.planners` on an idle machine.

Every planner plans the same number of env steps on two tasks, in two worker processes. iCEM uses
100 candidates and the other planners 1000. The ensemble has the homework's size. It is not trained,
because training does not change the time of a prediction.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from benchmarks.planning import collect_with, random_data
from benchmarks.timing import rates, summarize, write
from cs285.agents.mb_agent import MBAgent
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs import inspect_task

HORIZONS = {"cheetah-cs285-v0": 15, "reacher-cs285-v0": 10}
BASELINE = "CEM, 1000 candidates"
PLANNERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    BASELINE: ("cem", {"mpc_num_action_sequences": 1000}),
    "iCEM, 100 candidates": ("icem", {"mpc_num_action_sequences": 100}),
    "MPPI, 1000 candidates": ("mppi", {"mpc_num_action_sequences": 1000}),
    "random shooting, 1000 candidates": ("random", {"mpc_num_action_sequences": 1000}),
}
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds")
    parser.add_argument("--decisions", type=int, default=20, help="decisions per round")
    arguments = parser.parse_args()
    content: dict[str, Any] = {
        "unit": "decisions per second (planning and one env step); CEM, iCEM and MPPI use their "
        "default number of iterations"
    }
    for env in HORIZONS:
        contenders = {name: partial(planner, env, name, arguments.decisions) for name in PLANNERS}
        content[env] = summarize(rates(contenders, arguments.repeats), BASELINE)
    write("planners", content)


def planner(env: str, name: str, decisions: int) -> Callable[[], int]:
    """Return work that collects env steps with the named planner."""
    strategy, flags = PLANNERS[name]
    config = PlannerConfig(
        mpc_horizon=HORIZONS[env], mpc_action_sampling_strategy=strategy, **flags
    )
    agent = MBAgent(inspect_task(env), ModelConfig(), config, 1, torch.device("cpu"))
    agent.model.fit_statistics(random_data(env))
    return collect_with(agent, env, decisions, WORKERS)


if __name__ == "__main__":
    main()
