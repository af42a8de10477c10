"""Worker processes that run episodes; if one dies, another worker repeats its episode."""

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
import time
import traceback
from collections import defaultdict
from multiprocessing import connection
from typing import Any, cast

import gymnasium as gym
import torch

from cs285.collection.episodes import EnvFactory, EpisodeKey, Progress, run_episodes
from cs285.config.run import RunConfig
from cs285.envs import env_watch
from cs285.envs.checked_env import NO_CHILDREN
from cs285.envs.env_watch import Call
from cs285.infrastructure.errors import UNGUARDED, RunError, WorkerError, as_no_memory
from cs285.infrastructure.replay_buffer import Path
from cs285.networks.cpu_tuning import tune_cpu
from cs285.networks.threads import set_planning_threads

CLOSE_SECONDS = 5.0  # for the environments of all workers to close, before the workers are killed
MAX_TRIES = 3  # give up on an episode that has killed this many workers


class NoWorkersError(Exception):
    """The worker processes cannot get the environment or the policy. The message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.remedy = (
            "to use several processes, define the task in a module, and guard your script with "
            '`if __name__ == "__main__":`'
        )
        if NO_CHILDREN in reason:
            self.remedy = "tasks that start processes need --num_workers 1"


class _Worker:
    """A worker process, its pipe, and its current episode."""

    def __init__(self, env_factory: EnvFactory, context: Any) -> None:
        self.steps = context.RawValue(ctypes.c_longlong, 0)  # env steps taken, for the display
        self.cancelled = context.RawValue(ctypes.c_bool, False)
        self.threads = context.RawValue(ctypes.c_int, 1)  # for planning
        self.call = context.RawValue(Call)  # the environment's
        self.pipe, remote = context.Pipe()
        shared = (self.steps, self.cancelled, self.threads, self.call)
        self.process = context.Process(
            target=_serve, args=(remote, env_factory, *shared), daemon=True
        )
        self.process.start()
        remote.close()
        self.key: EpisodeKey | None = None


class WorkerPool:
    """Runs up to `capacity` episodes in parallel, each in a separate process.

    If fewer episodes than `cores` run, each one plans on several cores. The data stay the same.
    """

    can_cancel = True

    def __init__(
        self,
        env_factory: EnvFactory,
        capacity: int,
        cores: int = 1,
        env_timeout: float = RunConfig.env_timeout,
    ) -> None:
        self.capacity, self.cores, self.env_timeout = capacity, cores, env_timeout
        self.env_factory = env_factory
        # A fork server starts workers quickly, without the threads and locks of this process.
        self._context = multiprocessing.get_context("forkserver")
        self._workers: list[_Worker] = []
        self._policy = b""
        self._tries: dict[EpisodeKey, int] = {}

    def start(self, policy: Any, progress: Progress) -> None:
        """Begin a collection with `policy`. Raises NoWorkersError: it cannot be pickled."""
        try:
            self._policy = pickle.dumps(policy)
        except Exception as error:  # pickle raises whatever the object's __reduce__ raises
            raise NoWorkersError(f"the policy cannot be pickled: {error}") from error
        self._tries.clear()
        self._progress = progress
        for worker in self._workers:
            worker.steps.value = 0

    def submit(self, key: EpisodeKey) -> None:
        """Send an episode to an idle worker. The caller submits at most `capacity` at a time."""
        idle = [worker for worker in self._workers if worker.key is None]
        if not idle:
            idle = [_Worker(self.env_factory, self._context)]
            self._workers += idle
        idle[0].key = key
        # If the worker died while idle, the pipe breaks here, and wait() replaces the worker.
        with contextlib.suppress(OSError):
            idle[0].pipe.send((self._policy, key))

    def wait(self, timeout: float) -> list[tuple[EpisodeKey, Path | RunError]]:
        """Return the finished episodes as soon as there is one, or after `timeout` seconds.

        An episode that failed has its error in place of its path. Raises NoWorkersError: the
        workers cannot create the environment.
        """
        busy = {worker.pipe: worker for worker in self._workers if worker.key is not None}
        self._share_cores(list(busy.values()))
        finished: list[tuple[EpisodeKey, Path | RunError]] = []
        for pipe in connection.wait(list(busy), timeout):
            worker = busy[cast(connection.Connection, pipe)]
            try:
                result = worker.pipe.recv()
            except (EOFError, OSError):
                finished += self._replace(worker)
                continue
            key, worker.key = cast(EpisodeKey, worker.key), None
            if isinstance(result, NoWorkersError):
                raise result
            finished.append((key, result))
        for worker in busy.values():
            seconds = worker.call.seconds
            is_replaced = worker not in self._workers
            if worker.key is not None and seconds > self.env_timeout and not is_replaced:
                finished.append((worker.key, worker.call.timed_out(seconds)))
                self._end(worker)
        self._progress(sum(worker.steps.value for worker in self._workers))
        return finished

    def cancel(self) -> None:
        """Cancel the running episodes, and wait until they have stopped."""
        busy = [worker for worker in self._workers if worker.key is not None]
        for worker in busy:
            worker.cancelled.value = True
        for worker in busy:
            answered = True
            with contextlib.suppress(EOFError, OSError):  # the next use replaces a dead worker
                answered = worker.pipe.poll(self.env_timeout)
                if answered:
                    worker.pipe.recv()
            worker.key, worker.cancelled.value = None, False
            if not answered:
                self._end(worker)

    def close(self) -> None:
        """End every worker, after it has closed its environments if it can."""
        for worker in self._workers:
            worker.cancelled.value = True
            worker.pipe.close()
        give_up = time.monotonic() + CLOSE_SECONDS
        for worker in list(self._workers):
            worker.process.join(max(give_up - time.monotonic(), 0))
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)

    def _share_cores(self, busy: list[_Worker]) -> None:
        """Set the number of planning threads for the next decision of each busy worker."""
        for index, worker in enumerate(busy):
            share, rest = divmod(self.cores, len(busy))
            worker.threads.value = max(share + (index < rest), 1)

    def _replace(self, dead: _Worker) -> list[tuple[EpisodeKey, Path | RunError]]:
        """Run the episode of a dead worker again, or return its error after MAX_TRIES workers."""
        dead.process.join()
        dead.pipe.close()
        self._workers.remove(dead)
        if dead.process.exitcode == UNGUARDED:
            raise NoWorkersError('the script has no `if __name__ == "__main__":`')
        key = dead.key
        assert key is not None
        self._tries[key] = self._tries.get(key, 1) + 1
        cause = f"worker {dead.process.pid} died (exit code {dead.process.exitcode})"
        if self._tries[key] > MAX_TRIES:
            message = f"{cause}; giving up on episode {key.number}: it killed {MAX_TRIES} workers"
            return [(key, WorkerError(message))]
        print(
            f"warning: {cause}; running episode {key.number} again; if workers run out of memory, "
            "pass a smaller --num_workers",
            file=sys.stderr,
        )
        self.submit(key)
        return []


_unpickle = functools.lru_cache(maxsize=1)(pickle.loads)


class _EpisodeCancelledError(Exception):
    """Stops an episode that is no longer needed."""


def _serve(
    pipe: connection.Connection,
    env_factory: EnvFactory,
    steps: Any,
    cancelled: Any,
    threads: Any,
    call: Call,
) -> None:
    """Run episodes until the parent process ends. An exception becomes the episode's result."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles them
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    env_watch.THIS_PROCESS.call = call
    torch.set_num_threads(1)
    tune_cpu()
    # One env per purpose, so that evaluation never steps a training env.
    envs: defaultdict[str, gym.Env] = defaultdict(env_factory)

    def count(taken: int) -> None:
        steps.value += taken
        set_planning_threads(threads.value)
        if cancelled.value:
            raise _EpisodeCancelledError

    with contextlib.suppress(EOFError, OSError):  # the parent has ended, so this worker ends, too
        while True:
            policy_bytes, key = pipe.recv()
            result: Any
            try:
                policy, env = _unpickle(policy_bytes), envs[key.purpose]
            except Exception as error:  # the module of the task or the policy is unknown here
                pipe.send(NoWorkersError(str(error)))
                continue
            try:
                (result,) = run_episodes([env], policy, [key], count)
            except _EpisodeCancelledError:
                result = None
            except RunError as error:
                result = error
            except Exception as error:  # a third party's environment may raise anything
                cause = traceback.format_exc().rstrip()
                result = as_no_memory(error) or WorkerError(
                    f"episode {key.number} raised an exception:\n{cause}"
                )
            pipe.send(result)
    for env in envs.values():
        with contextlib.suppress(Exception):  # the main process warns, because its own fail, too
            env.close()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
