"""The parts of question 6 (rlen10) in the style of the homework, for comparison only.

They are timed separately because a complete run takes half an hour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.planning import random_data
from benchmarks.reference.homework_mpc import build_models
from benchmarks.reference.homework_rollout import HomeworkActor, collect_model_trajectory
from benchmarks.reference.homework_sac import HomeworkSAC
from cs285.envs import inspect_task, make_env

ENV, MEMBERS, SIZE, SAC_SIZE, BATCH = "cheetah-cs285-v0", 3, 250, 256, 256
LENGTH, AT_ONCE = 10, 10


def sac_iteration(rows: int) -> Callable[[], int]:
    """Return work that runs homework-style SAC iterations with a replay buffer of `rows` rows.

    One SAC iteration is a model rollout, adding its transitions to the buffer, and an update.
    """
    task, real = inspect_task(ENV), random_data()
    models = build_models(real, MEMBERS, SIZE)
    actor = HomeworkActor(task.ob_dim, task.ac_dim, SAC_SIZE)
    agent = HomeworkSAC(task.ob_dim, task.ac_dim, SAC_SIZE)
    arrays = [column.numpy() for column in (real.obs, real.acs, real.rewards, real.next_obs)]
    terminated = np.zeros(len(real.obs), np.float32)
    repeats = -(-rows // len(terminated))
    agent.add_path(*(np.concatenate([array] * repeats)[:rows] for array in (*arrays, terminated)))
    get_reward = task.get_reward
    assert get_reward is not None

    def work() -> int:
        for _ in range(AT_ONCE):
            assert agent.replay.columns is not None
            obs = agent.replay.columns[0]
            path = collect_model_trajectory(models, actor, get_reward, obs, LENGTH)
            agent.add_path(
                path["observation"], path["action"], path["reward"], path["next_observation"],
                path["terminal"].astype(np.float32),
            )  # fmt: skip
            agent.train(BATCH)
        return AT_ONCE

    return work


def env_steps(count: int) -> Callable[[], int]:
    """Return work that collects an episode of `count` env steps with the homework's policy."""
    task, env = inspect_task(ENV), make_env(ENV, count)
    agent = HomeworkSAC(task.ob_dim, task.ac_dim, SAC_SIZE)

    def work() -> int:
        obs, _ = env.reset(seed=1)
        for _ in range(count):
            obs, *_ = env.step(agent.get_action(np.asarray(obs, np.float32)))
        return count

    return work
