"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds by phase; those of a phase within another one count for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # seconds of the phases within each of those that are under way

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Have the block count as this phase.

        Nobody waits for a GPU: what it has still to do then counts for the phase that needs it.
        """
        self._inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            own = taken - self._inner.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + own
            self._inner[-1] += taken


def describe_phases(seconds: Mapping[str, float]) -> str:
    """Return the phases' shares of the time, the largest first; of less than 1% nothing."""
    whole = sum(seconds.values()) or 1.0
    shares = sorted(((own / whole, name) for name, own in seconds.items()), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.01)
