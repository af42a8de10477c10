"""Worker processes that run episodes on a share of the cores each, and may die without loss."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import defaultdict
from multiprocessing import connection
from typing import Any, cast

import gymnasium as gym
import torch

from cs285.collection.episodes import EnvFactory, EpisodeKey, Progress, run_episodes
from cs285.infrastructure.errors import RunError, WorkerError, as_no_memory
from cs285.infrastructure.replay_buffer import Path
from cs285.networks.cpu_tuning import tune_cpu
from cs285.networks.threads import set_planning_threads

MAX_TRIES = 3  # an episode that kills this many workers will kill the next one too


class _Worker:
    """One process, its pipe, and the episode it is at."""

    def __init__(self, env_factory: EnvFactory, context: Any) -> None:
        self.steps = context.RawValue(ctypes.c_longlong, 0)  # env steps taken; for display only
        self.cancelled = context.RawValue(ctypes.c_bool, False)
        self.threads = context.RawValue(ctypes.c_int, 1)  # that its planning uses
        self.pipe, remote = context.Pipe()
        shared = (self.steps, self.cancelled, self.threads)
        self.process = context.Process(
            target=_serve, args=(remote, env_factory, *shared), daemon=True
        )
        self.process.start()
        remote.close()
        self.key: EpisodeKey | None = None


class WorkerPool:
    """Runs up to `capacity` episodes at a time, each in a process of its own.

    While fewer run than there are `cores`, each uses several to plan, with the same data.
    """

    can_cancel = True

    def __init__(self, env_factory: EnvFactory, capacity: int, cores: int = 1) -> None:
        self.capacity, self.cores = capacity, cores
        self._env_factory = env_factory
        # A server forks the workers: quick, and free of this process's threads and locks.
        self._context = multiprocessing.get_context("forkserver")
        self._workers: list[_Worker] = []
        self._policy = b""
        self._tries: dict[EpisodeKey, int] = {}

    def start(self, policy: Any, progress: Progress) -> None:
        """Begin a collection with `policy`. Raises RunError if it cannot be pickled."""
        try:
            self._policy = pickle.dumps(policy)
        except Exception as error:  # pickle raises whatever the object's own reduction raises
            raise RunError(
                f"the policy cannot be sent to worker processes ({error}); make get_reward a "
                "static method, or give --num_workers 1"
            ) from error
        self._tries.clear()
        self._progress = progress
        for worker in self._workers:
            worker.steps.value = 0

    def submit(self, key: EpisodeKey) -> None:
        """Hand an episode to an idle worker; the caller keeps to `capacity` at a time."""
        idle = [worker for worker in self._workers if worker.key is None]
        if not idle:
            idle = [_Worker(self._env_factory, self._context)]
            self._workers += idle
        idle[0].key = key
        # A worker that died while idle breaks the pipe here; wait() then finds it and replaces it.
        with contextlib.suppress(OSError):
            idle[0].pipe.send((self._policy, key))

    def wait(self, timeout: float) -> list[tuple[EpisodeKey, Path | RunError]]:
        """Return the episodes that ended within `timeout` seconds, as soon as there is one.

        One that failed for good has its error in the place of its path.
        """
        busy = {worker.pipe: worker for worker in self._workers if worker.key is not None}
        self._share_cores(list(busy.values()))
        done: list[tuple[EpisodeKey, Path | RunError]] = []
        for pipe in connection.wait(list(busy), timeout):
            worker = busy[cast(connection.Connection, pipe)]
            try:
                result = worker.pipe.recv()
            except (EOFError, OSError):
                done += self._replace(worker)
                continue
            key, worker.key = cast(EpisodeKey, worker.key), None
            done.append((key, result))
        self._progress(sum(worker.steps.value for worker in self._workers))
        return done

    def cancel(self) -> None:
        """Call off what still runs, and wait until it has stopped."""
        busy = [worker for worker in self._workers if worker.key is not None]
        for worker in busy:
            worker.cancelled.value = True
        for worker in busy:
            with contextlib.suppress(EOFError, OSError):  # a dead one is replaced when next used
                worker.pipe.recv()
            worker.key, worker.cancelled.value = None, False

    def close(self) -> None:
        """End every worker, at once."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _share_cores(self, busy: list[_Worker]) -> None:
        """Tell each busy worker how many threads its next decision may plan with."""
        for place, worker in enumerate(busy):
            share, rest = divmod(self.cores, len(busy))
            worker.threads.value = max(share + (place < rest), 1)

    def _replace(self, dead: _Worker) -> list[tuple[EpisodeKey, Path | RunError]]:
        """Run the episode of a dead worker in another one, or return why it is given up."""
        dead.process.join()
        dead.pipe.close()
        self._workers.remove(dead)
        key = dead.key
        assert key is not None
        self._tries[key] = self._tries.get(key, 1) + 1
        cause = f"worker {dead.process.pid} died (exit code {dead.process.exitcode})"
        if self._tries[key] > MAX_TRIES:
            given_up = f"{cause}: episode {key.number} ended {MAX_TRIES} workers; giving up"
            return [(key, WorkerError(given_up))]
        print(f"warning: {cause}; running its episode {key.number} again", file=sys.stderr)
        self.submit(key)
        return []


_unpickle = functools.lru_cache(maxsize=1)(pickle.loads)


class _EpisodeCancelledError(Exception):
    """Ends an episode that is not needed any more."""


def _serve(
    pipe: connection.Connection, env_factory: EnvFactory, steps: Any, cancelled: Any, threads: Any
) -> None:
    """Run episodes until the parent is gone. An exception is the episode's result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    tune_cpu()
    # By purpose, so that evaluation never steps a training env.
    envs: defaultdict[str, gym.Env] = defaultdict(env_factory)

    def count(taken: int) -> None:
        steps.value += taken
        set_planning_threads(threads.value)
        if cancelled.value:
            raise _EpisodeCancelledError

    with contextlib.suppress(EOFError, OSError):  # the parent is gone, and so are we
        while True:
            policy_bytes, key = pipe.recv()
            result: Any
            try:
                env = envs[key.purpose]
                (result,) = run_episodes([env], _unpickle(policy_bytes), [key], count)
            except _EpisodeCancelledError:
                result = None
            except RunError as error:
                result = error
            except Exception as error:  # whatever a third party's environment raises, among others
                cause = traceback.format_exc().rstrip()
                result = as_no_memory(error) or WorkerError(
                    f"episode {key.number} raised an exception:\n{cause}"
                )
            pipe.send(result)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
