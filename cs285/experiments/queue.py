"""Many runs, a few at a time: what is done is skipped, what is half done is resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cs285.experiments.job import (
    DONE,
    FAILED,
    HELD,
    RUNNING,
    WAITING,
    Job,
    begin,
    folders_of,
    locate,
    look_after,
)
from cs285.experiments.local import Machine
from cs285.infrastructure.errors import RunError

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # with a run that was asked to stop; it may be writing its checkpoint


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
        for job in self.jobs:  # what is done is known, and told, before there is a place for it
            locate(job, folders_of(self.data_dir, job.name))
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
            look_after(job, self.data_dir)
        busy = sum(other.state in (RUNNING, HELD) for other in self.jobs if other is not job)
        is_free = busy < self.at_once  # what is held elsewhere takes its share of this machine
        if job.state in (WAITING, HELD) and is_free:
            begin(job, self.data_dir, self.machine)

    def _tell(self, job: Job, on_done: Callable[[Job], None]) -> None:
        try:
            on_done(job)
        except (OSError, RunError) as error:
            job.state, job.error = FAILED, str(error)

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
