"""Kill runs at random times and before random file changes, and compare the resumed runs."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.campaigns.common import (
    SHORT,
    campaign,
    check_equal,
    on_file_change,
    run_child,
    whole_run,
)
from tests.cli.processes import only_folder


def attack(rng: random.Random, place: Path) -> str:
    """Kill a run up to three times, resume it, and compare it with the undisturbed run."""
    name = rng.choice(list(SHORT))
    short, whole = SHORT[name], whole_run(name)
    data, kills = place / "runs", 0
    by_change = rng.random() < 0.5
    for most_kills in range(rng.randint(1, 3), -1, -1):
        words = ["--resume", only_folder(data)] if has_run(data) else short.words(data)
        before, delay = (lambda: None), None
        if most_kills and by_change:
            before = on_file_change(data, kill_at(rng.randint(1, whole.changes)))
        elif most_kills:
            delay = rng.uniform(0, whole.seconds)
        ended = run_child(short.script, words, before, delay)
        killed = ended.code == -signal.SIGKILL
        assert killed or ended.code == 0, f"{name}: exit code {ended.code}: {ended.err}"
        kills += killed
    check_equal(only_folder(data), whole.folder)
    how = "before a file change" if by_change else "at a random time"
    return f"{name}: {kills} kills {how}: equal"


def has_run(data: Path) -> bool:
    """Return whether a run has been created in a data folder."""
    return bool(list(data.glob("hw4_*")))


def kill_at(number: int) -> Callable[[int, str], None]:
    """Return a function that kills this process when it is called with `number`."""

    def act(count: int, event: str) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


if __name__ == "__main__":
    sys.exit(campaign(attack, 50, "kill"))
