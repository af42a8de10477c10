"""Fixtures: tiny runs of the real scripts, small enough for two cores."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cs285.scripts import run_hw4_mb, run_hw4_mbpo

torch.set_num_threads(1)

TINY: dict[str, Any] = {
    "env_name": "obstacles-cs285-v0",
    "exp_name": "tiny",
    "n_iter": 2,
    "ep_len": 20,
    "batch_size_initial": 60,
    "batch_size": 40,
    "eval_batch_size": 30,
    "num_agent_train_steps_per_iter": 5,
    "train_batch_size": 16,
    "size": 16,
    "mpc_horizon": 3,
    "mpc_num_action_sequences": 20,
    "num_workers": 1,
}
TINY_MBPO: dict[str, Any] = {
    **TINY,
    "sac_n_iter": 6,
    "sac_size": 16,
    "sac_train_batch_size": 32,
    "mbpo_rollout_length": 2,
    "mbpo_rollout_every": 4,
}
TIMES = ("TimeSinceStart",)  # the only column that differs between repeated runs


def arguments(**flags: Any) -> list[str]:
    """Return the command line for these flags; True is a bare flag, None omits the flag."""
    words: list[str] = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def read_curve(folder: Path) -> list[dict[str, str]]:
    """Return the rows of progress.csv without the wall-clock times."""
    with (folder / "progress.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: cell for name, cell in row.items() if name not in TIMES} for row in rows]


def same_checkpoint(one: Path, other: Path) -> bool:
    """Return whether two runs have the same last checkpoint, except for wall-clock times."""
    states = [
        torch.load(folder / "checkpoint.pt", weights_only=True)["state"] for folder in (one, other)
    ]
    for state in states:
        del state["counters"]["seconds"], state["counters"]["seconds_by_phase"]
        del state["log"]  # checksums of files with times
    pairs = zip(*map(_leaves, states), strict=True)
    return all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in pairs)


def _leaves(state: Any) -> list[Any]:
    """Return all values of a nested state as a flat list."""
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list | tuple):
        return [leaf for part in state for leaf in _leaves(part)]
    return [state]


def runner(tmp_path: Path, main: Callable[..., int], tiny: dict[str, Any]) -> Callable[..., Path]:
    """Return a function that runs a script in this process and returns its log folder."""

    def run(**flags: Any) -> Path:
        before = set(tmp_path.glob("*/hw4_*"))
        flags = {**tiny, "data_dir": tmp_path / f"data{len(before)}", **flags}
        assert main(arguments(**flags)) == 0
        (folder,) = set(tmp_path.glob("*/hw4_*")) - before
        return folder

    return run


def exit_code_of(script: Callable[..., int], *arguments: Any) -> int:
    """Call a script's main function in this process and return its exit code."""
    try:
        return script(*arguments)
    except SystemExit as stop:  # argparse
        return int(str(stop.code))


def error_of(
    script: Callable[..., int], words: Sequence[object], capsys: pytest.CaptureFixture[str]
) -> str:
    """Return the one-line error of a script for a command line, which must print nothing else."""
    capsys.readouterr()
    code = exit_code_of(script, [str(word) for word in words])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Restore the handler of Ctrl-C, which a script ignores once it has been interrupted."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run_tiny(tmp_path: Path) -> Callable[..., Path]:
    return runner(tmp_path, run_hw4_mb.main, TINY)


@pytest.fixture
def run_tiny_mbpo(tmp_path: Path) -> Callable[..., Path]:
    return runner(tmp_path, run_hw4_mbpo.main, TINY_MBPO)
