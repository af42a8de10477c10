"""Runs as local processes, each with its own threads and share of the GPUs."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from cs285.experiments.launchers.base import EPSILON, Node, Process, Share, capacity

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
VISIBLE = "CUDA_VISIBLE_DEVICES"


class LocalProcess:
    """A local process. Its own session keeps it from receiving Ctrl-C from the terminal."""

    lost_because = ""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        lock: TextIO,
        environment: dict[str, str],
        end_with_parent: bool = False,
        cwd: Path | None = None,
    ) -> None:
        with log.open("a") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=functools.partial(_prepare_child, end_with_parent),
                pass_fds=[lock.fileno()],  # the run holds the lock even if it outlives us
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()


class LocalLauncher:
    """Start runs on this machine, in the folder `cwd` if it exists here.

    If `end_with_parent` is true, Linux kills a run when the thread that started it ends.
    """

    name = "this machine"

    def __init__(self, end_with_parent: bool = False, cwd: Path | None = None) -> None:
        self.end_with_parent = end_with_parent
        self.cwd = cwd if cwd and cwd.is_dir() else None
        self._on_gpus: list[tuple[Process, list[str], float]] = []

    @functools.cached_property
    def gpus(self) -> list[str]:
        """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
        import torch  # importing it takes seconds, and a Ray worker without a GPU does not need it

        count = torch.cuda.device_count()
        named = os.environ.get(VISIBLE)
        return named.split(",")[:count] if named is not None else [str(i) for i in range(count)]

    def nodes(self) -> list[Node]:
        from cs285.collection.collector import available_cores  # also imports torch

        return [Node(available_cores(), len(self.gpus))]

    def capacity(self, share: Share) -> int:
        return capacity(self.nodes(), share)

    def start(
        self, module: str, words: Sequence[str], log: Path, lock: TextIO, share: Share
    ) -> Process:
        environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(share.cpus))
        devices = self._free_gpus(share.gpus) if share.gpus else []
        if share.gpus is not None:
            environment[VISIBLE] = ",".join(devices)
        has_gpu = bool(self.gpus) if share.gpus is None else share.gpus > 0
        # With a GPU a run collects in lockstep, and --num_workers would change its results.
        workers = [] if has_gpu else ["--num_workers", str(share.cpus)]
        command = [sys.executable, "-m", module, *words, *workers]
        process = LocalProcess(command, log, lock, environment, self.end_with_parent, self.cwd)
        if share.gpus:
            self._on_gpus.append((process, devices, min(share.gpus, 1.0)))
        return process

    def _free_gpus(self, wanted: float) -> list[str]:
        """Return GPUs for a run that needs a fraction of one GPU, or several whole GPUs."""
        self._on_gpus = [entry for entry in self._on_gpus if entry[0].poll() is None]
        used = dict.fromkeys(self.gpus, 0.0)
        for _, devices, part in self._on_gpus:
            for device in devices:
                used[device] += part
        fits = [device for device in used if used[device] + min(wanted, 1.0) <= 1 + EPSILON]
        number = max(1, round(wanted))
        assert len(fits) >= number, "no GPU is free for this run"
        return sorted(fits, key=used.__getitem__)[:number]


def _prepare_child(end_with_parent: bool) -> None:
    # Children inherit signal settings. A background shell ignores SIGINT, and Ray blocks it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if end_with_parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
