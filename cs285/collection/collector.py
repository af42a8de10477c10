"""Collect whole episodes: in worker processes on a CPU, in one batch on a GPU."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections import defaultdict
from typing import Any, NamedTuple, TypeAlias, cast

import gymnasium as gym
import torch

from cs285.collection.episodes import EnvFactory, EpisodeKey, Progress, run_episodes
from cs285.collection.worker_pool import NoWorkersError, WorkerPool
from cs285.config.run import RunConfig
from cs285.envs.checked_env import close_env
from cs285.infrastructure.errors import RunError
from cs285.infrastructure.replay_buffer import Path
from cs285.networks.threads import one_thread
from cs285.policies.base_policy import Policy

MAX_ENVS_IN_LOCKSTEP = 64
POLL_SECONDS = 0.5  # how often progress is reported while workers run


class InProcess:
    """Runs all submitted episodes as one lockstep batch in this process.

    On a CPU, planning uses `cores` threads. The data do not depend on their number.
    """

    can_cancel = False  # `wait` completes every submitted episode

    def __init__(self, env_factory: EnvFactory, capacity: int, cores: int = 1) -> None:
        self.capacity, self.cores = capacity, cores
        self._envs: defaultdict[tuple[str, int], gym.Env]  # by purpose and index in the batch
        self._envs = defaultdict(env_factory)
        self._keys: list[EpisodeKey] = []

    def start(self, policy: Policy, progress: Progress) -> None:
        self._policy, self._progress, self._steps = policy, progress, 0

    def submit(self, key: EpisodeKey) -> None:
        self._keys.append(key)

    def wait(self, timeout: float) -> list[tuple[EpisodeKey, Path | RunError]]:
        keys, self._keys = self._keys, []
        envs = [self._envs[key.purpose, index] for index, key in enumerate(keys)]
        with one_thread(planning_threads=self.cores):
            return list(zip(keys, run_episodes(envs, self._policy, keys, self._count), strict=True))

    def cancel(self) -> None:
        assert not self._keys  # `wait` has run every submitted episode

    def close(self) -> None:
        for env in self._envs.values():
            close_env(env)
        self._envs.clear()

    def _count(self, taken: int) -> None:
        self._steps += taken
        self._progress(self._steps)


Backend: TypeAlias = InProcess | WorkerPool  # runs at most `capacity` episodes at a time


class Collection(NamedTuple):
    """The data of one collection."""

    paths: list[Path]  # for the replay buffer: whole episodes, or pieces of episodes
    finished: list[Path]  # the whole episodes that finished in this collection


class Collector:
    """Collects whole episodes. They depend only on their keys, not on the backend."""

    def __init__(self, backend: Backend, seed: int, ep_len: int) -> None:
        self.backend, self.seed, self.ep_len = backend, seed, ep_len

    def collect(
        self,
        policy: Policy,
        min_steps: int,
        purpose: str,
        iteration: int,
        progress: Progress = lambda steps: None,
        min_episodes: int = 0,
    ) -> Collection:
        """Return at least `min_episodes` episodes with at least `min_steps` env steps in total.

        They are the shortest such prefix of episodes 0, 1, 2, …, so the result does not depend on
        the speed of the workers. The collector starts more episodes at once if episodes tend to
        finish early. It drops the episodes that it does not need.
        """
        collect = functools.partial(
            self._collect, policy, min_steps, purpose, iteration, progress, min_episodes
        )
        try:
            return collect()
        except NoWorkersError as error:
            print(
                f"warning: worker processes cannot run this task ({error}); its episodes run in "
                f"this process; {error.remedy}",
                file=sys.stderr,
            )
            pool = cast(WorkerPool, self.backend)
            pool.close()
            self.backend = InProcess(pool.env_factory, 1, pool.cores)
            return collect()

    def _collect(
        self,
        policy: Policy,
        min_steps: int,
        purpose: str,
        iteration: int,
        progress: Progress,
        min_episodes: int,
    ) -> Collection:
        """See `collect`. Raises NoWorkersError: the workers cannot run the task."""
        self.backend.start(policy, progress)
        results: dict[int, Path | RunError] = {}
        started = 0
        while True:
            paths = _shortest_prefix(results, min_steps, min_episodes)
            if paths is not None:
                self.backend.cancel()
                return Collection(paths, paths)
            lengths = [path.length for path in results.values() if isinstance(path, Path)]
            finished_steps = sum(lengths)
            # A backend that cannot cancel must start only episodes that are certainly needed.
            expected_length = self.ep_len
            if self.backend.can_cancel and lengths:
                expected_length = math.ceil(finished_steps / len(lengths))
            missing = math.ceil((min_steps - finished_steps) / expected_length)
            missing = max(missing, min_episodes - len(results), 1)
            while started - len(results) < min(missing, self.backend.capacity):
                self.backend.submit(EpisodeKey(self.seed, purpose, iteration, started))
                started += 1
            results |= {key.number: path for key, path in self.backend.wait(POLL_SECONDS)}

    def close(self) -> None:
        """Close the environments and stop the worker processes."""
        self.backend.close()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict: no episode continues in the next collection."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""


def _shortest_prefix(
    results: dict[int, Path | RunError], min_steps: int, min_episodes: int = 0
) -> list[Path] | None:
    """Return at least `min_episodes` episodes 0, 1, 2, … with `min_steps` env steps in total.

    Return None if one of them has not finished yet.

    Raises RunError: one of these episodes failed. Errors of later episodes are ignored.
    """
    paths: list[Path] = []
    steps = 0
    while steps < min_steps or len(paths) < min_episodes:
        path = results.get(len(paths))
        if path is None:
            return None
        if isinstance(path, RunError):
            raise path
        paths.append(path)
        steps += path.length
    return paths


def make_backend(
    env_factory: EnvFactory,
    device: torch.device,
    num_workers: int | None,
    max_episodes: int,
    env_timeout: float = RunConfig.env_timeout,
) -> Backend:
    """Return the backend for `device`.

    `num_workers` None means one worker per core on a CPU, and no workers on a GPU. There are at
    most `max_episodes` workers, because a collection never needs more episodes. If fewer episodes
    run than there are `planning_cores`, each episode plans on several cores. A call of an
    environment in a worker may take `env_timeout` seconds. Callers limit the calls in this
    process with `THIS_PROCESS.watched`.
    """
    if device.type != "cpu" and num_workers is None:
        return InProcess(env_factory, MAX_ENVS_IN_LOCKSTEP)
    workers = min(num_workers or available_cores(), max_episodes)
    cores = planning_cores(device, num_workers)
    if workers == 1:
        return InProcess(env_factory, 1, cores)
    return WorkerPool(env_factory, workers, cores, env_timeout)


def planning_cores(device: torch.device, num_workers: int | None) -> int:
    """Return how many cores planning may use: at most `num_workers`, and one with a GPU.

    With this limit, several runs can share a machine.
    """
    if device.type != "cpu":
        return 1
    return min(num_workers or available_cores(), available_cores())


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
