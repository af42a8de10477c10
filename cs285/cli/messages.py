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
    """Turn the exceptions that stop the run in `folder` into RunErrors with resume instructions.

    Unexpected exceptions keep their traceback.
    """
    how_to_resume = f"; continue with --resume {folder}" if has_checkpoints else ""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        known = _as_run_error(error, folder, how_to_resume)
        if known is error:
            raise
        if known is None:  # a bug in the user's environment or in this package
            print(f"stopped by an exception{how_to_resume}", file=sys.stderr)
            raise
        raise known from error


def _as_run_error(error: BaseException, folder: Path, how_to_resume: str) -> RunError | None:
    """Return the one-line error for an exception, or None if its traceback must be shown."""
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError(f"interrupted{how_to_resume}")
    if isinstance(error, BrokenPipeError):
        # Python flushes stdout at exit, which would fail again on the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RunError(f"stdout was closed{how_to_resume}")
    no_memory = as_no_memory(error)
    if no_memory is not None:
        # Without a checkpoint, a resumed run would fail in the same way.
        has_checkpoint = (folder / CHECKPOINT).exists()
        return NoMemoryError(f"{no_memory}{how_to_resume if has_checkpoint else ''}")
    if isinstance(error, WorkerError):
        return WorkerError(f"{error}{how_to_resume}")
    if isinstance(error, RunError):
        return error
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return UsageError(
            f"--data_dir {folder.parent}: cannot write the run's files ({error.strerror}); must be "
            f"a writable folder with enough space{how_to_resume}"
        )
    return None
