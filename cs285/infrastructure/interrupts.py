"""Ctrl-C and SIGTERM end a run so that it can be resumed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. A plain KeyboardInterrupt may be from an environment."""


class Interrupts:
    """Raises UserInterrupt at a signal: at once, or, while `waits` is set, at the second one.

    While `waits` is set, the first signal only sets `asked`, so that a short iteration can be
    completed and saved.
    """

    def __init__(self) -> None:
        self.asked = self.waits = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals of this process inside the block."""
        # A shell ignores Ctrl-C for its background jobs. That stays so.
        numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        with _handlers(numbers, self._handle):
            yield

    def _handle(self, number: int, frame: Any) -> None:
        is_first, self.asked = not self.asked, True
        if not (is_first and self.waits):
            raise UserInterrupt


def _reset_in_child() -> None:
    """Let the signals end a process that a task forks, as they would without this package."""
    for number in SIGNALS:
        if isinstance(getattr(signal.getsignal(number), "__self__", None), Interrupts):
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_reset_in_child)


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block ends: they would abort torch's C++ file writer."""
    received: list[int] = []
    try:
        with _handlers(SIGNALS, lambda number, frame: received.append(number)):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


def import_torch() -> None:
    """Import torch with delayed interrupts: they would abort its C++ code, which calls Python."""
    with delayed_interrupts():
        import torch  # noqa: F401


@contextmanager
def _handlers(numbers: Iterable[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle signals with `handler` inside the block. Other threads than the main one get none."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, handler) for n in numbers} if is_main else {}
    try:
        yield
    finally:
        for number, original in before.items():
            signal.signal(number, original)
