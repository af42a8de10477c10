"""Tests of Ctrl-C and SIGTERM: when they raise KeyboardInterrupt."""

import signal
from collections.abc import Iterator

import pytest

from cs285.infrastructure.interrupts import SIGNALS, Interrupts, delayed_interrupts


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Handle SIGINT also if the test suite runs in the background, where a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts().handled():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_at_once_unless_a_short_iteration_runs(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    interrupts = Interrupts()
    with interrupts.handled():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert interrupts.asked
    assert signal.getsignal(number) == before
    waiting = Interrupts()
    waiting.waits = True
    with waiting.handled():
        signal.raise_signal(number)
        assert waiting.asked
        with pytest.raises(KeyboardInterrupt):  # the user insists
            signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_delayed_signal_comes_after_the_block(number: signal.Signals) -> None:
    completed = False
    with Interrupts().handled(), pytest.raises(KeyboardInterrupt), delayed_interrupts():
        signal.raise_signal(number)
        completed = True
    assert completed
