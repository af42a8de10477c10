"""Replace a file in one step, so that no reader and no crash meets half of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(file: Path, mode: str = "w") -> Iterator[Any]:
    """Open a temporary file next to `file`, which replaces it when the block has succeeded.

    `mode` is "w" (text) or "wb" (bytes).

    Raises OSError: the disk is full or not writable; `file` then keeps its old content.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open(mode, newline="" if mode == "w" else None) as stream:
            yield stream
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
