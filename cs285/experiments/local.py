"""Where runs go: the one thing to replace for another machine or a cluster."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
LOST = 1000  # in place of an exit code: the machine went away, and the run with it


class Process(Protocol):
    """A run under way, wherever it is."""

    def poll(self) -> int | None:
        """Return the exit code, None while it runs, or LOST."""
        ...

    def interrupt(self) -> None:
        """Ask it to stop so that it can be resumed."""
        ...

    def kill(self) -> None:
        """End it at once; it can be resumed from its last checkpoint."""
        ...


class Machine(Protocol):
    """Something that runs can be started on."""

    def start(self, module: str, words: Sequence[str], log: Path, lock: TextIO) -> Process:
        """Start `python -m module words`, which holds `lock` while it lives and prints to `log`."""
        ...


class LocalProcess:
    """A process of this machine, out of the reach of the terminal's Ctrl-C."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        lock: TextIO,
        threads: int,
        dies_with_us: bool = False,
        cwd: Path | None = None,
    ) -> None:
        caps = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        with log.open("a") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **caps},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=functools.partial(_prepare_child, dies_with_us),
                pass_fds=[lock.fileno()],  # held as long as the run lives, even if we do not
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()


@dataclass(frozen=True)
class LocalMachine:
    """Runs are processes here, each with `threads` threads.

    They collect in as many workers, but with `in_lockstep` as runs do on a GPU by default. They
    outlive us if we are killed, or if `dies_with_us` the thread that started them is their end (on
    Linux). A task of the user's own is found from `cwd`, where this machine has such a folder.
    """

    threads: int
    in_lockstep: bool = False
    dies_with_us: bool = False
    cwd: Path | None = None

    def start(self, module: str, words: Sequence[str], log: Path, lock: TextIO) -> Process:
        workers = [] if self.in_lockstep else ["--num_workers", str(self.threads)]
        command = [sys.executable, "-m", module, *words, *workers]
        cwd = self.cwd if self.cwd and self.cwd.is_dir() else None
        return LocalProcess(command, log, lock, self.threads, self.dies_with_us, cwd)


def _prepare_child(dies_with_us: bool) -> None:
    # A shell that starts us in the background has SIGINT ignored, and Ray has it blocked, also for
    # children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if dies_with_us and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
