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

from benchmarks.timing import rates, summarize, write
from cs285.agents.mb_agent import MBAgent
from cs285.envs import inspect_task, make_env
from cs285.infrastructure.episodes import EpisodeKey, run_episodes
from cs285.infrastructure.model_config import ModelConfig
from cs285.infrastructure.planner_config import PlannerConfig
from cs285.infrastructure.replay_buffer import stack_paths
from cs285.policies.base_policy import RandomPolicy

HORIZONS = {"cheetah-cs285-v0": 15, "reacher-cs285-v0": 10}
BASELINE = "CEM, 1000 candidates"
FEW = {"mpc_num_action_sequences": 100, "cem_num_elites": 10, "cem_alpha": 0.9}
PLANNERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    BASELINE: ("cem", {"mpc_num_action_sequences": 1000}),
    "iCEM, 100 candidates": ("icem", FEW),
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
    """Return work that collects env steps, one episode per worker."""
    from cs285.infrastructure.collector import Collector
    from cs285.infrastructure.worker_pool import WorkerPool

    task = inspect_task(env)
    strategy, flags = PLANNERS[name]
    config = PlannerConfig(
        mpc_horizon=HORIZONS[env], mpc_action_sampling_strategy=strategy, **flags
    )
    agent = MBAgent(task, ModelConfig(), config, 1, torch.device("cpu"))
    random = RandomPolicy(task.ac_low, task.ac_high)
    data = run_episodes([make_env(env, 1000)], random, [EpisodeKey(0, "data", 0, 0)])
    agent.model.fit_statistics(stack_paths(data))
    ep_len = decisions // WORKERS
    pool = Collector(WorkerPool(partial(make_env, env, ep_len), WORKERS), seed=1, ep_len=ep_len)

    def work() -> int:
        paths, _ = pool.collect(agent.actor, decisions, "train", 0)
        return sum(path.length for path in paths)

    return work


if __name__ == "__main__":
    main()
