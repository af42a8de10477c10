"""What the campaigns share: short runs in child processes, their comparison, and the report."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cs285.infrastructure.provenance import provenance
from cs285.scripts import run_hw4_mb, run_hw4_mbpo
from tests.cli.processes import events, only_folder
from tests.conftest import TINY, TINY_MBPO, arguments, read_curve, same_checkpoint

Script = Callable[[list[str]], int]


class Short(NamedTuple):
    """A short run: its script and its flags."""

    script: Script
    flags: dict[str, Any]

    def words(self, data: Path) -> list[str]:
        return arguments(**self.flags, data_dir=data)


SHORT = {
    "mb": Short(run_hw4_mb.main, {**TINY, "n_iter": 4, "add_sl_noise": True}),
    # The planner has a warm start, and episodes continue across iterations.
    "mb, small iterations": Short(
        run_hw4_mb.main,
        {
            **TINY,
            "n_iter": 8,
            "continue_episodes": True,
            "batch_size": 3,
            "eval_batch_size": 10,
            "mpc_action_sampling_strategy": "icem",
            "mpc_particles": 2,
            "num_elites": 2,
            "model": "probabilistic",
            "checkpoint_freq": 2,
        },
    ),
    "mbpo, small iterations": Short(
        run_hw4_mbpo.main,
        {
            **TINY_MBPO,
            "n_iter": 8,
            "continue_episodes": True,
            "batch_size": 1,
            "sac_n_iter": 1,
            "mbpo_refit_every": 4,
            "mbpo_rollout_every": 4,
            "eval_batch_size": 10,
        },
    ),
}


class Ended(NamedTuple):
    """How a child process ended."""

    code: int  # exit code, or minus the signal that killed it
    out: str
    err: str
    seconds: float


def run_child(
    script: Script,
    words: Sequence[object],
    before: Callable[[], None] = lambda: None,
    kill_after: float | None = None,
) -> Ended:
    """Run a script in a forked child, which needs no time for imports.

    The child calls `before` first. SIGKILL ends its process group after `kill_after` seconds.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pipes, begun = [os.pipe(), os.pipe()], time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_child(script, [str(word) for word in words], before, [write for _, write in pipes])
    for _, write in pipes:
        os.close(write)
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(_read, read) for read, _ in pipes]
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        seconds = time.monotonic() - begun
        out, err = (stream.result() for stream in streams)
    return Ended(os.waitstatus_to_exitcode(status), out, err, seconds)


def _read(descriptor: int) -> str:
    with os.fdopen(descriptor) as stream:
        return stream.read()


def _be_child(
    script: Script, words: list[str], before: Callable[[], None], outputs: list[int]
) -> None:
    """Run the script and exit. This never returns."""
    code = 70
    try:
        os.setsid()
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
            os.close(output)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        before()
        try:
            code = script(words)
        except SystemExit as stop:
            code = int(str(stop.code))
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
    finally:
        os._exit(code)


def on_file_change(folder: Path, act: Callable[[int, str], None]) -> Callable[[], None]:
    """Return a function that makes this process call `act(count, event)` before each file change.

    File changes open a file in `folder` for writing, or create a folder, rename, link or remove.
    `act` gets their count, from 1, and their audit event. If it raises OSError, the change fails
    with this error.
    """
    count = 0

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            changes = isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            changes = event in ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir")
        if not changes or not any(_is_inside(folder, detail) for detail in details[:2]):
            return
        count += 1
        act(count, event)

    return functools.partial(sys.addaudithook, hook)


def _is_inside(folder: Path, detail: object) -> bool:
    return isinstance(detail, str | os.PathLike) and str(detail).startswith(str(folder))


class Whole(NamedTuple):
    """A finished run that nothing disturbed."""

    folder: Path
    seconds: float
    changes: int  # file changes


