"""One-line errors for outputs that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cs285.infrastructure.errors import UsageError

FILE, FOLDER = "a writable file", "a writable folder"


@contextmanager
def new_file(flag: str, file: Path) -> Iterator[None]:
    """Create a file, so that a run fails before its work; remove it if the work fails.

    A file that is there stays. Raises UsageError: the file is not writable.
    """
    is_new = not file.exists()
    with writing(flag, FILE):
        file.open("a").close()
    try:
        yield
    except BaseException:
        if is_new:
            file.unlink(missing_ok=True)
        raise


@contextmanager
def writing(flag: str, must_be: str) -> Iterator[None]:
    """Turn an OSError into a UsageError that names the flag, its value and what it must be."""
    try:
        yield
    except BrokenPipeError:  # stdout was closed; the error is not about `flag`
        raise
    except OSError as error:
        raise UsageError(f"{flag}: {error.strerror or error}; must be {must_be}") from error
