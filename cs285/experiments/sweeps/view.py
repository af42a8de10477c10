"""The live view of a sweep: sweep.csv, and a table in the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune

from cs285.experiments.display import RunDisplay
from cs285.experiments.job import DONE, FAILED, RUNNING, WAITING
from cs285.experiments.sweeps.folder import STOPPED, Trial, write_table
from cs285.experiments.sweeps.plan import Sweep
from cs285.experiments.sweeps.trial import values_of

SHOW_SECONDS = 0.5
FAILURES = 20  # of a trial's workers and nodes, after which it is given up


class View(tune.Callback):
    """Follows Ray Tune's trials, and shows them with those that are known already."""

    def __init__(self, sweep: Sweep, folder: Path, trials: Sequence[Trial]) -> None:
        self.sweep, self.folder = sweep, folder
        self.trials = {trial.job.name: trial for trial in trials}
        self.is_to_go_on = False  # with trials that Tune gave up too early
        self._names: dict[str, str] = {}  # by Tune's id
        self._display = RunDisplay([])
        self._shown = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Bring table and terminal up to date, from time to time."""
        if time.monotonic() - self._shown >= SHOW_SECONDS:
            self._show(trials)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial before it has done anything, where its values were drawn just now."""
        if self.sweep.is_adaptive:
            self._show(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Show how all have ended."""
        self._show(trials)
        given_up = [trial for trial in trials if trial.status == "ERROR"]
        waiting = [trial for trial in self.trials.values() if trial.job.state == WAITING]
        lost = [self.trials[self._names[trial.trial_id]] for trial in given_up]
        self.is_to_go_on = bool(waiting) and all(trial in lost for trial in waiting)

    def _show(self, trials: Sequence[Any]) -> None:
        for trial in trials:
            self._follow(trial)
        write_table(self.folder, self.sweep.varied, list(self.trials.values()))
        self._display.jobs = [trial.job for trial in self.trials.values()]
        self._display.show()
        self._shown = time.monotonic()

    def _follow(self, of_tune: Any) -> None:
        """Take over what Tune knows of one of its trials."""
        if of_tune.trial_id not in self._names:
            new = Trial(self.sweep, values_of(self.sweep, of_tune.config))
            self._names[of_tune.trial_id] = new.job.name
            self.trials.setdefault(new.job.name, new)
        trial = self.trials[self._names[of_tune.trial_id]]
        job, result = trial.job, of_tune.last_result or {}
        if "state" in result:
            job.error = result["error"]
            job.folder = Path(result["folder"]) if result["folder"] else None
            if self.sweep.metric in result:
                metric = result[self.sweep.metric]
                trial.result = {"iterations": int(result["iterations"]), "metric": metric}
        if of_tune.status == "RUNNING" and job.state != RUNNING:
            job.started = time.monotonic()
            job.first_iteration = int(trial.result.get("iterations", 0))
        job.state = _state(of_tune, result)
        if job.state == FAILED and of_tune.status == "ERROR":
            job.error = f"its worker failed again and again: {_reason(of_tune)}"


def _state(of_tune: Any, result: dict[str, Any]) -> str:
    if of_tune.status == "RUNNING":
        return RUNNING
    if of_tune.status == "ERROR":
        return FAILED if of_tune.num_failures > FAILURES else WAITING
    if of_tune.status != "TERMINATED" or not result.get("done"):
        return WAITING  # not begun, on its way to another node, or interrupted
    # The last result is the run's own, or by a scheduler's decision.
    return str(result["state"]) if result["state"] in (DONE, FAILED) else STOPPED


def _reason(of_tune: Any) -> str:
    lines = [line.strip() for line in str(of_tune.get_error() or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason known"
