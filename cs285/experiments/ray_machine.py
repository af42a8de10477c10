"""The nodes of a Ray cluster as a machine that runs can be started on; they share a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import ray
import torch

from cs285.experiments.local import LOST, LocalMachine, Process


class RayMachine:
    """Runs go to whichever node has `threads` cores free, and wait until one has."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @property
    def room(self) -> int:
        """How many runs there is room for."""
        return max(1, int(ray.cluster_resources().get("CPU", 0)) // self.threads)

    def start(self, module: str, words: Sequence[str], log: Path, lock: TextIO) -> Process:
        """Start `python -m module words` on a node; `lock` is held here, by who watches the run."""
        return RayProcess(self.threads, module, words, log)


class RayProcess:
    """A run on a node: it ends with the node, with this process, and with the connection to it."""

    def __init__(self, threads: int, module: str, words: Sequence[str], log: Path) -> None:
        runner: Any = ray.remote(_Runner)
        self._actor = runner.options(num_cpus=threads).remote(threads, Path.cwd())
        self._started = self._actor.start.remote(module, list(words), log)
        self._answer: Any = None
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._answer = self._answer or self._actor.poll.remote()
            if ray.wait([self._answer], timeout=0)[0]:
                answer, self._answer = self._answer, None
                self._end(_value_of(answer))
        return self._code

    def interrupt(self) -> None:
        if ray.wait([self._started], timeout=0)[0]:
            self._actor.interrupt.remote()
        else:  # it waits for a node
            self.kill()

    def kill(self) -> None:
        self._end(LOST)

    def _end(self, code: int | None) -> None:
        self._code = code
        if code is not None:
            ray.kill(self._actor)


class _Runner:
    """The actor: a run's process on its node, which dies with it."""

    def __init__(self, threads: int, cwd: Path) -> None:
        self._machine = LocalMachine(threads, torch.cuda.is_available(), True, cwd)

    def start(self, module: str, words: Sequence[str], log: Path) -> None:
        with Path(os.devnull).open() as nothing:
            self._process = self._machine.start(module, words, log, nothing)

    def poll(self) -> int | None:
        return self._process.poll()

    def interrupt(self) -> None:
        self._process.interrupt()


def _value_of(answer: Any) -> int | None:
    try:
        return ray.get(answer)
    except ray.exceptions.RayError:  # the node is gone, or does not have the shared folder
        return LOST
