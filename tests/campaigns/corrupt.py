"""Damage the files of runs, resume the runs, and compare them with undamaged ones."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from cs285.infrastructure.run_folder import CHECKPOINT
from tests.campaigns.common import (
    SHORT,
    campaign,
    check_equal,
    check_one_line,
    described,
    run_child,
    whole_run,
)

DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {}


def damage(function: Callable[[bytes, random.Random], bytes]) -> Callable[..., bytes]:
    """Add a function from the bytes of a file to damaged bytes to the list."""
    DAMAGES[function.__name__.replace("_", " ")] = function
    return function


@damage
def a_flipped_bit(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    changed = content[place] ^ (1 << rng.randrange(8))
    return content[:place] + bytes([changed]) + content[place + 1 :]


@damage
def a_block_of_zeros(content: bytes, rng: random.Random) -> bytes:
    size = min(4096, len(content))
    place = rng.randrange(len(content) - size + 1)
    return content[:place] + bytes(size) + content[place + size :]


@damage
def a_cut_end(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


@damage
def a_repeated_part(content: bytes, rng: random.Random) -> bytes:
    first, last = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:last] + content[first:]


def attack(rng: random.Random, place: Path) -> str:
    """Damage one file of a run, and extend the run by one iteration.

    Either an error names the file and changes nothing, or the damage makes no difference. If the
    error offers the previous checkpoint, this must lead to the results of an undamaged run.
    """
    name = rng.choice(list(SHORT))
    short = SHORT[name]
    iterations = short.flags["n_iter"] + 1
    whole = whole_run(name, n_iter=iterations).folder
    folder = place / "run"
    shutil.copytree(whole_run(name).folder, folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "itr_")))
    file, kind = rng.choice(files), rng.choice(list(DAMAGES))
    file.write_bytes(DAMAGES[kind](file.read_bytes(), rng))
    before = contents(folder)
    words = ["--resume", folder, "--n_iter", iterations]
    shown = "events" if "tfevents" in file.name else file.name
    with described(f"{shown}: {kind}"):
        ended = run_child(short.script, words)
        if ended.code == 0:
            check_equal(folder, whole)
            return f"{shown}: harmless"
        check_one_line(ended, (2,))
        assert file.name in ended.err, f"names another file: {ended.err}"
        assert contents(folder) == before, "changes files"
        if file.name != CHECKPOINT:
            return f"{shown}: refused"
        assert "--checkpoint previous" in ended.err, ended.err
        ended = run_child(short.script, [*words, "--checkpoint", "previous"])
        assert ended.code == 0, ended.err
        check_equal(folder, whole)
    return f"{shown}: refused, equal from the previous checkpoint"


def contents(folder: Path) -> dict[str, str]:
    """Return a hash of each file in a folder but its lock."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


if __name__ == "__main__":
    sys.exit(campaign(attack, 100, "corrupt"))