@functools.cache
def whole_run(name: str, **flags: Any) -> Whole:
    """Return the undisturbed run of a short run, with other `flags` if given."""
    _import_everything()
    data = Path(tempfile.mkdtemp(prefix="whole_"))
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    tally = data / "tally"
    short = SHORT[name]

    def count(number: int, event: str) -> None:
        descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, f"{number:9d}".encode())
        os.close(descriptor)

    runs = data / "runs"
    words = arguments(**{**short.flags, **flags}, data_dir=runs)
    ended = run_child(short.script, words, on_file_change(runs, count))
    assert ended.code == 0, ended.err
    return Whole(only_folder(runs), ended.seconds, int(tally.read_text()))


@functools.cache
def _import_everything() -> None:
    """Import what a run imports only when it needs it, so that the children need not."""
    with (
        tempfile.TemporaryDirectory() as place,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        for short in SHORT.values():
            words = Short(short.script, {**short.flags, "n_iter": 1}).words(Path(place))
            assert short.script(words) == 0


def check_equal(folder: Path, whole: Path) -> None:
    """Raise AssertionError if the results of two runs differ in any bit."""
    assert read_curve(folder) == read_curve(whole), "progress.csv differs"
    assert events(folder) == events(whole), "events differ"
    assert same_checkpoint(folder, whole), "the checkpoint differs"


def check_one_line(ended: Ended, codes: Sequence[int] = (1, 2)) -> None:
    """Raise AssertionError unless the run failed with a one-line error."""
    assert ended.code in codes, f"exit code {ended.code}: {ended.err}"
    assert "Traceback" not in ended.err and ended.err.count("\n") == 1, ended.err


@contextlib.contextmanager
def described(what: str) -> Iterator[None]:
    """Put `what` in front of the message of an error."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{what}: {error}") from error


class Attack(NamedTuple):
    """The result of one attack."""

    number: int
    what: str  # the kind of attack and of its outcome; equal kinds are counted
    failure: str | None = None


def attack_many(
    attack: Callable[[random.Random, Path], str], times: int, seed: int = 1, first: int = 0
) -> list[Attack]:
    """Call `attack` with generators of the numbers first, first + 1, ... and empty folders.

    It returns what it did and what happened, and raises AssertionError if it found a defect.
    """
    results = []
    for number in range(first, first + times):
        with tempfile.TemporaryDirectory(prefix="attack_") as place:
            try:
                what, failure = attack(random.Random(f"{seed} {number}"), Path(place)), None
            except Exception as error:
                what, failure = "defect", f"{type(error).__name__}: {error}"
        results.append(Attack(number, what, failure))
    return results


def campaign(attack: Callable[[random.Random, Path], str], times: int, name: str) -> int:
    """Run a campaign from the command line; return the exit code, 1 if it found a defect."""
    parser = argparse.ArgumentParser(prog=f"tests.campaigns.{name}", description=attack.__doc__)
    parser.add_argument("--times", type=int, default=times, help="number of attacks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first attack")
    parser.add_argument("--output", type=Path, help="write the counts to this JSON file")
    options = parser.parse_args()
    results, begun = [], time.monotonic()
    for number in range(options.first, options.first + options.times):
        (result,) = attack_many(attack, 1, options.seed, number)
        print(f"{result.number}: {result.what} {result.failure or ''}".rstrip(), flush=True)
        results.append(result)
    failures = [result for result in results if result.failure]
    counts = dict(sorted(Counter(result.what for result in results).items()))
    print(f"{len(results)} attacks, {len(failures)} defects")
    if options.output:
        content = {
            "command": f"python -m tests.campaigns.{name} --times {options.times} "
            f"--seed {options.seed}",
            "attacks": len(results),
            "defects": len(failures),
            "outcomes": counts,
            "seconds": round(time.monotonic() - begun),
            **provenance(),
        }
        options.output.write_text(json.dumps(content, indent=2) + "\n")
    return int(bool(failures))
