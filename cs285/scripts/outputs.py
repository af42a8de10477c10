"""One line of error for an output that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cs285.infrastructure.errors import UsageError

FILE, FOLDER = "a file that can be written", "a folder that can be written to"


@contextmanager
def writing(flag: str, allowed: str) -> Iterator[None]:
    """Turn an OSError into a UsageError that names the flag with its value, and what is allowed."""
    try:
        yield
    except BrokenPipeError:  # of stdout
        raise
    except OSError as error:
        raise UsageError(f"{flag}: {error.strerror}; allowed: {allowed}") from error
