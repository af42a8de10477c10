"""Tests of the collector: same data from every backend, and recovery from dead workers."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path as FilePath
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit

from cs285.agents.mb_agent import MBAgent
from cs285.collection import collector as collector_module
from cs285.collection import worker_pool
from cs285.collection.collector import (
    Collector,
    InProcess,
    _shortest_prefix,
    available_cores,
    make_backend,
)
from cs285.collection.continuing_collector import ContinuingCollector
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.collection.worker_pool import WorkerPool
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs import inspect_task, make_env
from cs285.infrastructure.errors import (
    DivergedError,
    NoMemoryError,
    RunError,
    TaskError,
    WorkerError,
    as_no_memory,
)
from cs285.infrastructure.replay_buffer import Path
from cs285.policies.base_policy import RandomPolicy
from tests.toys import ChangesItsInput, LinearReach

EP_LEN = 30
FACTORY = partial(make_env, "obstacles-cs285-v0", EP_LEN)
RANDOM = RandomPolicy(np.full(2, -0.99, np.float32), np.full(2, 0.99, np.float32))


class GoalPolicy(RandomPolicy):
    """Walks to the goal with noise, so that the episode lengths differ."""

    def get_action(self, obs: Any, memories: Any) -> Any:
        noise = super().get_action(obs, memories)
        return np.clip(5 * (obs[:, 2:] - obs[:, :2]) + 0.8 * noise, self.ac_low, self.ac_high)


class Slow(gym.Wrapper):
    """A slow env, so that a test has time to kill its process."""

    def step(self, action: Any) -> Any:
        time.sleep(0.02)
        return self.env.step(action)


def slow_env() -> gym.Env:
    return Slow(FACTORY())


class SlowToClose(gym.Wrapper):
    def close(self) -> None:
        time.sleep(1000)


def slow_to_close() -> gym.Env:
    return SlowToClose(FACTORY())


def env_of_this_process() -> gym.Env:
    if multiprocessing.parent_process() is not None:
        raise ValueError("no such module")
    return FACTORY()


def env_that_kills_its_process() -> gym.Env:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def reach_env(kind: type[gym.Env]) -> gym.Env:
    return TimeLimit(kind(), 20)


def flat(paths: list[Path]) -> list[np.ndarray]:
    return [column for path in paths for column in path]


def collect(backend: Any, policy: Any = None, steps: int = 200) -> list[Path]:
    collector = Collector(backend, seed=4, ep_len=EP_LEN)
    try:
        return collector.collect(policy or GoalPolicy(*bounds()), steps, "train", 2).paths
    finally:
        collector.close()


def bounds() -> tuple[np.ndarray, np.ndarray]:
    return RANDOM.ac_low, RANDOM.ac_high


def test_data_do_not_depend_on_backend_or_number_of_workers() -> None:
    backends = [
        InProcess(FACTORY, 1),
        InProcess(FACTORY, 16),
        WorkerPool(FACTORY, 2),
        WorkerPool(FACTORY, 3),
    ]
    expected, *others = [collect(backend) for backend in backends]
    lengths = [path.length for path in expected]
    assert len(set(lengths)) > 1  # some episodes terminated at the goal
    assert sum(lengths) >= 200 > sum(lengths[:-1])  # the smallest sufficient number
    for paths in others:
        for left, right in zip(flat(expected), flat(paths), strict=True):
            assert np.array_equal(left, right)


def test_plans_do_not_depend_on_workers_or_cores() -> None:
    """Plans are bitwise equal: each core plans for some of three blocks of rows."""
    task = inspect_task("obstacles-cs285-v0")
    model = ModelConfig(model="probabilistic", activation="swish", size=40)
    config = PlannerConfig(mpc_horizon=3, mpc_num_action_sequences=150)  # 7 particles per member
    agent = MBAgent(task, model, config, 1, torch.device("cpu"))
    backends = [InProcess(FACTORY, 1), InProcess(FACTORY, 1, 3), WorkerPool(FACTORY, 2, 4)]
    expected, *others = [collect(backend, agent.actor, 31) for backend in backends]
    assert len(expected) == 2
    for paths in others:
        for left, right in zip(flat(expected), flat(paths), strict=True):
            assert np.array_equal(left, right)


@pytest.mark.parametrize(
    ("busy", "shares"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (7, [1, 1, 1, 1, 1, 1, 1])]
)
def test_busy_workers_share_the_cores(busy: int, shares: list[int]) -> None:
    workers: Any = [SimpleNamespace(threads=SimpleNamespace(value=1)) for _ in range(busy)]
    WorkerPool(FACTORY, 7, cores=5)._share_cores(workers)
    assert [worker.threads.value for worker in workers] == shares


def test_environment_that_changes_its_input_does_not_change_the_data() -> None:
    """The stored actions are what the policy decided, in every way of collecting."""
    policy = RandomPolicy(*np.array([[-1.0, -1.0], [1.0, 1.0]], np.float32))
    plain, changing = (partial(reach_env, kind) for kind in (LinearReach, ChangesItsInput))
    expected = flat(Collector(InProcess(plain, 2), 1, 20).collect(policy, 60, "train", 0).paths)
    for collector in (
        Collector(InProcess(changing, 2), 1, 20),
        Collector(WorkerPool(changing, 2), 1, 20),
        ContinuingCollector(changing, 1),
    ):
        found = flat(collector.collect(policy, 60, "train", 0).paths)
        collector.close()
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left, right)


def test_purpose_iteration_number_and_seed_change_the_episode() -> None:
    def first_obs(seed: int, purpose: str, iteration: int, number: int) -> Any:
        key = EpisodeKey(seed, purpose, iteration, number)
        return tuple(run_episodes([FACTORY()], RANDOM, [key])[0].obs[3])

    keys = [(0, "train", 0, 0), (1, "train", 0, 0), (0, "eval", 0, 0), (0, "train", 1, 0)]
    keys.append((0, "train", 0, 1))
    assert len({first_obs(*key) for key in keys}) == 5


def test_path_records_the_env_steps() -> None:
    (path,) = run_episodes([FACTORY()], RANDOM, [EpisodeKey(0, "train", 0, 0)])
    assert path.length == EP_LEN
    assert not path.terminated.any()  # the time limit truncates
    np.testing.assert_array_equal(path.obs[1:], path.next_obs[:-1])
    distances = np.linalg.norm(path.next_obs[:, :2] - path.next_obs[:, 2:], axis=1)
    np.testing.assert_allclose(path.rewards, -distances, rtol=1e-5)
    short = min(collect(InProcess(FACTORY, 1)), key=lambda path: path.length)
    assert short.length < EP_LEN
    assert short.terminated.tolist() == [False] * (short.length - 1) + [True]


def test_killed_worker_does_not_change_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    pool = WorkerPool(slow_env, 2)
    expected = collect(InProcess(FACTORY, 1), steps=120)

    def kill_one() -> None:
        wait_for_steps(pool, 5)
        os.kill(pool._workers[0].process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    paths = collect(pool, steps=120)
    killer.join()
    for left, right in zip(flat(expected), flat(paths), strict=True):
        assert np.array_equal(left, right)
    assert "died (exit code -9); running episode" in capsys.readouterr().err


def test_episode_that_kills_every_worker_fails() -> None:
    with pytest.raises(WorkerError, match="giving up on episode 0: it killed 3 workers"):
        collect(WorkerPool(env_that_kills_its_process, 2))


def test_unneeded_episodes_are_cancelled_and_their_errors_ignored() -> None:
    """To collect EP_LEN steps, only episode 0 is needed, although episode 1 was started, too."""
    pool = WorkerPool(slow_env, 2)
    collector = Collector(pool, seed=4, ep_len=EP_LEN)
    pool.start(RANDOM, lambda steps: None)
    for number in (0, 1):
        pool.submit(EpisodeKey(4, "train", 0, number))
    wait_for_steps(pool, 3)
    pool.cancel()
    assert all(worker.key is None for worker in pool._workers)
    paths = collector.collect(RANDOM, EP_LEN, "train", 0).paths  # the same workers still work
    collector.close()
    expected = run_episodes([FACTORY()], RANDOM, [EpisodeKey(4, "train", 0, 0)])
    assert np.array_equal(paths[0].obs, expected[0].obs)

    failed: dict[int, Any] = {0: expected[0], 1: WorkerError("not needed")}
    assert _shortest_prefix(failed, EP_LEN) == expected
    with pytest.raises(WorkerError, match="not needed"):
        _shortest_prefix(failed, EP_LEN + 1)


def wait_for_steps(pool: WorkerPool, steps: int) -> None:
    while not any(worker.steps.value > steps for worker in pool._workers):
        time.sleep(0.01)


def test_error_of_a_worker_includes_the_exception() -> None:
    with pytest.raises(WorkerError, match="ZeroDivisionError: division by zero"):
        collect(WorkerPool(FACTORY, 2), BuggyPolicy(*bounds()))


def test_episodes_run_here_if_workers_cannot_create_the_environment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    collector = Collector(WorkerPool(env_of_this_process, 2), 4, EP_LEN)
    paths = collector.collect(RANDOM, 3 * EP_LEN, "train", 0).paths
    expected = Collector(InProcess(FACTORY, 1), 4, EP_LEN).collect(RANDOM, 3 * EP_LEN, "train", 0)
    assert all((p.obs == e.obs).all() for p, e in zip(paths, expected.paths, strict=True))
    err = capsys.readouterr().err
    assert err.startswith("warning: worker processes cannot run this task (no such module); its")
    collector.collect(RANDOM, EP_LEN, "train", 1)
    assert capsys.readouterr().err == ""  # one warning


@pytest.mark.parametrize(
    ("error", "is_memory_error"),
    [
        (lambda: torch.empty(10**15), True),
        (lambda: torch.empty(2**31, 2**31), True),
        (lambda: torch.zeros(1).expand(2**40, 2**30).contiguous(), True),
        (lambda: np.empty(10**15), True),
        (lambda: torch.zeros(2, dtype=torch.int8).fill_(300), False),
        (lambda: torch.zeros(2) @ torch.zeros(3), False),
    ],
)
def test_out_of_memory_errors_are_recognised(error: Any, is_memory_error: bool) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        error()
    assert (as_no_memory(raised.value) is not None) == is_memory_error


def test_worker_out_of_memory_gives_a_one_line_error() -> None:
    with pytest.raises(NoMemoryError, match=r"^not enough memory .*; start a run with a smaller"):
        collect(WorkerPool(FACTORY, 2), GreedyPolicy(*bounds()))


@pytest.mark.parametrize("backend", [InProcess(FACTORY, 1), WorkerPool(FACTORY, 2)])
def test_non_finite_action_never_reaches_the_simulator(backend: Any) -> None:
    with pytest.raises(DivergedError, match="non-finite action"):
        collect(backend, NanPolicy(*bounds()))


@pytest.mark.parametrize("backend", [InProcess(FACTORY, 2), WorkerPool(FACTORY, 2)])
def test_actions_of_a_wrong_shape_are_the_policys_error(backend: Any) -> None:
    with pytest.raises(RunError, match=r"the policy returned actions of shape .*; must be "):
        collect(backend, FlatPolicy(*bounds()))


class Broken(LinearReach):
    """Returns bad numbers from `reset`, or in env step 1."""

    def __init__(self, where: str, value: float) -> None:
        super().__init__()
        self.where, self.value = where, value

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        obs, about = super().reset(**options)
        return (obs * self.value if self.where == "reset" else obs), about

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        self.steps += 1
        if self.steps == 2 and self.where == "observation":
            obs = obs * self.value
        if self.steps == 2 and self.where == "reward":
            reward = self.value
        return obs, reward, *rest


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39, -1e300])
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("reset", "an observation that is non-finite in float32, in reset"),
        ("observation", "an observation that is non-finite in float32, at env step 1 of"),
        ("reward", "a reward that is non-finite in float32, at env step 1 of an episode; must be"),
    ],
)
def test_numbers_that_float32_cannot_hold_are_errors(
    where: str, expected: str, value: float
) -> None:
    """1e39 is finite in the simulator and infinite in the replay buffer."""
    backend = InProcess(lambda: TimeLimit(Broken(where, value), 5), 1)
    with pytest.raises(TaskError, match=f"^the environment Broken returned {expected}"):
        Collector(backend, 1, 5).collect(RANDOM, 5, "train", 0)


class Leaves(LinearReach):
    """Ends the process, or seems to, in env step 1."""

    error: BaseException

    def step(self, action: Any) -> Any:
        raise self.error


class Exits(Leaves):
    error = SystemExit(0)


class Interrupts(Leaves):
    error = KeyboardInterrupt()


class Stops(Leaves):
    error = GeneratorExit()


@pytest.mark.parametrize("task", [Exits, Interrupts, Stops])
def test_a_task_that_raises_an_exit_fails_the_run(task: type[Leaves]) -> None:
    """It must not look like the end of the run, or like the user's Ctrl-C."""
    backends = [WorkerPool(partial(TimeLimit, task(), 5), 2)]
    if task is not Interrupts:  # in this process, it looks like Ctrl-C
        backends.append(InProcess(partial(TimeLimit, task(), 5), 1))
    message = (
        f"^the environment {task.__name__} raised {type(task.error).__name__}.*, at env step 0"
    )
    for backend in backends:
        with pytest.raises(TaskError, match=message):
            collect(backend, RANDOM)


