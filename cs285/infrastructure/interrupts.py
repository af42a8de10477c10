"""Ctrl-C and SIGTERM end a run so that it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Raises KeyboardInterrupt at a signal: at once, or, while `waits` is set, at the second one.

    While `waits` is set, the first signal only sets `asked`, so that a short iteration can be
    completed and saved.
    """

    def __init__(self) -> None:
        self.asked = self.waits = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals of this process inside the block."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals only to the main thread
            return
        # A shell ignores Ctrl-C for its background jobs. That stays so.
        handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        before = [signal.signal(number, self._handle) for number in handled]
        try:
            yield
        finally:
            for number, handler in zip(handled, before, strict=True):
                signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        is_first, self.asked = not self.asked, True
        if not (is_first and self.waits):
            raise KeyboardInterrupt


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block ends: they would abort torch's C++ file writer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[Any] = []
    before = [signal.signal(number, lambda *what: received.append(what)) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0][0])
