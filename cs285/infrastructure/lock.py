"""The lock of a log folder: one process at a time runs the run in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.files import reading

LOCK = ".lock"


class HeldError(UsageError):
    """Another process is running the run."""


def open_lock(file: Path) -> TextIO:
    """Open a lock file, and create it if necessary. Raises OSError: it is a link or a folder."""
    # A FIFO that is opened for reading and writing does not block.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(file, flags, 0o666), "w")


def lock_folder(folder: Path) -> TextIO:
    """Lock `folder` while the returned file is open. Raises UsageError: it cannot be locked."""
    with reading(f"log folder {folder}", "a writable log folder"):
        lock = open_lock(folder / LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise HeldError(
            f"--resume {folder}: another process is running it; must be a run that has stopped"
        ) from error
    except OSError:
        pass  # the file system has no locks
    return lock


def is_held(folder: Path) -> bool:
    """Return whether another process is running the run in `folder`."""
    try:
        lock_folder(folder).close()
    except HeldError:
        return True
    except UsageError:  # the run itself reports the error
        return False
    return False