class GreedyPolicy(RandomPolicy):
    def get_action(self, obs: Any, memories: Any) -> Any:
        return torch.empty(10**15)


class BuggyPolicy(RandomPolicy):
    def get_action(self, obs: Any, memories: Any) -> Any:
        return 1 / 0


class FlatPolicy(RandomPolicy):
    """Returns (B,) instead of (B, A)."""

    def get_action(self, obs: Any, memories: Any) -> Any:
        return np.zeros(len(obs), np.float32)


class NanPolicy(RandomPolicy):
    def get_action(self, obs: Any, memories: Any) -> Any:
        return np.full((len(obs), 2), np.nan, np.float32)


@pytest.mark.parametrize("backend", [InProcess(FACTORY, 1), WorkerPool(slow_env, 2)])
def test_progress_is_reported_within_an_episode(backend: Any) -> None:
    reported: list[int] = []
    collector = Collector(backend, 4, EP_LEN)
    collector.collect(RANDOM, 2 * EP_LEN, "train", 0, reported.append)
    collector.close()
    assert reported == sorted(reported)
    assert reported[-1] == 2 * EP_LEN


def test_close_stops_all_worker_processes() -> None:
    pool = WorkerPool(FACTORY, 2)
    Collector(pool, 4, EP_LEN).collect(RANDOM, 90, "train", 0)
    processes = [worker.process for worker in pool._workers]
    assert len(processes) == 2
    pool.close()
    assert not any(process.is_alive() for process in processes)


