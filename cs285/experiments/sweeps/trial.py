"""A trial on a worker of Ray: it starts the ordinary run as a process, and tells what it logs."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from ray import tune

from cs285.experiments.job import DONE, FAILED, HELD, KILLED, RUNNING, WAITING, begin, look_after
from cs285.experiments.local import LocalMachine
from cs285.experiments.sweeps.plan import Sweep
from cs285.infrastructure.logger import read_rows
from cs285.infrastructure.run_folder import PROGRESS

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 120.0  # with the run of a worker that was lost, until it is lost, too
KILLS = 3  # of a run that gets no further, before it is given up


def values_of(sweep: Sweep, config: dict[str, Any]) -> dict[str, Any]:
    """Return the varied flags of a trial: drawn one by one, or together a point of a grid."""
    return {name: config[name] for name in sweep.varied} if sweep.is_adaptive else config["values"]


class RunTrial(tune.Trainable):
    """Steps are logged iterations. Its only state is the log folder, from which it goes on."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], sweep: Sweep, folder: Path, needs: Any, cwd: Path
    ) -> None:
        """Start or resume the run with the values of `config` in a sweep's folder.

        What is beside them comes by tune.with_parameters. Raises OSError or TimeoutError: not on
        this node, or not now.
        """
        if not needs.gpus:  # Ray hides those of others, but not all
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.folder, self.metric = folder, sweep.metric
        self.machine = LocalMachine(needs.cpus, needs.gpus > 0, dies_with_us=True, cwd=cwd)
        self.job = sweep.job(values_of(sweep, config))
        self.kills = [0]  # iterations when it was killed, at first none
        self._begin()
        # Schedulers were told what was logged before.
        told = [row for row in self._rows() if int(row["Iteration"]) < self.job.first_iteration]
        self.told = len(told)

    def step(self) -> dict[str, Any]:
        """Wait for the next logged iteration, or the end."""
        while True:
            if self.job.state == RUNNING:
                look_after(self.job, self.folder)
            rows = self._rows()
            row = rows[self.told] if len(rows) > self.told else None
            # The last row is told with the end: a scheduler has no say any more.
            if row and not (self.job.state == RUNNING and self._is_last(row)):
                self.told += 1
                if row.get(self.metric):
                    return self._result(row, done=self.job.state == DONE and row is rows[-1])
                self._stop()
                self.job.state = FAILED
                self.job.error = (
                    f"--metric {self.metric}: the run logs none; allowed are {', '.join(row)}"
                )
            elif self.job.state == FAILED and self._was_killed():
                self._begin()
            elif self.job.state in (DONE, FAILED):
                return self._result(rows[-1] if rows else {}, done=True)
            else:
                time.sleep(POLL_SECONDS)

    def cleanup(self) -> None:
        """End the run, resumable."""
        self._stop()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial in the same worker."""
        self._stop()
        self.setup(new_config)  # type: ignore[call-arg]  # the others are added
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the run's own checkpoint is all there is."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""

    def _begin(self) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                begin(self.job, self.folder, self.machine)
            except OSError as error:
                raise OSError(
                    f"{self.folder}: {error.strerror} on {platform.node()}; allowed: a folder that "
                    "all nodes share and can write to"
                ) from error
            if self.job.state not in (HELD, WAITING):
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{self.job.name}: another process is running it")
            time.sleep(POLL_SECONDS)

    def _rows(self) -> list[dict[str, str]]:
        return read_rows(self.job.folder / PROGRESS) if self.job.folder else []

    def _is_last(self, row: dict[str, str]) -> bool:
        return int(row["Iteration"]) + 1 >= self.job.n_iter

    def _was_killed(self) -> bool:
        """Return whether a signal ended the run, and it may be tried again."""
        if not self.job.error.startswith(KILLED):
            return False
        self.kills.append(self.job.first_iteration)
        return len(self.kills) <= KILLS or self.kills[-KILLS] < self.kills[-1]

    def _stop(self) -> None:
        process = self.job.process
        if self.job.state != RUNNING or process is None:
            return
        process.interrupt()
        end = time.monotonic() + PATIENCE_SECONDS / 4
        while process.poll() is None:
            if time.monotonic() > end:
                process.kill()
            time.sleep(0.05)
        if self.job.lock:
            self.job.lock.close()

    def _result(self, row: dict[str, str], done: bool) -> dict[str, Any]:
        numbers = {name: float(cell) for name, cell in row.items() if cell}
        place = str(self.job.folder) if self.job.folder else ""
        state = self.job.state if done else RUNNING
        about = {"state": state, "error": self.job.error * done, "folder": place}
        return {**numbers, **about, "iterations": numbers.get("Iteration", -1) + 1, "done": done}
