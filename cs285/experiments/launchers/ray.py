"""Runs on the nodes of a Ray cluster that share a folder. Imported only for --address."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from cs285.experiments.launchers.base import LOST, Node, Process, Share, capacity
from cs285.experiments.launchers.local import LocalLauncher
from cs285.infrastructure.errors import UsageError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
except ImportError as error:
    raise UsageError(
        f"--address: must be left out without Ray ({error}); install it with pip install -e "
        "'.[cluster]'"
    ) from error

CONNECT_SECONDS = 12


class RayLauncher:
    """Start each run on a node with a free share. Until there is one, the run waits."""

    name = "a node"

    def nodes(self) -> list[Node]:
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [Node(node.get("CPU", 0), node.get("GPU", 0)) for node in found]

    def capacity(self, share: Share) -> int:
        # One more run waits in Ray's queue, so that an autoscaling cluster adds a node for it.
        return capacity(self.nodes(), share) + 1

    def start(
        self, module: str, words: Sequence[str], log: Path, lock: TextIO, share: Share
    ) -> Process:
        return RayProcess(share, module, words, log)


class RayProcess:
    """A run on a node. It ends if the node, this process or the connection to the node ends."""

    def __init__(self, share: Share, module: str, words: Sequence[str], log: Path) -> None:
        runner: Any = ray.remote(_Runner)
        gpus = {} if share.gpus is None else {"num_gpus": share.gpus}
        self._actor = runner.options(num_cpus=share.cpus, **gpus).remote(share, Path.cwd())
        self._started = self._actor.start.remote(module, list(words), log)
        self._answer: Any = None
        self._code: int | None = None
        self.lost_because = ""

    def poll(self) -> int | None:
        if self._code is None:
            # Read the result of start() first: it contains the reason if the run could not start.
            self._answer = self._answer or self._started
            if ray.wait([self._answer], timeout=0)[0]:
                answer, self._answer = self._answer, self._actor.poll.remote()
                self._end(self._value_of(answer))
        return self._code

    def interrupt(self) -> None:
        if ray.wait([self._started], timeout=0)[0]:
            self._actor.interrupt.remote()
        else:  # the run is still waiting for a node
            self.kill()

    def kill(self) -> None:
        self._end(LOST)

    def _end(self, code: int | None) -> None:
        self._code = code
        if code is not None:
            ray.kill(self._actor)

    def _value_of(self, answer: Any) -> int | None:
        try:
            return ray.get(answer)
        except ray.exceptions.RayError as error:  # lost the node, or it lacks the shared folder
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self.lost_because = lines[-1] if lines else type(error).__name__
            return LOST


class _Runner:
    """The Ray actor that starts a run as a process of its node. The process dies with the actor."""

    def __init__(self, share: Share, cwd: Path) -> None:
        self._share, self._launcher = share, LocalLauncher(end_with_parent=True, cwd=cwd)

    def start(self, module: str, words: Sequence[str], log: Path) -> None:
        try:
            with Path(os.devnull).open() as no_lock:  # the driver holds the lock
                self._process = self._launcher.start(module, words, log, no_lock, self._share)
        except OSError as error:
            raise OSError(
                f"{log.parent}: {error.strerror} on {platform.node()}; must be a writable folder "
                "that all nodes share"
            ) from error

    def poll(self) -> int | None:
        return self._process.poll()

    def interrupt(self) -> None:
        self._process.interrupt()


@contextlib.contextmanager
def connect(address: str) -> Iterator[None]:
    """Connect to the cluster at `address` until the block ends."""
    on_terminate = signal.getsignal(signal.SIGTERM)  # Ray replaces the handler
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        signal.signal(signal.SIGTERM, on_terminate)
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise UsageError if no cluster answers at `address`.

    A subprocess with a timeout connects to it, because Ray itself would wait for minutes.
    """
    host, _, port = address.rpartition(":")
    code = "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR')"
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), CONNECT_SECONDS / 2).close()
        subprocess.run(
            [sys.executable, "-c", code, address],
            timeout=CONNECT_SECONDS,
            check=True,
            capture_output=True,
        )
    except (ValueError, OverflowError, OSError, subprocess.SubprocessError) as error:
        raise UsageError(
            f"--address {address}: no Ray cluster answers there; must be auto, or HOST:PORT of a "
            "cluster's head node"
        ) from error
