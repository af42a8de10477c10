"""Tests of the time limit for a call of the environment, in workers and in this process."""

import subprocess
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from cs285.collection.collector import Collector, InProcess
from cs285.collection.continuing_collector import ContinuingCollector
from cs285.collection.worker_pool import WorkerPool
from cs285.envs.env_watch import THIS_PROCESS, Call
from cs285.infrastructure.errors import TaskError
from cs285.infrastructure.recording import progress
from cs285.infrastructure.recording.progress import CollectionProgress
from cs285.policies.base_policy import RandomPolicy
from tests.toys import LinearReach

RANDOM = RandomPolicy(-np.ones(2, np.float32), np.ones(2, np.float32))
SECONDS = 0.5


class Hangs(LinearReach):
    """Sleeps in env step 2, or in `reset`."""

    def __init__(self, in_reset: bool = False, seconds: float = 60) -> None:
        super().__init__()
        self.in_reset, self.seconds, self.steps = in_reset, seconds, 0

    def reset(self, **options: Any) -> Any:
        if self.in_reset:
            time.sleep(self.seconds)
        self.steps = 0
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        if self.steps == 2 and not self.in_reset:
            time.sleep(self.seconds)
        self.steps += 1
        return super().step(action)


def task(**options: Any) -> TimeLimit:
    return TimeLimit(Hangs(**options), 5)


@pytest.mark.parametrize("in_reset", [False, True])
@pytest.mark.parametrize("kind", [WorkerPool, InProcess])
def test_a_call_that_takes_too_long_is_an_error(kind: Any, in_reset: bool) -> None:
    limit = {"env_timeout": SECONDS} if kind is WorkerPool else {}
    backend = kind(partial(task, in_reset=in_reset), 2, **limit)
    where = "in reset" if in_reset else "at env step 2 of an episode"
    began = time.monotonic()
    error = f"^the environment Hangs has not returned for . s, {where}; fix it"
    with pytest.raises(TaskError, match=error), THIS_PROCESS.watched(SECONDS):
        Collector(backend, 1, 5).collect(RANDOM, 5, "train", 0)
    assert time.monotonic() - began < 20
    backend.close()


def test_continued_episodes_have_the_time_limit_too() -> None:
    collector = ContinuingCollector(task, 1)
    error = r"has not returned for . s, at env step 2 of an episode"
    with pytest.raises(TaskError, match=error), THIS_PROCESS.watched(SECONDS):
        collector.collect(RANDOM, 5, "train", 0)


def test_slow_steps_within_the_limit_are_no_error() -> None:
    backend = InProcess(partial(task, seconds=2 * SECONDS), 1)
    with THIS_PROCESS.watched(10 * SECONDS):
        (path,) = Collector(backend, 1, 5).collect(RANDOM, 5, "train", 0).paths
    assert path.length == 5


def test_a_simulator_that_ignores_signals_ends_the_process() -> None:
    code = """
import ctypes
from functools import partial
from cs285.envs import env_watch
from tests.unit.test_env_watch import *

env_watch.GRACE_SECONDS = 0.5

class Deadlock(LinearReach):
    def step(self, action):
        libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)

backend = InProcess(lambda: TimeLimit(Deadlock(), 5), 1)
with THIS_PROCESS.watched(0.5):
    Collector(backend, 1, 5).collect(RANDOM, 5, "train", 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "error: the environment Deadlock has not returned for " in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_call_that_ends_while_it_is_looked_at_takes_no_time() -> None:
    class Ends(Call):
        @property
        def since(self) -> float:
            return next(times)

    times = iter([time.monotonic(), 0.0])
    assert Ends().seconds < 1


def test_progress_tells_how_long_no_step_has_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with CollectionProgress("collecting", 100) as show:
        for now, steps in ((110.0, 20), (120.0, 20), (136.0, 20), (140.0, 30), (152.0, 40)):
            clock[0] = now
            show(steps)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("; ")[2] for line in lines] == ["", "no step for 26 s", ""]


def test_limit_ends_with_its_block() -> None:
    call = THIS_PROCESS.call
    with THIS_PROCESS.watched(10 * SECONDS):
        with THIS_PROCESS.watched(SECONDS):
            pass
        call.begin(1)
        time.sleep(3 * SECONDS)  # below the limit of the outer block
        call.end()
    call.begin(1)  # without a handler, the watcher's signal would end this process
    time.sleep(3 * SECONDS)
    call.end()
