"""The run queue. It executes jobs in parallel, resumes unfinished runs and skips finished runs."""

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
    """Run jobs in parallel, up to `capacity()` at a time.

    `next_job` may supply further jobs. The queue calls it when there is capacity and no job is
    waiting; it returns None if there is currently no further job. `watch` is called with each
    running job at every poll, and may `end` the job early.
    """

    jobs: list[Job]
    data_dir: Path
    launcher: Launcher
    share: Share
    capacity: Callable[[], int]  # called at every poll, because a cluster may grow and shrink
    next_job: Callable[[], Job | None] = lambda: None
    watch: Callable[[Job], None] = lambda job: None
    _reported: set[str] = field(default_factory=set, init=False)  # jobs passed to on_end

    def run(self, show: Callable[[], None], on_end: Callable[[Job], None]) -> None:
        """Run all jobs, and call `show` at every poll.

        `on_end` is called once for each job that has ended, including jobs that ended before this
        call. If a job fails, or `on_end` raises OSError or RunError for it, the other jobs
        continue. On KeyboardInterrupt all running jobs are stopped so that they can be resumed.
        Raises OSError: the data folder is not writable.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        for job in self.jobs:  # report finished runs before the others start
            if job.state == WAITING:
                locate(job, folders_of(self.data_dir, job.name))
        try:
            while True:
                before = [job.state for job in self.jobs]
                self._update_jobs(on_end)
                self._start_jobs()
                show()
                if len(self._reported) == len(self.jobs):  # all have ended, and none was added
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
        """Start jobs while there is capacity. A run that another process holds counts, too."""
        capacity = self.capacity()
        taken = sum(job.state in BUSY for job in self.jobs)
        for job in self.jobs:
            others = taken - (job.state == HELD)
            if job.state in (WAITING, HELD) and others < capacity:
                begin(job, self.data_dir, self.launcher, self.share)
                taken = others + (job.state in BUSY)
        while taken < capacity and (new := self.next_job()):
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
