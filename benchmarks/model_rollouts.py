"""Imagined transitions per second in question 6: batched, and homework-style.

Run `python -m benchmarks.model_rollouts` on an idle machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.planning import random_data
from benchmarks.reference.homework_mpc import build_models
from benchmarks.reference.homework_rollout import HomeworkActor, collect_model_trajectory
from benchmarks.timing import Contender, both_ways, write
from cs285.config.flags import from_flat
from cs285.config.mbpo import MBPOConfig
from cs285.envs import inspect_task
from cs285.infrastructure.pytorch_util import make_generator
from cs285.models.task_model import TaskModel

ENV, LENGTH, MEMBERS, MODEL_SIZE, POLICY_SIZE = "cheetah-cs285-v0", 10, 3, 250, 256
STARTS = (100, 1000, 5000)
BASELINE = "one state at a time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="measured rounds")
    arguments = parser.parse_args()
    contenders: dict[str, Contender] = {BASELINE: one_at_a_time}
    for propagation in ("mean", "random_member"):
        for starts in STARTS:
            contenders[f"{propagation}, {starts} starts"] = partial(batched, starts, propagation)
    content = {
        "shape": f"{ENV} {LENGTH} steps, E {MEMBERS} 2x{MODEL_SIZE}, policy 2x{POLICY_SIZE}",
        "unit": "imagined transitions per second",
        "torch_threads": torch.get_num_threads(),
        **both_ways("rollouts", contenders, arguments.repeats, BASELINE),
    }
    write("model_rollouts", content)


def batched(starts: int, propagation: str) -> Callable[[], int]:
    from cs285.agents.mbpo_agent import MBPOAgent
    from cs285.models.rollouts import roll_out

    task, real = inspect_task(ENV), random_data()
    flags = {"ensemble_size": MEMBERS, "size": MODEL_SIZE, "sac_size": POLICY_SIZE}
    agent = MBPOAgent(task, from_flat(MBPOConfig, flags), torch.device("cpu"))
    agent.mb_agent.model.fit_statistics(real)
    policy, generator = agent.sac_agent.policy, make_generator(0, "benchmark")

    def work() -> int:
        rows = torch.randint(len(real.obs), (starts,), generator=generator)
        arguments = (TaskModel(task.get_reward), real.obs[rows], LENGTH, propagation, generator)
        return len(roll_out(agent.mb_agent.model, policy.draw, *arguments).data.rewards)

    return work


def one_at_a_time() -> Callable[[], int]:
    task, real = inspect_task(ENV), random_data()
    models = build_models(real, MEMBERS, MODEL_SIZE)
    actor, obs = HomeworkActor(task.ob_dim, task.ac_dim, POLICY_SIZE), real.obs.numpy()
    get_reward = task.get_reward
    assert get_reward is not None

    def work() -> int:
        paths = [
            collect_model_trajectory(models, actor, get_reward, obs, LENGTH) for _ in range(20)
        ]
        return sum(len(path["reward"]) for path in paths)

    return work


if __name__ == "__main__":
    main()
