"""The pieces of question 6 (rlen10) as the homework has them, and what a whole run of them takes.

A whole homework-style run takes half an hour, so its SAC iterations (a rollout, its addition to
the replay, an update) are timed at the replay's size in the middle of each trainer iteration. What
the homework spends on evaluation, logging and its start is left out, in its favour.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.dynamics_fit import separate
from benchmarks.planning import random_data
from benchmarks.reference.homework_mpc import HomeworkModel
from benchmarks.reference.homework_rollout import HomeworkActor, collect_model_trajectory
from benchmarks.reference.homework_sac import HomeworkSAC
from cs285.envs import inspect_task, make_env

ENV, MEMBERS, SIZE, SAC_SIZE, BATCH = "cheetah-cs285-v0", 3, 250, 256, 256
ITERATIONS, ENV_STEPS, FIT_STEPS, SAC_ITERATIONS, LENGTH = 10, 5000, 1500, 5000, 10


def measure_pieces() -> dict[str, object]:
    """Return seconds of each piece, and `integrated_seconds` of the whole."""
    fit = seconds_per_unit(separate(MEMBERS, 512, SIZE, 2), rounds=3)
    sac = {}
    for iteration in range(ITERATIONS):
        rows = ENV_STEPS * (iteration + 1) + int((iteration + 0.5) * SAC_ITERATIONS * LENGTH)
        sac[rows] = seconds_per_unit(sac_iteration(rows), rounds=20)
    collect = seconds_per_unit(env_steps(500), rounds=2)
    whole = (
        ITERATIONS * FIT_STEPS * fit
        + SAC_ITERATIONS * sum(sac.values())
        + ITERATIONS * ENV_STEPS * collect
    )
    return {
        "seconds_per_fit_step": round(fit, 5),
        "seconds_per_sac_iteration_by_replay_rows": {
            str(rows): round(seconds, 5) for rows, seconds in sac.items()
        },
        "seconds_per_env_step": round(collect, 6),
        "integrated_seconds": round(whole, 0),
    }


def seconds_per_unit(work: Callable[[], int], rounds: int) -> float:
    """Return the median over rounds, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        units = work()
        times.append((time.perf_counter() - start) / units)
    return float(np.median(times))


def sac_iteration(rows: int) -> Callable[[], int]:
    """Return one rollout, its addition to a replay of so many rows, and one update from it."""
    task, real = inspect_task(ENV), random_data()
    columns = {"obs": real.obs, "acs": real.acs, "delta": real.next_obs - real.obs}
    statistics = {f"{name}_mean": column.mean(0).numpy() for name, column in columns.items()}
    statistics |= {f"{name}_std": column.std(0).numpy() for name, column in columns.items()}
    models = [HomeworkModel(task.ob_dim, task.ac_dim, SIZE, statistics) for _ in range(MEMBERS)]
    actor = HomeworkActor(task.ob_dim, task.ac_dim, SAC_SIZE)
    agent = HomeworkSAC(task.ob_dim, task.ac_dim, SAC_SIZE)
    arrays = [column.numpy() for column in (real.obs, real.acs, real.rewards, real.next_obs)]
    dones = np.zeros(len(real.obs), np.float32)
    repeats = -(-rows // len(dones))
    agent.add_path(*(np.concatenate([array] * repeats)[:rows] for array in (*arrays, dones)))
    get_reward = task.get_reward
    assert get_reward is not None

    def work() -> int:
        assert agent.replay.columns is not None
        obs = agent.replay.columns[0]
        path = collect_model_trajectory(models, actor, get_reward, obs, LENGTH)
        agent.add_path(
            path["observation"], path["action"], path["reward"], path["next_observation"],
            path["terminal"].astype(np.float32),
        )  # fmt: skip
        agent.train(BATCH)
        return 1

    return work


def env_steps(count: int) -> Callable[[], int]:
    """Return an episode of the homework's policy."""
    task, env = inspect_task(ENV), make_env(ENV, count)
    agent = HomeworkSAC(task.ob_dim, task.ac_dim, SAC_SIZE)

    def work() -> int:
        obs, _ = env.reset(seed=1)
        for _ in range(count):
            obs, *_ = env.step(agent.get_action(np.asarray(obs, np.float32)))
        return count

    return work
