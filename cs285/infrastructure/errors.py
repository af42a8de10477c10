"""The ways a run ends early: each becomes one line on stderr and an exit code, no traceback."""

from __future__ import annotations

NO_MEMORY = (  # torch's words for it, on CPU and GPU
    "allocate memory",
    "out of memory",
    "size calculation overflowed",
    "multiplication overflow",
)


class RunError(Exception):
    """Something the user must know. The message is one line; `exit_code` is the process's."""

    exit_code = 1


class UsageError(RunError):
    """Bad input: the message names the flag, the value and what is allowed."""

    exit_code = 2


class DivergedError(RunError):
    """The model or the policy gave non-finite numbers; the last checkpoint is still good."""


class TaskError(RunError):
    """The task's simulator gave numbers that are not finite."""


class WorkerError(RunError):
    """A collection worker failed for good: its episode killed it again and again, or raised.

    What an environment raised is shown with its traceback: it is its author's to mend.
    """


class NoMemoryError(RunError):
    """What was asked for does not fit into the memory of this machine or its GPU."""


class InterruptedRunError(RunError):
    """The user stopped the run; its exit code is what a shell reports for Ctrl-C."""

    exit_code = 130


def as_no_memory(error: BaseException) -> NoMemoryError | None:
    """Return what one line says of an exception that came of too little memory, or None."""
    if isinstance(error, NoMemoryError):
        return error
    is_of_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in NO_MEMORY)
    if not (isinstance(error, MemoryError) or is_of_torch):
        return None
    reason = (str(error) or "MemoryError").splitlines()[0]
    return NoMemoryError(
        f"not enough memory ({reason}): a run of smaller sizes, batches or buffers may fit"
    )
