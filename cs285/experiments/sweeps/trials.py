"""The trials of a sweep as jobs of the run queue: which come next, which stop, what is recorded."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cs285.experiments.display import RunDisplay
from cs285.experiments.job import FAILED, STOPPED, WAITING, Job, end
from cs285.experiments.launchers.base import Launcher, Share, places
from cs285.experiments.queue import RunQueue
from cs285.experiments.sweeps.folder import FINISHED, Trial, read_trials, write_table
from cs285.experiments.sweeps.plan import Sweep
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.logger import ITERATION, read_rows
from cs285.infrastructure.run_folder import PROGRESS

if TYPE_CHECKING:
    from cs285.experiments.sweeps.search import Search

SHOW_SECONDS = 0.5


def share_of(sweep: Sweep, launcher: Launcher, cpus: int, gpus: float | None) -> Share:
    """Return what each trial gets; None: a GPU, if there is one and the sweep does not refuse it.

    Raises UsageError: no machine has that much.
    """
    nodes = launcher.nodes()
    if gpus is None:
        is_wanted = not any(sweep.choices.get("no_gpu", ()))
        gpus = float(is_wanted and any(node.gpus >= 1 for node in nodes))
    share = Share(cpus, gpus)
    if not any(node.cpus >= cpus and places([node], share) for node in nodes):
        flags = f"--cpus_per_trial {cpus}" + f" --gpus_per_trial {gpus:g}" * (gpus > 0)
        most = [f"{node.cpus:g} cores and {node.gpus:g} GPUs" for node in nodes]
        raise UsageError(
            f"{flags}: allowed is what {launcher.name} has: {' or '.join(dict.fromkeys(most))}"
        )
    return share


def wanted(sweep: Sweep, folder: Path) -> list[Trial]:
    """Return the trials of a sweep that are known so far; those still to run are WAITING."""
    trials = {trial.job.name: trial for trial in read_trials(folder, sweep)}
    for trial in trials.values():
        if trial.job.state not in FINISHED:
            trial.job.state, trial.job.error = WAITING, ""
    if not sweep.is_adaptive:
        for values in sweep.values():
            trials.setdefault(sweep.name_of(values), Trial(sweep, values))
    return list(trials.values())


def is_finished(sweep: Sweep, trials: Sequence[Trial]) -> bool:
    """Return whether nothing is left to run."""
    return len(trials) == sweep.size and all(trial.job.state in FINISHED for trial in trials)


def start_search(sweep: Sweep) -> Search | None:
    """Return the sweep's search; None if it needs none. Raises UsageError: no Optuna."""
    if not (sweep.is_adaptive or sweep.asha):
        return None
    from cs285.experiments.sweeps.search import Search  # Optuna is an extra

    return Search(sweep)


class Trials:
    """The trials of the sweep in a folder, for the queue that runs them."""

    def __init__(self, sweep: Sweep, folder: Path) -> None:
        self.sweep, self.folder = sweep, folder
        self.search = start_search(sweep)
        self.by_name = {trial.job.name: trial for trial in wanted(sweep, folder)}
        self.jobs = [trial.job for trial in self.by_name.values()]  # the queue adds new ones
        self.is_exhausted = False  # the search has found no other values
        self._display, self._shown = RunDisplay(self.jobs), -math.inf
        if self.search:
            for trial in self.by_name.values():
                self.search.add(trial.job.name, trial.values)
                with contextlib.suppress(UsageError):  # it failed for that, and will again
                    list(self._new_rows(trial))

    def run(self, launcher: Launcher, share: Share, at_most: int | None) -> None:
        """Run the trials that have not finished. Raises OSError, KeyboardInterrupt."""

        def free() -> int:
            room = launcher.places(share)
            return min(room, at_most or room)

        queue = RunQueue(self.jobs, self.folder, launcher, share, free, self.next_job, self.watch)
        try:
            queue.run(self.show, self.on_end)
        finally:
            self._show()

    def next_job(self) -> Job | None:
        """Draw another trial of a search."""
        is_full = len(self.by_name) >= self.sweep.size
        if self.search is None or not self.sweep.is_adaptive or is_full or self.is_exhausted:
            return None
        values = self.search.propose()
        if values is None:
            self.is_exhausted = True
            return None
        trial = Trial(self.sweep, values)
        self.by_name[trial.job.name] = trial
        self._write()  # first: its values were drawn just now, and a kill must not lose them
        return trial.job

    def watch(self, job: Job) -> None:
        """Stop a running trial that falls behind, or does not log the metric."""
        try:
            for iterations, is_behind in self._new_rows(self.by_name[job.name]):
                # Rows of earlier sittings were judged then; the last one comes with the end.
                if is_behind and job.first_iteration < iterations < job.n_iter:
                    end(job, STOPPED)
                    return
        except UsageError as error:
            end(job, FAILED, str(error))

    def on_end(self, job: Job) -> None:
        """Take in how a trial ended."""
        trial = self.by_name[job.name]
        try:
            list(self._new_rows(trial))
        except UsageError as error:
            if job.state != FAILED:
                job.state, job.error = FAILED, str(error)
        if self.search:
            metric = trial.result.get("metric")
            self.search.close(job.name, job.state, None if metric is None else float(metric))

    def show(self) -> None:
        """Bring sweep.csv and the terminal up to date, about twice a second."""
        if time.monotonic() - self._shown >= SHOW_SECONDS:
            self._show()

    def _show(self) -> None:
        self._write()
        self._display.show()
        self._shown = time.monotonic()

    def _write(self) -> None:
        write_table(self.folder, self.sweep.varied, list(self.by_name.values()))

    def _new_rows(self, trial: Trial) -> Iterator[tuple[int, bool]]:
        """Take in the rows that a trial has logged since the last call.

        Yields its iterations so far, and whether it falls behind. Raises UsageError if a row lacks
        the metric.
        """
        metric = self.sweep.metric
        if trial.job.folder is None:
            return
        file = trial.job.folder / PROGRESS
        try:
            found = file.stat()
            stamp = (file, found.st_mtime_ns, found.st_size)  # changes when it is written to
            if stamp == trial.stamp:
                return
            rows = read_rows(file)
        except FileNotFoundError:  # there is none yet, or a resumed run is just replacing it
            return
        for row in rows:
            iterations = int(row[ITERATION]) + 1
            if iterations <= trial.reported:
                continue
            if not row.get(metric):
                raise UsageError(
                    f"--metric {metric}: the run logs none; allowed are {', '.join(row)}"
                )
            value = float(row[metric])
            trial.reported = iterations
            trial.result = {"iterations": iterations, "metric": value}
            is_behind = self.search and self.search.report(trial.job.name, iterations, value)
            yield iterations, bool(is_behind)
        trial.stamp = stamp
