"""Checkpoints: writing is atomic, and reading never runs code from the file."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cs285.infrastructure.errors import UsageError

FORMAT = "cs285 checkpoint 5"


class _Sink:
    """A file that stores its first write error, because torch.save would hide the error.

    Writes go straight to the disk, because a checkpoint with a model buffer may be gigabytes large.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self.stream.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing: `save_checkpoint` flushes the stream."""


@contextlib.contextmanager
def _delayed_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the block ends: it would abort the process in torch's C++ writer."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python raises KeyboardInterrupt only in the main thread
        return
    received: list[Any] = []
    handler = signal.signal(signal.SIGINT, lambda *arguments: received.extend(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received and callable(handler):
            handler(*received[:2])


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write `state` (nested tensors and plain values) to `file`, atomically.

    An interrupt takes effect after the write. Raises OSError: the disk is full or not writable;
    `file` then keeps its old content.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with _delayed_interrupts(), temporary.open("wb") as stream:
            sink = _Sink(stream)
            torch.save({"format": FORMAT, "state": state}, sink)  # type: ignore[arg-type]
            if sink.error is not None:
                raise sink.error
            stream.flush()
            os.fsync(stream.fileno())
            temporary.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def load_checkpoint(
    file: Path, device: torch.device | str, lazily: bool = False, argument: str = "--resume"
) -> dict[str, Any]:
    """Read the state that `save_checkpoint` wrote; `lazily` reads a tensor only when it is used.

    An error names the folder as the value of `argument`. Raises UsageError: `file` is unreadable,
    truncated, corrupt, or not a checkpoint of this format.
    """
    try:
        file.open("rb").close()
    except OSError as error:
        raise UsageError(
            f"{argument} {file.parent}: cannot read its {file.name} ({error.strerror}); must be "
            "the log folder of a run with a checkpoint"
        ) from error
    try:
        content = torch.load(file, map_location=device, weights_only=True, mmap=lazily)
    except Exception as error:  # torch.load raises errors of many types
        raise UsageError(
            f"{argument} {file.parent}: its {file.name} is truncated, corrupt or not a cs285 "
            "checkpoint; must be the log folder of a run with an intact checkpoint"
        ) from error
    written = content.get("format", "no format") if isinstance(content, dict) else "no format"
    if written != FORMAT:
        raise UsageError(
            f"{argument} {file.parent}: its {file.name} is from another version ({written}); must "
            f"be a {FORMAT}; to use this run, check out the commit in its config.json"
        )
    return content["state"]