class Closes(gym.Wrapper):
    """Writes a file when it is closed, as a task that ends its simulator."""

    def __init__(self, folder: str) -> None:
        super().__init__(FACTORY())
        self.folder = folder

    def close(self) -> None:
        (FilePath(self.folder) / str(os.getpid())).touch()


def test_workers_close_their_environments(tmp_path: FilePath) -> None:
    pool = WorkerPool(partial(Closes, str(tmp_path)), 2)
    Collector(pool, 4, EP_LEN).collect(RANDOM, 90, "train", 0)
    ids = {str(worker.process.pid) for worker in pool._workers}
    pool.submit(EpisodeKey(4, "train", 0, 0))  # one of them is busy
    pool.close()
    assert {file.name for file in tmp_path.iterdir()} == ids


def test_close_kills_a_worker_whose_environment_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "CLOSE_SECONDS", 0.5)
    pool = WorkerPool(slow_to_close, 1)
    Collector(pool, 4, EP_LEN).collect(RANDOM, EP_LEN, "train", 0)
    (worker,) = pool._workers
    begun = time.monotonic()
    pool.close()
    assert time.monotonic() - begun < 10
    assert not worker.process.is_alive()


def test_backend_depends_on_device_and_number_of_episodes() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert isinstance(make_backend(FACTORY, cpu, 1, 10), InProcess)
    assert isinstance(make_backend(FACTORY, cpu, 8, 1), InProcess)
    assert make_backend(FACTORY, cpu, 8, 3).capacity == 3
    assert make_backend(FACTORY, cpu, None, 100).capacity == available_cores()
    assert make_backend(FACTORY, gpu, None, 10).capacity > 10
    assert isinstance(make_backend(FACTORY, gpu, 2, 10), WorkerPool)


def test_num_workers_limits_the_planning_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(collector_module, "available_cores", lambda: 4)
    cores = [make_backend(FACTORY, cpu, workers, 1).cores for workers in (None, 1, 2, 8)]
    assert cores == [4, 1, 2, 4]
    backend = make_backend(FACTORY, cpu, None, 3)
    assert (backend.capacity, backend.cores) == (3, 4)
    assert make_backend(FACTORY, gpu, None, 1).cores == 1
    assert make_backend(FACTORY, gpu, 4, 4).cores == 1


def test_start_and_actions_each_depend_on_the_whole_key() -> None:
    keys = [(0, "train", 0, 0), (1, "train", 0, 0), (0, "eval", 0, 0), (0, "train", 1, 0)]
    keys.append((0, "train", 0, 1))
    paths = [run_episodes([FACTORY()], RANDOM, [EpisodeKey(*key)])[0] for key in keys]
    assert len({tuple(path.obs[0]) for path in paths}) == 5
    assert len({tuple(path.acs[0]) for path in paths}) == 5
