"""Many runs, a few at a time: what is done is skipped, what is half done is resumed."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cs285.infrastructure.checkpoint import load_checkpoint
from cs285.infrastructure.errors import RunError, UsageError
from cs285.infrastructure.machine import Machine, Process
from cs285.infrastructure.run_folder import CHECKPOINT, CONFIG, is_held

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # with a run that was asked to stop; it may be writing its checkpoint
WAITING, RUNNING, DONE, FAILED, HELD = "waiting", "running", "done", "failed", "held elsewhere"


@dataclass
class Job:
    """A run that is wanted, and where it is."""

    name: str  # its --exp_name, which no other run in the data folder has
    module: str
    flags: tuple[str, ...]
    minutes: float  # a guess
    n_iter: int
    settings: dict[str, Any] = field(default_factory=dict)  # flags that make it the run it is
    state: str = WAITING
    folder: Path | None = None
    started: float = 0.0  # time.monotonic() of this sitting
    first_iteration: int = 0  # of this sitting
    error: str = ""
    process: Process | None = field(default=None, repr=False)
    lock: TextIO | None = field(default=None, repr=False)


def folders_of(data_dir: Path, name: str) -> list[Path]:
    """Return the log folders of an experiment, the newest last."""
    folders = data_dir.glob(f"hw4_{name}_*")
    found = [folder for folder in folders if _flags_of(folder).get("exp_name") == name]
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def iterations_done(folder: Path) -> int:
    """Return the iterations in the checkpoint of a log folder. Raises UsageError: unreadable."""
    if not (folder / CHECKPOINT).exists():
        return 0
    return int(load_checkpoint(folder / CHECKPOINT, "cpu")["counters"]["next_iteration"])


def _flags_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / CONFIG).read_text())["flags"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class RunQueue:
    """Brings jobs to their end, at most `at_once` at a time."""

    def __init__(self, jobs: Sequence[Job], data_dir: Path, machine: Machine, at_once: int) -> None:
        self.jobs, self.data_dir, self.machine, self.at_once = jobs, data_dir, machine, at_once

    def run(self, show: Callable[[], None], on_done: Callable[[Job], None]) -> None:
        """Start, watch and end the jobs; `show` is called about twice a second.

        `on_done` gets each job that is done, also those that were before. A job that fails, itself
        or in `on_done`, does not stop the others. On KeyboardInterrupt all are stopped, resumable.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        told: set[str] = set()
        try:
            while True:
                for job in self.jobs:
                    self._advance(job)
                    if job.state == DONE and job.name not in told:
                        told.add(job.name)
                        self._tell(job, on_done)
                show()
                if all(job.state in (DONE, FAILED) for job in self.jobs):
                    return
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()

    def _advance(self, job: Job) -> None:
        if job.state == RUNNING:
            self._look_after(job)
        busy = sum(other.state in (RUNNING, HELD) for other in self.jobs if other is not job)
        is_free = busy < self.at_once  # what is held elsewhere takes its share of this machine
        if job.state in (WAITING, HELD) and is_free:
            self._start(job)

    def _look_after(self, job: Job) -> None:
        assert job.process is not None and job.lock is not None
        code = job.process.poll()
        if job.folder is None:
            job.folder = next(reversed(folders_of(self.data_dir, job.name)), None)
        if code is None:
            return
        job.lock.close()
        job.state = DONE if code == 0 else FAILED
        if code < 0:
            job.error = f"killed by signal {-code}"
        elif code > 0:
            job.error = last_line(self.log_of(job)) or f"exit code {code}"

    def _start(self, job: Job) -> None:
        lock = (self.data_dir / f".{job.name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = True
        except BlockingIOError:  # another one of us has it, or a run that outlived one
            is_ours = False
        found = folders_of(self.data_dir, job.name)
        job.folder = found[-1] if found else None
        # Who asks whether a folder is held, holds it that moment: only where no run of ours begins.
        if not is_ours or any(map(is_held, found)):
            lock.close()
            job.state = HELD
            return
        job.state = WAITING
        self._locate(job, found)
        if job.state != WAITING:
            lock.close()
            return
        way_on = ["--resume", str(job.folder)] if job.folder else ["--data_dir", str(self.data_dir)]
        words = [*job.flags, *way_on]
        job.process = self.machine.start(job.module, words, self.log_of(job), lock)
        job.state, job.lock, job.started = RUNNING, lock, time.monotonic()

    def _locate(self, job: Job, folders: Sequence[Path]) -> None:
        """Find the furthest of the job's log folders, and whether it is done."""
        try:
            found = [(iterations_done(folder), folder) for folder in folders]
        except UsageError as error:  # a checkpoint that this version cannot read
            job.state, job.error = FAILED, str(error)
            return
        if not found:
            return
        job.first_iteration, job.folder = max(found, key=lambda pair: pair[0])
        flags = _flags_of(job.folder)
        other = [name for name, value in job.settings.items() if flags.get(name) != value]
        if other:
            name = other[0]
            job.state = FAILED
            job.error = (
                f"--{name} {job.settings[name]}: {job.folder} was run with {flags.get(name)}; "
                "allowed: the same flags, or another --data_dir"
            )
        elif job.first_iteration >= job.n_iter:
            job.state = DONE

    def _tell(self, job: Job, on_done: Callable[[Job], None]) -> None:
        try:
            on_done(job)
        except (OSError, RunError) as error:
            job.state, job.error = FAILED, str(error)

    def log_of(self, job: Job) -> Path:
        """Return the file with what the run prints."""
        return self.data_dir / f"{job.name}.log"

    def _stop(self) -> None:
        running = [job.process for job in self.jobs if job.state == RUNNING and job.process]
        for process in running:
            process.interrupt()
        end = time.monotonic() + PATIENCE_SECONDS
        for process in running:
            while process.poll() is None:
                if time.monotonic() > end:
                    process.kill()
                time.sleep(0.05)


def last_line(file: Path) -> str:
    """Return the last line of a log that is not empty."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 2000))
            lines = stream.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.split("\r")[-1].strip() for line in reversed(lines) if line.strip()), "")
