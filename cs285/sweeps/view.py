"""The live view of a sweep: sweep.csv, and a table in the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune

from cs285.infrastructure.job import DONE, FAILED, RUNNING, WAITING
from cs285.infrastructure.run_display import RunDisplay
from cs285.sweeps.folder import STOPPED, Trial, write_table
from cs285.sweeps.plan import Sweep
from cs285.sweeps.trial import values_of

SHOW_SECONDS = 0.5


class View(tune.Callback):
    """Follows Ray Tune's trials; those that had `ended` before are shown with them."""

    def __init__(self, sweep: Sweep, folder: Path, ended: Sequence[Trial]) -> None:
        self.sweep, self.folder = sweep, folder
        self.trials = {trial.job.name: trial for trial in ended}
        self.names: dict[str, str] = {}  # by Tune's id
        self.display = RunDisplay([])
        self.shown = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Bring table and terminal up to date, from time to time."""
        if time.monotonic() - self.shown >= SHOW_SECONDS:
            self._show(trials)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial before it has done anything: its values may have been drawn."""
        self._show(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Show how all have ended."""
        self._show(trials)

    def _show(self, trials: Sequence[Any]) -> None:
        for trial in trials:
            self._follow(trial)
        write_table(self.folder, self.sweep.varied, list(self.trials.values()))
        self.display.jobs = [trial.job for trial in self.trials.values()]
        self.display.show()
        self.shown = time.monotonic()

    def _follow(self, of_tune: Any) -> None:
        """Take over what Tune knows of one of its trials."""
        if of_tune.trial_id not in self.names:
            trial = Trial(self.sweep, values_of(self.sweep, of_tune.config))
            self.names[of_tune.trial_id] = trial.job.name
            self.trials[trial.job.name] = trial
        trial = self.trials[self.names[of_tune.trial_id]]
        job, result = trial.job, of_tune.last_result or {}
        if "state" in result:
            job.error = result["error"]
            job.folder = Path(result["folder"]) if result["folder"] else None
            if self.sweep.metric in result:
                metric = result[self.sweep.metric]
                trial.result = {"iterations": int(result["iterations"]), "metric": metric}
        if of_tune.status == "RUNNING" and job.state != RUNNING:
            job.started = time.monotonic()
            job.first_iteration = trial.result.get("iterations", 0)
        job.state = _state(of_tune.status, result)
        if of_tune.status == "ERROR":
            job.error = f"its worker failed again and again: {_reason(of_tune)}"


def _state(of_tune: str, result: dict[str, Any]) -> str:
    if of_tune == "RUNNING":
        return RUNNING
    if of_tune == "ERROR":
        return FAILED
    if result.get("state") in (DONE, FAILED):
        return str(result["state"])
    # The scheduler calls a result the last one; an interruption calls none so.
    return STOPPED if of_tune == "TERMINATED" and result.get("done") else WAITING


def _reason(of_tune: Any) -> str:
    error = of_tune.get_error()
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason known"
