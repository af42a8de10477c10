"""Many runs, a few at a time: finished ones are skipped, unfinished ones resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cs285.experiments.job import (
    ENDED,
    FAILED,
    HELD,
    RUNNING,
    WAITING,
    Job,
    begin,
    end,
    folders_of,
    locate,
    update_job,
)
from cs285.experiments.launchers.base import Launcher, Share
from cs285.infrastructure.errors import RunError

POLL_SECONDS = 0.25
BUSY = (RUNNING, HELD)


@dataclass
class RunQueue:
    """Brings jobs to their end, as many at a time as there are places.

    Jobs may also come one by one: `next_job` is called while a place is free and no job waits for
    it, and returns None if there is no other job now. `watch` sees each running job at every poll,
    and may `end` it early.
    """

    jobs: list[Job]
    data_dir: Path
    launcher: Launcher
    share: Share
    places: Callable[[], int]  # asked again and again: a cluster grows and shrinks
    next_job: Callable[[], Job | None] = lambda: None
    watch: Callable[[Job], None] = lambda job: None
    _reported: set[str] = field(default_factory=set, init=False)  # names that on_end has seen

    def run(self, show: Callable[[], None], on_end: Callable[[Job], None]) -> None:
        """Start, watch and end the jobs; `show` is called at every poll.

        `on_end` sees each job that has ended once, also one that had ended before. A job that
        fails, by itself or in `on_end`, does not stop the others. On KeyboardInterrupt all running
        jobs are stopped, resumable. Raises OSError if the data folder cannot be written to.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        for job in self.jobs:  # report finished runs at once, not when there is a place for them
            if job.state == WAITING:
                locate(job, folders_of(self.data_dir, job.name))
        try:
            while True:
                before = [job.state for job in self.jobs]
                self._update_jobs(on_end)
                self._start_jobs()
                show()
                if len(self._reported) == len(self.jobs):  # all have ended, and no more came
                    return
                if before == [job.state for job in self.jobs]:
                    time.sleep(POLL_SECONDS)
        finally:
            self._stop()
            self._update_jobs(on_end)

    def _update_jobs(self, on_end: Callable[[Job], None]) -> None:
        for job in self.jobs:
            if job.state == RUNNING:
                if job.asked_to_end is None:
                    self.watch(job)
                update_job(job, self.data_dir)
            if job.state in ENDED and job.name not in self._reported:
                self._reported.add(job.name)
                try:
                    on_end(job)
                except (OSError, RunError) as error:
                    job.state, job.error = FAILED, str(error)

    def _start_jobs(self) -> None:
        """Start what there is a place for; a run held elsewhere takes its share of the machine."""
        places = self.places()
        taken = sum(job.state in BUSY for job in self.jobs)
        for job in self.jobs:
            others = taken - (job.state == HELD)
            if job.state in (WAITING, HELD) and others < places:
                begin(job, self.data_dir, self.launcher, self.share)
                taken = others + (job.state in BUSY)
        while taken < places and (new := self.next_job()):
            self.jobs.append(new)
            begin(new, self.data_dir, self.launcher, self.share)
            taken += new.state in BUSY

    def _stop(self) -> None:
        for job in self.jobs:
            if job.state == RUNNING:
                end(job, WAITING)
        while running := [job for job in self.jobs if job.state == RUNNING]:
            for job in running:
                update_job(job, self.data_dir)
            time.sleep(0.02)
