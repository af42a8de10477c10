"""Run the checks of a tree in a separate process, with time limits."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from cs285.assignment.blanks import NOT_BEGUN, TIMED_OUT, WRONG, Blank
from cs285.assignment.source import find_function, is_begun, parse, raising_lines
from cs285.infrastructure.errors import RunError, one_line

START_SECONDS = 120.0  # to import torch on a busy machine
MOST_BYTES = 10**6  # of a worker's answers
NO_LIMITS: Mapping[str, int] = {}


class Verdict(NamedTuple):
    """The result of one check."""

    blank: Blank
    status: str  # passed, wrong, not begun, blocked or timed out
    message: str  # of `blocked`: what the check cannot do without


def counted(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """Return the verdicts without optional blanks that are not begun, unless all are such ones."""
    return [v for v in verdicts if v.status != NOT_BEGUN or not v.blank.is_optional] or verdicts


def grade_tree(tree: Path, blanks: Sequence[Blank], seconds: float) -> Iterator[Verdict]:
    """Yield the verdict on each blank of a tree, in order.

    A check may take `seconds`. A blank that is not begun needs no process.
    """
    package = tree / "cs285"
    texts = {c.file: _read(package / c.file) for blank in blanks for c in blank.cuts}
    found = {blank.id: look(blank, texts) for blank in blanks}
    to_run = [blank for blank in blanks if found[blank.id] is None]
    checked = run_checks(tree, to_run, seconds)
    for blank in blanks:
        yield found[blank.id] or next(checked)


def look(blank: Blank, texts: dict[str, str]) -> Verdict | None:
    """Return the verdict on a blank that its source text decides, or None: it must be run.

    `texts` are the texts of files by their names in the package; "" if a file is missing.
    """
    begun: list[bool] = []
    for cut in blank.cuts:
        if not texts[cut.file]:
            return Verdict(blank, WRONG, f"cs285/{cut.file} is missing or empty")
        try:
            begun.append(is_begun(texts[cut.file], cut, blank.id))
        except ValueError as error:
            return Verdict(blank, WRONG, f"cs285/{cut.file}: {error}")
    if not any(begun):
        return Verdict(blank, NOT_BEGUN, "")
    if not all(begun):
        cut = blank.cuts[begun.index(False)]
        raises = f'raise BlankError("{blank.id}")'
        return Verdict(blank, WRONG, f"{cut.function} is not written, or still has {raises}")
    return None


def line_of(blank: Blank, package: Path) -> str:
    """Return "FILE:LINE" of the first place that a learner must edit, for a message."""
    first = ""
    for cut in blank.cuts:
        text = _read(package / cut.file)
        try:
            lines = raising_lines(text, blank.id)
            line = lines[0] if lines else find_function(parse(text), cut.function).lineno
        except ValueError as error:  # a SyntaxError has a line
            line, lines = getattr(error.__cause__, "lineno", None) or 1, []
        place = f"cs285/{cut.file}:{line}"
        if lines:
            return place
        first = first or place
    return first


def start_worker(tree: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a worker for the checks of a tree; `options` are additional ones of Popen."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cs285.assignment.worker"],
        cwd=tree,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        **{"env": environment, **options},
    )


def run_checks(
    tree: Path,
    blanks: Sequence[Blank],
    seconds: float,
    start: Callable[[Path], subprocess.Popen[bytes]] = start_worker,
    limits: Mapping[str, int] = NO_LIMITS,
) -> Iterator[Verdict]:
    """Yield the verdicts of the checks of `blanks`, which run in a worker process.

    If a check takes too long or ends the process, another process runs the rest. `start` starts a
    worker. `limits` are its limits by their names in the module `resource`. Raises RunError: the
    process cannot run any check.
    """
    left = list(blanks)
    while left:
        for verdict in _run_in_one(tree, left, seconds, start, limits):
            left = left[1:]
            yield verdict


def _run_in_one(
    tree: Path,
    blanks: Sequence[Blank],
    seconds: float,
    start: Callable[[Path], subprocess.Popen[bytes]],
    limits: Mapping[str, int],
) -> Iterator[Verdict]:
    """Yield verdicts from one process, up to the first check that takes too long or ends it."""
    key = secrets.token_hex(16)  # prints of the learner's code do not know it
    process = start(tree)
    assert process.stdin and process.stdout
    request = {"key": key, "blanks": [blank.id for blank in blanks], "limits": dict(limits)}
    try:
        with process.stdin as stream:
            stream.write(json.dumps(request).encode() + b"\n")
        answers = _answers(process.stdout, key, START_SECONDS, seconds)
        try:
            ready = next(answers, {}).get("package")
        except TimeoutError as error:
            raise RunError(f"the checks did not start within {START_SECONDS:g} s") from error
        if ready is None:
            raise RunError("the checks cannot start; run ./install.sh in this folder")
        if Path(str(ready)) != tree.resolve() / "cs285":
            raise RunError(f"the checks would run in {ready}, not in {tree}")
        for blank in blanks:
            try:
                answer = next(answers, None)
            except TimeoutError:
                yield Verdict(blank, TIMED_OUT, f"no result after {seconds:g} s: an endless loop?")
                return
            if answer is None:
                yield Verdict(blank, WRONG, f"the process {_ending(process)} during the check")
                return
            if answer.get("blank") != blank.id:
                yield Verdict(blank, WRONG, "the check was tampered with")
                return
            yield Verdict(blank, str(answer["status"]), one_line(str(answer["message"])))
    except BrokenPipeError as error:
        raise RunError("the checks cannot start; run ./install.sh in this folder") from error
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def _answers(
    stream: IO[bytes], key: str, first_seconds: float, seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield the lines of a worker that have its key.

    Raises TimeoutError: none came for `seconds`, or the first one not for `first_seconds`.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        text, received, deadline = b"", 0, time.monotonic() + first_seconds
        while received < MOST_BYTES:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise TimeoutError
            part = os.read(stream.fileno(), 65536)
            if not part:
                return
            received += len(part)
            *lines, text = (text + part).split(b"\n")
            for line in lines:
                try:
                    answer = json.loads(line)
                except ValueError:
                    continue
                if isinstance(answer, dict) and answer.get("key") == key:
                    yield answer
                    deadline = time.monotonic() + seconds


def _ending(process: subprocess.Popen[bytes]) -> str:
    """Return how a process that closed its output ended."""
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        return "closed its output"
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
