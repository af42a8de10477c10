"""Helpers for the scripts: one-line errors, exit codes and temporary files."""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cs285.infrastructure.errors import (
    InterruptedRunError,
    RunError,
    UsageError,
    WorkerError,
    one_line,
    printable,
)


def run_script(
    script: str,
    work: Callable[[Sequence[str]], int],
    argv: Sequence[str] | None,
    shortens_os_errors: bool = True,
) -> int:
    """Call `work` with the words of the command line and return the exit code of the script.

    `shortens_os_errors` prints an OSError in one line, without its traceback.
    """
    prepare_output()
    try:
        with no_processes_left():
            return work(sys.argv[1:] if argv is None else argv)
    except WorkerError as error:
        print(f"{script}: error: {printable(str(error))}", file=sys.stderr)  # has several lines
        return error.exit_code
    except RunError as error:
        if isinstance(error, InterruptedRunError):
            ignore_interrupts()
        return fail(script, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        ignore_interrupts()
        first = error.__context__  # if this is the second Ctrl-C
        message = str(first) if isinstance(first, InterruptedRunError) else "interrupted"
        return fail(script, message, InterruptedRunError.exit_code)
    except BrokenPipeError:
        drop_output()
        return fail(script, "stdout was closed", RunError.exit_code)
    except OSError as error:
        if not shortens_os_errors:
            raise
        if error.errno == errno.ENAMETOOLONG:  # from the first look at a path
            return fail(script, f"{describe_os_error(error)}; must be a path", UsageError.exit_code)
        return fail(script, describe_os_error(error), RunError.exit_code)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C from now on: the process is about to end, and a second one would fail it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def drop_output() -> None:
    """Drop what is still to print: Python flushes at exit, which would fail on a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_output() -> None:
    """Make printing safe: drop output to a closed stream, escape letters it cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell (>&-); otherwise a file of the run gets its number
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):  # a notebook's stream lacks it
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def no_processes_left() -> Iterator[None]:
    """End the child processes that a task starts inside the block and does not end itself.

    Python would wait for them when the script ends.
    """
    before = multiprocessing.active_children()
    try:
        yield
    finally:
        left = [each for each in multiprocessing.active_children() if each not in before]
        left = [each for each in left if not each.daemon]  # Python ends the others itself
        if left:
            warn(f"the environment left {len(left)} processes running, which are now killed; must "
                 "end them in its close()")  # fmt: skip
        for child in left:
            child.kill()
            child.join()


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Add --trust to the flags of a script that reads a folder."""
    parser.add_argument(
        "--trust",
        action="store_true",
        default=argparse.SUPPRESS,
        help="import the modules that the folder names (MODULE:NAME), which runs their code",
    )


def fail(script: str, message: str, exit_code: int) -> int:
    """Print a one-line error on stderr and return `exit_code`."""
    print(f"{script}: error: {one_line(message)}", file=sys.stderr)
    return exit_code


def warn(message: str) -> None:
    """Print a one-line warning on stderr."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


def describe_os_error(error: OSError) -> str:
    """Return the text "FILE: REASON" for an error."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # from copytree
        name, _, reason = error.args[0][0]
        return f"{name}: {reason}"
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, which the caller renames when complete.

    A file or folder that is still there afterwards is removed.
    """
    temporary = path.with_name(f".{os.getpid()}_{path.name[:100]}.tmp")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
