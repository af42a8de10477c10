"""Let the disk become full at random moments, and compare the resumed runs."""

from __future__ import annotations

import errno
import functools
import random
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.campaigns.common import (
    SHORT,
    campaign,
    check_equal,
    check_one_line,
    on_file_change,
    run_child,
    whole_run,
)
from tests.cli.processes import only_folder


def attack(rng: random.Random, place: Path) -> str:
    """Run until the disk is full, resume with free space, and compare with the undisturbed run.

    A full disk is either a limit on the size of a file, or an error of each file change from a
    random one on.
    """
    name = rng.choice(list(SHORT))
    short, whole = SHORT[name], whole_run(name)
    data = place / "runs"
    if rng.random() < 0.5:
        size = int(10 ** rng.uniform(2, 6))
        before, how = functools.partial(limit_file_size, size), "while it wrote a file"
    else:
        before = on_file_change(data, fail_from(rng.randint(1, whole.changes)))
        how = "before a file change"
    ended = run_child(short.script, short.words(data), before)
    if ended.code == 0:
        check_equal(only_folder(data), whole.folder)
        return f"{name}: the disk sufficed"
    check_one_line(ended, (2,))
    folders = list(data.glob("hw4_*"))
    offered = re.search(r"--resume (\S+)", ended.err)
    assert not offered or folders, f"offers to resume a deleted folder: {ended.err}"
    if folders:
        words: list[object] = ["--resume", folders[0]]
    else:
        assert not data.exists() or not list(data.iterdir()), "leaves files behind"
        words = [*short.words(data)]
    ended = run_child(short.script, words)
    assert ended.code == 0, ended.err
    check_equal(only_folder(data), whole.folder)
    return f"{name}: full {how}, {'resumed' if folders else 'started again'}: equal"


def limit_file_size(size: int) -> None:
    """Let every write beyond `size` bytes of a file of this process fail."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fail_from(number: int) -> Callable[[int, str], None]:
    """Return a function that lets all file changes from `number` on fail, but removals."""

    def act(count: int, event: str) -> None:
        if count >= number and event not in ("os.remove", "os.rmdir"):
            raise OSError(errno.ENOSPC, "No space left on device")

    return act


if __name__ == "__main__":
    sys.exit(campaign(attack, 30, "disk"))
