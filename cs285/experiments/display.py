"""The live display of many runs, one line per run."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence

from cs285.experiments.job import FAILED, HELD, RUNNING, Job
from cs285.infrastructure.errors import one_line
from cs285.infrastructure.logger import ITERATION, last_row
from cs285.infrastructure.recording.progress import format_duration
from cs285.infrastructure.run_folder import PROGRESS


class RunDisplay:
    """Show one line per run.

    On a terminal the lines are redrawn in place. Elsewhere a line is printed when it changes.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs  # the queue may append to it
        self._shown: dict[str, str] = {}
        self._drawn = 0

    def show(self) -> None:
        """Update the display."""
        states = {job.name: self._state(job) for job in self.jobs}
        width = max(map(len, states), default=0)
        if sys.stdout.isatty():
            self._redraw({name: f"{name:<{width}}  {state}" for name, state in states.items()})
            return
        for name, state in states.items():
            key = state.split(",")[0]  # the times after the comma change at every poll
            if self._shown.get(name) != key:
                self._shown[name] = key
                print(f"{time.strftime('%H:%M:%S')} {name:<{width}}  {state}", flush=True)

    def _redraw(self, by_name: dict[str, str]) -> None:
        size = shutil.get_terminal_size()
        room = size.lines - 3  # the cursor cannot move up to lines that have scrolled away
        lines = list(by_name.values())
        if len(lines) > room:
            # Show only the active runs, followed by the number of runs in each state.
            lines = [by_name[job.name] for job in self.jobs if job.state in (RUNNING, HELD)][:room]
            counts = Counter(job.state for job in self.jobs)
            lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        shown = [f"{line[: size.columns - 1]}\n" for line in lines]
        print(f"{up}\x1b[J{''.join(shown)}", end="", flush=True)
        self._drawn = len(shown)

    def _state(self, job: Job) -> str:
        if job.state == FAILED:
            return f"failed: {one_line(job.error)}"
        if job.state not in (RUNNING, HELD):
            return job.state
        seconds = time.monotonic() - job.started
        row = last_row(job.folder / PROGRESS) if job.folder else {}
        iteration = int(row[ITERATION]) + 1 if row else 0
        elsewhere = "in another process: " * (job.state == HELD)
        words = [f"{elsewhere}iteration {iteration} of {job.n_iter}"]
        if "Eval_AverageReturn" in row:
            words.append(f"Eval_AverageReturn {float(row['Eval_AverageReturn']):.4g}")
        if job.state == HELD:
            return ", ".join(words)
        fresh = iteration - job.first_iteration
        words.append(format_duration(seconds))
        if fresh > 0 or job.minutes:
            whole = seconds / fresh * (job.n_iter - job.first_iteration) if fresh > 0 else 0
            left = max((whole or 60 * job.minutes) - seconds, 0.0)
            words.append(f"about {format_duration(left)} left")
        return ", ".join(words)
