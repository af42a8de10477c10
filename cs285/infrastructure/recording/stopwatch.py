"""The stopwatch: seconds of a run by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Sums the seconds of each phase; a nested phase does not count for the outer phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # seconds of nested phases, one entry per open phase

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block as this phase.

        GPU work is asynchronous: it counts for the phase that waits for its result.
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
    """Return the share of each phase in the time, largest first; omit shares below 1%."""
    whole = sum(seconds.values()) or 1.0
    shares = sorted(((own / whole, name) for name, own in seconds.items()), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.01)
