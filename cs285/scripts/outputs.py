"""One-line errors for outputs that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cs285.infrastructure.errors import UsageError

FILE, FOLDER = "a writable file", "a writable folder"


@contextmanager
def writing(flag: str, must_be: str) -> Iterator[None]:
    """Turn an OSError into a UsageError that names the flag, its value and what it must be."""
    try:
        yield
    except BrokenPipeError:  # stdout was closed; the error is not about `flag`
        raise
    except OSError as error:
        raise UsageError(f"{flag}: {error.strerror}; must be {must_be}") from error
