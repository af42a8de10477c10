"""Errors that stop a run: each becomes a message on stderr and an exit code."""

from __future__ import annotations

import traceback
from pathlib import Path

UNGUARDED = 86  # exit code of a worker whose import of the main module would start a run
NO_MEMORY = (  # parts of torch's messages, on CPU and GPU
    "allocate memory",
    "out of memory",
    "size calculation overflowed",
    "multiplication overflow",
)

LONGEST_LINE = 2000
LONGEST_TEXT = 200  # characters of an exception's own message


def printable(text: str) -> str:
    """Return text for a terminal: control characters except line ends are escaped, as in repr.

    The names in a file may contain escape sequences that a terminal would execute.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str) -> str:
    """Return a message as one printable line; the middle of a very long one is left out."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST_LINE else f"{line[:500]} ... {line[-500:]}"


class RunError(Exception):
    """A one-line message to the user; the process exits with `exit_code`."""

    exit_code = 1


class UsageError(RunError):
    """Bad input: the message names the flag, its value and what it must be."""

    exit_code = 2


OMITTED = "omitted"  # the id of what a copy with blanks lacks because it repeats an answer


class BlankError(RunError):
    """The run has reached a blank of the learner's edition. The argument is the id of the blank."""

    def __str__(self) -> str:
        blank = str(self.args[0])
        if blank == OMITTED:
            return "a copy with blanks lacks this function, because it repeats an answer"
        return (
            f"{blank} is not written yet; see docs/assignment.md#{blank.replace('.', '')} and "
            f"python scripts/grade.py {blank} --hint"
        )


class DivergedError(RunError):
    """The model or the policy returned non-finite numbers."""


class TaskError(RunError):
    """The environment failed, or returned what cannot be used."""


class VideoError(RunError):
    """The environment cannot draw an episode."""


class WorkerError(RunError):
    """An episode killed several workers, or raised an exception outside the environment.

    The message includes the traceback of the exception.
    """


class NoMemoryError(RunError):
    """The run does not fit into the memory of this machine or its GPU."""


class InterruptedRunError(RunError):
    """The user interrupted the run; the exit code is the shell's code for Ctrl-C."""

    exit_code = 130


def as_no_memory(error: BaseException) -> NoMemoryError | None:
    """Return an out-of-memory `error` as a NoMemoryError, and any other error as None."""
    if isinstance(error, NoMemoryError):
        return error
    is_of_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in NO_MEMORY)
    if not (isinstance(error, MemoryError) or is_of_torch):
        return None
    reason = (str(error) or "MemoryError").splitlines()[0]
    return NoMemoryError(
        f"not enough memory ({reason}); start a run with a smaller network, batch or buffer, for "
        "example --size, --train_batch_size, --mpc_num_action_sequences, --mpc_horizon, "
        "--mbpo_model_buffer_size or --pilco_basis"
    )


def describe_error(error: BaseException) -> str:
    """Return the type of an exception, its message, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    text = message_of(error)[:LONGEST_TEXT]
    return f"{type(error).__name__}{f' ({text})' * bool(text)}{place}"


def message_of(error: BaseException) -> str:
    """Return the message of an exception in one line, or "" if it has none or cannot print it."""
    try:
        return " ".join(str(error).split())
    except Exception:  # of a third party's __str__
        return ""
