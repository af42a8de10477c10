"""Tests of Ctrl-C and SIGTERM: when they raise KeyboardInterrupt."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cs285.cli import launch
from cs285.cli.script import run_script
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


def interrupted(*_: Any) -> int:
    signal.raise_signal(signal.SIGINT)
    return 0


@pytest.mark.parametrize(
    "script",
    [lambda: run_script("x.py", interrupted, []), lambda: launch.launch("mb", [])],
    ids=["run_script", "launch"],
)
def test_second_ctrl_c_cannot_fail_the_end_of_a_script(
    script: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(launch, "execute", interrupted)
    assert script() == 130
    assert capsys.readouterr().err.count("\n") == 1
    signal.raise_signal(signal.SIGINT)
