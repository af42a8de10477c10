"""Planning time of the searches: CEM with 1000 candidates against iCEM with 100, and the others.

    python -m benchmarks.planners

The model has the homework's size; its weights are random, which costs the same. Each decides on two
tasks for as many steps, in two worker processes. Run it on an idle machine.
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
    parser.add_argument("--repeats", type=int, default=5, help="counted rounds")
    parser.add_argument("--decisions", type=int, default=20, help="decisions per round")
    arguments = parser.parse_args()
    content: dict[str, Any] = {
        "unit": "decisions (env steps with their planning) per second; iterations of CEM, iCEM and "
        "MPPI as they are by default"
    }
    for env in HORIZONS:
        contenders = {name: partial(planner, env, name, arguments.decisions) for name in PLANNERS}
        content[env] = summarize(rates(contenders, arguments.repeats), BASELINE)
    write("planners", content)


def planner(env: str, name: str, decisions: int) -> Callable[[], int]:
    """Return work that collects env steps by the planner of this name."""
    strategy, flags = PLANNERS[name]
    config = PlannerConfig(
        mpc_horizon=HORIZONS[env], mpc_action_sampling_strategy=strategy, **flags
    )
    agent = MBAgent(inspect_task(env), ModelConfig(), config, 1, torch.device("cpu"))
    agent.model.fit_statistics(random_data(env))
    return collect_with(agent, env, decisions, WORKERS)


if __name__ == "__main__":
    main()
