"""Turn exceptions into one-line errors with resume instructions."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cs285.cli.script import drop_output
from cs285.infrastructure.errors import (
    DivergedError,
    InterruptedRunError,
    NoMemoryError,
    RunError,
    TaskError,
    UsageError,
    WorkerError,
    as_no_memory,
    describe_error,
)
from cs285.infrastructure.run_folder import CHECKPOINT, flags_of, modules_in

PACKAGE = Path(__file__).parents[1]
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)


@contextmanager
def one_line_errors(folder: Path, lost: Callable[[], int]) -> Iterator[None]:
    """Turn the exceptions that stop the run in `folder` into RunErrors with resume instructions.

    `lost` returns the number of complete iterations that are not saved. Unexpected exceptions keep
    their traceback.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        how_to_resume = _how_to_resume(folder, lost())
        known = _as_run_error(error, folder, how_to_resume)
        if known is error:
            raise
        if known is None:  # a bug in this package, or in the user's agent
            print(f"stopped by an exception{how_to_resume}", file=sys.stderr)
            raise
        raise known from error


def _how_to_resume(folder: Path, lost: int) -> str:
    """Return how to continue the run, or that nothing of it was saved."""
    if not (folder / CHECKPOINT).exists():
        return "; nothing was saved"
    # The run imported the module of MODULE:NAME, so its user trusts it.
    trust = " --trust" if modules_in(flags_of(folder)) else ""
    repeated = f", which repeats {lost} unsaved iteration{'s' * (lost > 1)}"
    return f"; continue with --resume {folder}{trust}{repeated * (lost > 0)}"


def _as_run_error(error: BaseException, folder: Path, how_to_resume: str) -> RunError | None:
    """Return the one-line error for an exception, or None if its traceback must be shown."""
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError(f"interrupted{how_to_resume}")
    if isinstance(error, BrokenPipeError):
        drop_output()
        return RunError(f"stdout was closed{how_to_resume}")
    no_memory = as_no_memory(error)
    if no_memory is not None:
        return NoMemoryError(f"{no_memory}{how_to_resume}")
    if isinstance(error, TaskError | WorkerError | DivergedError):
        return type(error)(f"{error}{how_to_resume}")
    if isinstance(error, RunError):
        return error
    is_of_task = _is_of_task(error)
    if is_of_task or isinstance(error, SystemExit):
        what = "the task's get_reward" if is_of_task else "code outside this package"
        return TaskError(f"{what} raised {describe_error(error)}{how_to_resume}")
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return UsageError(
            f"--data_dir {folder.parent}: cannot write the run's files ({error.strerror}); must be "
            f"a writable folder with enough space{how_to_resume}"
        )
    if isinstance(error, OSError) and folder in Path(str(error.filename)).parents:
        return UsageError(
            f"--resume {folder}: cannot use its {Path(error.filename).name} ({error.strerror}); "
            f"must be the log folder of a run"
        )
    return None


def _is_of_task(error: BaseException) -> bool:
    """Return whether a function of a third party's task raised `error` in an imagined step."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [place for place, frame in enumerate(frames) if str(PACKAGE) in frame.filename]
    last = frames[ours[-1]] if ours else None
    return last is not None and last.name == "outcome" and ours[-1] + 1 < len(frames)
