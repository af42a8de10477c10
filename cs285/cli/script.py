"""What the small programs share: one line for an error, and files that appear when complete."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cs285.infrastructure.errors import InterruptedRunError, RunError


def run_script(
    script: str, work: Callable[[Sequence[str]], int], argv: Sequence[str] | None
) -> int:
    """Call `work` with the words of the command line, and return the program's exit code."""
    try:
        return work(sys.argv[1:] if argv is None else argv)
    except RunError as error:
        return fail(script, str(error), error.exit_code)
    except KeyboardInterrupt:
        return fail(script, "interrupted", InterruptedRunError.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return fail(script, "stdout was closed", RunError.exit_code)
    except OSError as error:
        return fail(script, describe(error), RunError.exit_code)


def fail(script: str, message: str, exit_code: int) -> int:
    """Print an error as one line on stderr, and return `exit_code`."""
    print(f"{script}: error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def warn(script: str, message: str) -> None:
    """Print a warning as one line on stderr."""
    print(f"{script}: warning: {' '.join(message.split())}", file=sys.stderr)


def describe(error: OSError) -> str:
    """Return the file and what was wrong with it."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # of a whole tree
        name, _, reason = error.args[0][0]
        return f"{name}: {reason}"
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a path next to `path`, to be renamed when complete; a file or folder left there goes."""
    temporary = path.with_name(f".{os.getpid()}_{path.name[:100]}.tmp")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
