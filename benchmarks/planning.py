"""Planning decisions per second at the homework's cheetah shape: here, and homework-style.

    python -m benchmarks.planning

Both step the real simulator. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from benchmarks.reference.homework_mpc import HomeworkModel, HomeworkMPC
from benchmarks.timing import rates, sgemm_peak, summarize, write
from cs285.agents.mb_agent import MBAgent
from cs285.envs import TaskSpec, inspect_task, make_env
from cs285.infrastructure.collector import Collector
from cs285.infrastructure.config import ModelConfig, PlannerConfig
from cs285.infrastructure.episodes import EpisodeKey, run_episodes
from cs285.infrastructure.replay_buffer import stack_paths
from cs285.infrastructure.worker_pool import WorkerPool
from cs285.policies.base_policy import RandomPolicy

ENV, HORIZON, SEQUENCES, MEMBERS, SIZE = "cheetah-cs285-v0", 15, 1000, 3, 250
STRATEGIES = ("random", "cem")
CEM_ITERATIONS = 4
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="counted rounds")
    parser.add_argument("--decisions", type=int, default=40, help="decisions per round")
    arguments = parser.parse_args()
    task = inspect_task(ENV)
    widths = (task.ob_dim + task.ac_dim, SIZE, SIZE, task.ob_dim)
    products = sum(a * b for a, b in pairwise(widths))
    gflop = 2 * products * MEMBERS * SEQUENCES * HORIZON / 1e9  # a population's forward passes
    content: dict[str, object] = {
        "shape": f"{ENV} N {SEQUENCES} H {HORIZON} E {MEMBERS} 2x{SIZE}",
        "unit": "decisions (env steps with their planning) per second",
        "torch_threads": torch.get_num_threads(),
        "gflop_per_population": round(gflop, 2),
        "sgemm_peak_gflop_per_s": round(sgemm_peak(), 1),
    }
    for strategy in STRATEGIES:
        population_count = CEM_ITERATIONS if strategy == "cem" else 1
        decisions = max(4, arguments.decisions // population_count)
        contenders = make_contenders(task, strategy, decisions)
        summary = summarize(rates(contenders, arguments.repeats), "homework-style loop")
        for row in summary.values():
            row["gflop_per_s"] = round(row["median"] * gflop * population_count, 1)
        content[strategy] = summary
    write("planning", content)


def make_contenders(task: TaskSpec, strategy: str, decisions: int) -> dict[str, Callable[[], int]]:
    """Return what is compared, each doing `decisions` env steps of the same task and planner."""
    agent = MBAgent(
        task,
        ModelConfig(ensemble_size=MEMBERS, size=SIZE),
        PlannerConfig(
            mpc_horizon=HORIZON,
            mpc_num_action_sequences=SEQUENCES,
            mpc_action_sampling_strategy=strategy,
            cem_iterations=CEM_ITERATIONS,
        ),
        seed=1,
        device=CPU,
    )
    random = RandomPolicy(task.ac_low, task.ac_high)
    paths = run_episodes([make_env(ENV, 1000)], random, [EpisodeKey(0, "data", 0, 0)])
    agent.add_to_replay_buffer(paths, 0)
    agent.model.fit_statistics(agent.replay_buffer.all())

    contenders = {"homework-style loop": homework_loop(task, strategy, decisions)}
    for workers in (1, 2):
        # One episode per worker, so that both are busy to the end.
        ep_len = decisions // workers
        # Always in worker processes: this one keeps torch's and malloc's defaults for the other.
        pool = WorkerPool(partial(make_env, ENV, ep_len), workers)
        collector = Collector(pool, seed=1, ep_len=ep_len)
        name = f"collector, {workers} worker{'s' * (workers > 1)}"
        contenders[name] = partial(collect, collector, agent, decisions)
    return contenders


def collect(collector: Collector, agent: MBAgent, decisions: int) -> int:
    paths, _ = collector.collect(agent.actor, decisions, "train", 0)
    return sum(path.length for path in paths)


def homework_loop(task: TaskSpec, strategy: str, decisions: int) -> Callable[[], int]:
    """Return the loop of one env, planning with HomeworkMPC on all of torch's threads."""
    random = RandomPolicy(task.ac_low, task.ac_high)
    data = stack_paths(run_episodes([make_env(ENV, 1000)], random, [EpisodeKey(0, "data", 0, 0)]))
    columns = {"obs": data.obs, "acs": data.acs, "delta": data.next_obs - data.obs}
    statistics = {f"{name}_mean": column.mean(0).numpy() for name, column in columns.items()}
    statistics |= {f"{name}_std": column.std(0).numpy() for name, column in columns.items()}
    models = [HomeworkModel(task.ob_dim, task.ac_dim, SIZE, statistics) for _ in range(MEMBERS)]
    assert task.get_reward is not None
    planner = HomeworkMPC(
        models,
        task.get_reward,
        task.ac_low,
        task.ac_high,
        HORIZON,
        SEQUENCES,
        cem_iterations=CEM_ITERATIONS if strategy == "cem" else 0,
    )
    env = make_env(ENV, decisions)

    def loop() -> int:
        obs, _ = env.reset(seed=1)
        for _ in range(decisions):
            obs, *_ = env.step(planner.get_action(np.asarray(obs, np.float32)))
        return decisions

    return loop


if __name__ == "__main__":
    main()
