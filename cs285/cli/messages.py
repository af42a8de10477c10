"""Turn exceptions into one-line errors with resume instructions."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cs285.infrastructure.errors import (
    InterruptedRunError,
    NoMemoryError,
    RunError,
    UsageError,
    WorkerError,
    as_no_memory,
)
from cs285.infrastructure.run_folder import CHECKPOINT

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)


@contextmanager
def one_line_errors(folder: Path, has_checkpoints: bool) -> Iterator[None]:
    """Turn what stops the run in `folder` into RunErrors that say how to resume it.

    An exception that only its author can mend passes, with its traceback.
    """
    way_on = f"; go on with --resume {folder}" if has_checkpoints else ""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        known = _as_run_error(error, folder, way_on)
        if known is error:
            raise
        if known is None:  # a third party's environment raised it, or this program has a fault
            print(f"stopped by an exception{way_on}", file=sys.stderr)
            raise
        raise known from error


def _as_run_error(error: BaseException, folder: Path, way_on: str) -> RunError | None:
    """Return what one line says of an exception, or None: its traceback is to be seen."""
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError(f"interrupted{way_on}")
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return RunError(f"stdout was closed{way_on}")
    no_memory = as_no_memory(error)
    if no_memory is not None:  # before the first checkpoint the same run would end the same way
        return NoMemoryError(f"{no_memory}{way_on if (folder / CHECKPOINT).exists() else ''}")
    if isinstance(error, WorkerError):
        return WorkerError(f"{error}{way_on}")
    if isinstance(error, RunError):
        return error
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return UsageError(
            f"--data_dir {folder.parent}: {error.strerror}; allowed: a folder that takes the "
            f"run's files{way_on}"
        )
    return None
