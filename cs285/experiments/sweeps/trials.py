"""The trials of a sweep as jobs of the run queue."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cs285.experiments.display import RunDisplay
from cs285.experiments.job import FAILED, STOPPED, WAITING, Job, end
from cs285.experiments.launchers.base import Launcher, Share, capacity
from cs285.experiments.queue import RunQueue
from cs285.experiments.sweeps.definition import Sweep
from cs285.experiments.sweeps.folder import FINISHED, Trial, read_trials, write_table
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.logger import ITERATION, read_rows
from cs285.infrastructure.run_folder import PROGRESS

if TYPE_CHECKING:
    from cs285.experiments.sweeps.search import Search

SHOW_SECONDS = 0.5


def share_of(sweep: Sweep, launcher: Launcher, cpus: int, gpus: float | None) -> Share:
    """Return the cores and GPUs of each trial.

    If `gpus` is None, each trial gets one GPU if there is one and the sweep does not use --no_gpu.
    Raises UsageError: no machine has that many cores or GPUs.
    """
    nodes = launcher.nodes()
    if gpus is None:
        is_wanted = not any(sweep.choices.get("no_gpu", ()))
        gpus = float(is_wanted and any(node.gpus >= 1 for node in nodes))
    share = Share(cpus, gpus)
    if not any(node.cpus >= cpus and capacity([node], share) for node in nodes):
        flags = f"--cpus_per_trial {cpus}" + f" --gpus_per_trial {gpus:g}" * (gpus > 0)
        most = [f"{node.cpus:g} cores and {node.gpus:g} GPUs" for node in nodes]
        raise UsageError(
            f"{flags}: must be at most what {launcher.name} has: {' or '.join(dict.fromkeys(most))}"
        )
    return share


def known_trials(sweep: Sweep, folder: Path) -> list[Trial]:
    """Return the trials of a sweep that are known so far. Unfinished trials are WAITING."""
    trials = {trial.job.name: trial for trial in read_trials(folder, sweep)}
    for trial in trials.values():
        if trial.job.state not in FINISHED:
            trial.job.state, trial.job.error = WAITING, ""
    if not sweep.is_adaptive:
        for values in sweep.values():
            trials.setdefault(sweep.name_of(values), Trial(sweep, values))
    return list(trials.values())


def is_finished(sweep: Sweep, trials: Sequence[Trial]) -> bool:
    """Return whether all trials of the sweep have finished."""
    return len(trials) == sweep.size and all(trial.job.state in FINISHED for trial in trials)


def start_search(sweep: Sweep) -> Search | None:
    """Return the Optuna search of a sweep, or None if the sweep does not use Optuna.

    Raises UsageError: Optuna is not installed.
    """
    if not (sweep.is_adaptive or sweep.asha):
        return None
    from cs285.experiments.sweeps.search import Search  # Optuna is optional

    return Search(sweep)


class Trials:
    """The trials of the sweep in `folder`, with the callbacks of the queue that runs them."""

    def __init__(self, sweep: Sweep, folder: Path) -> None:
        self.sweep, self.folder = sweep, folder
        self.search = start_search(sweep)
        self.by_name = {trial.job.name: trial for trial in known_trials(sweep, folder)}
        self.jobs = [trial.job for trial in self.by_name.values()]  # the queue appends new jobs
        self.is_exhausted = False  # whether the search found no further values
        self._display, self._shown = RunDisplay(self.jobs), -math.inf
        if self.search:
            for trial in self.by_name.values():
                self.search.add(trial.job.name, trial.values)
                with contextlib.suppress(UsageError):  # watch() or on_end() reports the error
                    list(self._new_rows(trial))

    def run(self, launcher: Launcher, share: Share, at_most: int | None) -> None:
        """Run the unfinished trials, at most `at_most` in parallel.

        Raises OSError: the folder of the sweep is not writable.
        """

        def free() -> int:
            room = launcher.capacity(share)
            return min(room, at_most or room)

        queue = RunQueue(self.jobs, self.folder, launcher, share, free, self.next_job, self.watch)
        try:
            queue.run(self.show, self.on_end)
        finally:
            self._show()

    def next_job(self) -> Job | None:
        """Draw the next trial of an adaptive search, or return None if there is none."""
        if self.search is None or not self.sweep.is_adaptive or self.is_exhausted:
            return None
        if len(self.by_name) >= self.sweep.size:
            return None
        values = self.search.propose()
        if values is None:
            self.is_exhausted = True
            return None
        trial = Trial(self.sweep, values)
        self.by_name[trial.job.name] = trial
        self._write()  # before the trial starts, so that a kill does not lose its values
        return trial.job

    def watch(self, job: Job) -> None:
        """Stop a running trial if ASHA rejects it, or if it does not log the metric."""
        try:
            for iterations, is_behind in self._new_rows(self.by_name[job.name]):
                # Earlier processes of the trial judged their own rows. After the last iteration
                # there is nothing to stop.
                if is_behind and job.first_iteration < iterations < job.n_iter:
                    end(job, STOPPED)
                    return
        except UsageError as error:
            end(job, FAILED, str(error))

    def on_end(self, job: Job) -> None:
        """Record the result of a trial that has ended."""
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
        """Update sweep.csv and the display, at most twice a second."""
        if time.monotonic() - self._shown >= SHOW_SECONDS:
            self._show()

    def _show(self) -> None:
        self._write()
        self._display.show()
        self._shown = time.monotonic()

    def _write(self) -> None:
        write_table(self.folder, self.sweep.varied, list(self.by_name.values()))

    def _new_rows(self, trial: Trial) -> Iterator[tuple[int, bool]]:
        """Read the rows that a trial has logged since the last call.

        For each row, yield the number of iterations and whether ASHA rejects the trial. Raises
        UsageError: a row lacks the metric.
        """
        metric = self.sweep.metric
        if trial.job.folder is None:
            return
        file = trial.job.folder / PROGRESS
        try:
            found = file.stat()
            stamp = (file, found.st_mtime_ns, found.st_size)  # changes when the file is written
            if stamp == trial.stamp:
                return
            rows = read_rows(file)
        except FileNotFoundError:  # not written yet, or a resumed run is replacing it
            return
        for row in rows:
            iterations = int(row[ITERATION]) + 1
            if iterations <= trial.reported:
                continue
            if not row.get(metric):
                raise UsageError(
                    f"--metric {metric}: the run does not log it; must be one of {', '.join(row)}"
                )
            value = float(row[metric])
            trial.reported = iterations
            trial.result = {"iterations": iterations, "metric": value}
            is_behind = self.search and self.search.report(trial.job.name, iterations, value)
            yield iterations, bool(is_behind)
        trial.stamp = stamp
