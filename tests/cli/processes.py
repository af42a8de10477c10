"""Helpers for tests that start the scripts as processes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cs285.infrastructure.recording.event_file import read_events
from tests.conftest import TIMES

ROOT = Path(__file__).parents[2]


def start(script: str, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Start a script of the checkout as a process."""
    return _start([sys.executable, str(ROOT / script), *words], **options)


def start_module(module: str, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Start `python -m module` as a process."""
    return _start([sys.executable, "-m", module, *words], **options)


def _start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    # A test suite in the background ignores SIGINT, and its child processes would inherit that.
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def only_folder(data: Path) -> Path:
    (folder,) = data.glob("hw4_*")
    return folder


def events(folder: Path) -> list[tuple[int, str, float]]:
    (file,) = folder.glob("events.out.tfevents.*")
    return [
        (event.step, value.tag, value.simple_value)
        for event in read_events(file)
        for value in event.summary.value
        if value.tag not in TIMES
    ]


def children_of(pid: int) -> list[int]:
    """Return the ids of all live descendants of a process."""
    listing = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,stat="], capture_output=True, text=True)
    rows = [line.split() for line in listing.stdout.splitlines()]
    alive = [(int(child), int(parent)) for child, parent, state in rows if state[0] != "Z"]
    found, frontier = [], [pid]
    while frontier:
        frontier = [child for child, parent in alive if parent in frontier]
        found += frontier
    return found


def command_of(pid: int) -> str:
    """Return the command line of a process, or "" if the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds} s"
        time.sleep(0.02)
