"""Notice an environment that does not return from `step` or `reset`."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cs285.infrastructure.errors import TaskError
from cs285.infrastructure.recording.progress import PLAIN_LINE_SECONDS

RESET = -1  # the number of the call of `reset`, before env step 0
GRACE_SECONDS = 10.0  # for Python to raise the error; a simulator in C code may prevent that
POLL_SECONDS = 0.5


class Call(ctypes.Structure):
    """The running call of an environment. It can be in memory that two processes share."""

    _fields_ = (
        ("since", ctypes.c_double),  # time.monotonic(), the same clock in all processes; 0: no call
        ("step", ctypes.c_longlong),  # env step of the episode, or RESET
        ("name", ctypes.c_char * 100),
    )

    def begin(self, step: int) -> None:
        """Note that a call begins."""
        self.step, self.since = step, time.monotonic()

    def end(self) -> None:
        """Note that the call has ended."""
        self.since = 0.0

    @property
    def seconds(self) -> float:
        """How long the call has been running, or 0."""
        since = self.since  # read once: the call may end at any moment
        return time.monotonic() - since if since else 0.0

    def timed_out(self, seconds: float) -> TaskError:
        """Return the error for a call that has been running for `seconds`."""
        return TaskError(
            f"the environment {self.name.decode(errors='replace')} has not returned for "
            f"{seconds:.0f} s, {describe_call(self.step)}; fix it, or pass a larger --env_timeout"
        )


def describe_call(number: int) -> str:
    """Return where in an episode a call is: in `reset` (RESET), or at an env step."""
    return "in reset" if number == RESET else f"at env step {number} of an episode"


class InThisProcess:
    """The call of this process, and a thread that ends a call that takes too long."""

    def __init__(self) -> None:
        self.call = Call()
        self._thread: threading.Thread | None = None
        self._timeout = math.inf

    @contextmanager
    def watched(self, timeout: float) -> Iterator[None]:
        """Raise TaskError in the main thread if a call in the block takes more than `timeout` s.

        If the call is in C code that never returns, print the error and end the process.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals only to the main thread
            return
        timeout, self._timeout = self._timeout, timeout
        if self._thread is None or not self._thread.is_alive():  # threads end in a forked process
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        before = signal.signal(signal.SIGALRM, self._on_alarm)
        try:
            yield
        finally:
            self._timeout = timeout  # of an outer block, or infinite
            signal.signal(signal.SIGALRM, before)

    def _on_alarm(self, number: int, frame: object) -> None:
        seconds = self.call.seconds
        if seconds > self._timeout:
            raise self.call.timed_out(seconds)

    def _watch(self) -> None:
        noticed = 0.0
        while True:
            time.sleep(POLL_SECONDS)
            seconds = self.call.seconds
            noticed = min(noticed, seconds)
            if seconds > self._timeout + GRACE_SECONDS:
                print(f"error: {self.call.timed_out(seconds)}", file=sys.stderr, flush=True)
                os._exit(TaskError.exit_code)
            if seconds > self._timeout:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            elif seconds > noticed + PLAIN_LINE_SECONDS:
                noticed = seconds
                print(f"  no env step for {seconds:.0f} s", flush=True)


THIS_PROCESS = InThisProcess()
