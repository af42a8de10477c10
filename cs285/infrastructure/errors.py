"""The ways a run ends early: each becomes one line on stderr and an exit code, no traceback."""

from __future__ import annotations


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


class InterruptedRunError(RunError):
    """The user stopped the run; its exit code is what a shell reports for Ctrl-C."""

    exit_code = 130
