"""Progress output: callbacks for messages, and the progress of a collection."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

PLAIN_LINE_SECONDS = 15.0
# The line of an iteration shows the first that exists.
LOSSES = ("Training Loss", "Critic Loss", "Predicted Cost")
COLUMNS = 100
Notify = Callable[[str], None]  # receives a function's messages, one line each


def silent(line: str) -> None:
    """Ignore the message."""


class CollectionProgress:
    """Shows env steps, env steps per second and the remaining time; call it with the steps so far.

    On a terminal it shows a progress bar. Elsewhere it prints a line every PLAIN_LINE_SECONDS.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self._start = self._last_line = self._last_step = time.monotonic()
        self._steps = 0
        self._bar = (
            tqdm(total=total, desc=label, unit=" env steps", file=sys.stdout, leave=False)
            if sys.stdout.isatty()
            else None
        )

    def __call__(self, steps: int) -> None:
        now = time.monotonic()
        if steps > self._steps:
            self._steps, self._last_step = steps, now
        silence = now - self._last_step
        note = f"no step for {silence:.0f} s" if silence > PLAIN_LINE_SECONDS else ""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=bool(note))
            self._bar.update(min(steps, self.total) - self._bar.n)  # tqdm limits the redraws
        elif now - self._last_line > PLAIN_LINE_SECONDS:
            self._last_line = now
            line = self.plain_line(steps, now - self._start)
            print(f"{line}; {note}" if note else line, flush=True)

    def plain_line(self, steps: int, seconds: float) -> str:
        """Return the progress line for `steps` env steps after `seconds`."""
        rate = max(steps, 1) / seconds
        left = format_duration(max(self.total - steps, 0) / rate)
        return (
            f"  {self.label}: {steps} of {self.total} env steps, {rate:.1f} per second, {left} left"
        )

    def __enter__(self) -> CollectionProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def describe_iteration(
    number: int,
    total: int,
    scalars: Mapping[str, float],
    env_steps: int,
    rate: float,
    seconds_left: float,
) -> str:
    """Return one line about iteration `number` of `total`, from 1, in at most 100 columns.

    It has the return and a loss, if `scalars` has them, and the env steps, the env steps per second
    (`rate`), and the remaining time. A line that is too long has no loss.
    """
    start = f"iteration {number} of {total}: "
    if "Eval_AverageReturn" in scalars:
        start += f"return {scalars['Eval_AverageReturn']:.5g}, "
    start += f"{env_steps} env steps, "
    end = f"{rate:.3g} steps/s"
    if number < total:
        end += f", {format_duration(seconds_left)} left"
    loss = next((f"{name} {scalars[name]:.3g}, " for name in LOSSES if name in scalars), "")
    return start + loss * (len(start + loss + end) <= COLUMNS) + end


def format_duration(seconds: float) -> str:
    """Return seconds as readable text: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
