"""Collect episodes: in worker processes on CPU, in one batched process on a GPU."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import torch

from cs285.collection.episodes import EnvFactory, EpisodeKey, Progress, run_episodes
from cs285.collection.worker_pool import WorkerPool
from cs285.infrastructure.errors import RunError
from cs285.infrastructure.replay_buffer import Path
from cs285.networks.threads import one_thread
from cs285.policies.base_policy import Policy

MAX_ENVS_IN_LOCKSTEP = 64
POLL_SECONDS = 0.5  # how often the progress is told while workers work


class InProcess:
    """Runs what was submitted as one lockstep batch, in this process.

    On a CPU its planning uses `cores`, with the same data whatever their number.
    """

    can_cancel = False  # an episode that runs

    def __init__(self, env_factory: EnvFactory, capacity: int, cores: int = 1) -> None:
        self.capacity, self.cores = capacity, cores
        self._envs: defaultdict[tuple[str, int], gym.Env]  # by purpose and place in the batch
        self._envs = defaultdict(env_factory)
        self._keys: list[EpisodeKey] = []

    def start(self, policy: Policy, progress: Progress) -> None:
        self._policy, self._progress, self._steps = policy, progress, 0

    def submit(self, key: EpisodeKey) -> None:
        self._keys.append(key)

    def wait(self, timeout: float) -> list[tuple[EpisodeKey, Path | RunError]]:
        keys, self._keys = self._keys, []
        envs = [self._envs[key.purpose, place] for place, key in enumerate(keys)]
        with one_thread(planning_threads=self.cores):
            return list(zip(keys, run_episodes(envs, self._policy, keys, self._count), strict=True))

    def cancel(self) -> None:
        assert not self._keys  # all that was submitted has run

    def close(self) -> None:
        for env in self._envs.values():
            env.close()
        self._envs.clear()

    def _count(self, taken: int) -> None:
        self._steps += taken
        self._progress(self._steps)


Backend: TypeAlias = InProcess | WorkerPool  # where at most `capacity` episodes run at a time


class Collection(NamedTuple):
    """What a collection brought: `paths` for the replay, and the whole episodes that ended."""

    paths: list[Path]
    finished: list[Path]


class Collector:
    """Collects the same whole episodes whatever the backend: they depend on their keys alone."""

    def __init__(self, backend: Backend, seed: int, ep_len: int) -> None:
        self.backend, self.seed, self.ep_len = backend, seed, ep_len

    def collect(
        self,
        policy: Policy,
        min_steps: int,
        purpose: str,
        iteration: int,
        progress: Progress = lambda steps: None,
    ) -> Collection:
        """Return episodes of at least `min_steps` env steps in all.

        They are the shortest run of episodes 0, 1, 2 … that is long enough, so no worker's speed
        can change which. More than those may be started where episodes tend to end early; what is
        not needed in the end is dropped.
        """
        self.backend.start(policy, progress)
        done: dict[int, Path | RunError] = {}
        started = 0
        while True:
            paths = _shortest_run(done, min_steps)
            if paths is not None:
                self.backend.cancel()
                return Collection(paths, paths)
            lengths = [path.length for path in done.values() if isinstance(path, Path)]
            finished_steps = sum(lengths)
            # Without means to cancel an episode, start none that could turn out unneeded.
            usual = self.ep_len
            if self.backend.can_cancel and lengths:
                usual = math.ceil(finished_steps / len(lengths))
            missing = math.ceil((min_steps - finished_steps) / usual)
            while started - len(done) < min(max(missing, 1), self.backend.capacity):
                self.backend.submit(EpisodeKey(self.seed, purpose, iteration, started))
                started += 1
            done |= {key.number: path for key, path in self.backend.wait(POLL_SECONDS)}

    def close(self) -> None:
        """Release environments and processes."""
        self.backend.close()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: no episode goes beyond its collection."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing."""


def _shortest_run(done: dict[int, Path | RunError], min_steps: int) -> list[Path] | None:
    """Return episodes 0, 1, 2 … of `min_steps` in all, or None if some are not done yet.

    Raises the error of an episode that is among them; the others' do not matter.
    """
    paths: list[Path] = []
    steps = 0
    while steps < min_steps:
        path = done.get(len(paths))
        if path is None:
            return None
        if isinstance(path, RunError):
            raise path
        paths.append(path)
        steps += path.length
    return paths


def make_backend(
    env_factory: EnvFactory, device: torch.device, num_workers: int | None, max_episodes: int
) -> Backend:
    """Return the backend for `device`.

    `num_workers` None means one per core on CPU and none on a GPU; never more than the
    `max_episodes` that a collection can need. Where fewer episodes run than there are cores for
    (`planning_cores`), each episode's planning uses several.
    """
    if device.type != "cpu" and num_workers is None:
        return InProcess(env_factory, MAX_ENVS_IN_LOCKSTEP)
    workers = min(num_workers or available_cores(), max_episodes)
    cores = planning_cores(device, num_workers)
    if workers == 1:
        return InProcess(env_factory, 1, cores)
    return WorkerPool(env_factory, workers, cores)


def planning_cores(device: torch.device, num_workers: int | None) -> int:
    """Return how many cores plan: at most `num_workers`, which shares a machine among runs."""
    if device.type != "cpu":
        return 1
    return min(num_workers or available_cores(), available_cores())


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
