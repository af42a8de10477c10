"""Checkpoints: written whole or not at all, read without running anything from the file."""

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
    """A file that keeps its first error to itself: torch.save would hide it behind one of its own.

    A checkpoint is written as it is made, since one with a model buffer may be gigabytes.
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
        """Do nothing: `save_checkpoint` flushes."""


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Have Ctrl-C take effect after the block: within torch's writer in C++ it would abort us."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python raises none
        return
    came: list[Any] = []
    handler = signal.signal(signal.SIGINT, lambda *signal_and_frame: came.extend(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came and callable(handler):
            handler(*came[:2])


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values, nested) to `file`, replacing it only when complete.

    Raises OSError if the disk does not take it; `file` is then what it was. An interrupt waits.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with _interrupts_held_back(), temporary.open("wb") as stream:
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


def load_checkpoint(file: Path, device: torch.device | str, lazily: bool = False) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; its tensors, if `lazily`, only where they are looked at.

    Raises UsageError, naming the file, if it is truncated, corrupt, or not one of ours.
    """
    try:
        file.open("rb").close()
    except OSError as error:
        raise UsageError(f"--resume: cannot read {file}: {error.strerror}") from error
    try:
        content = torch.load(file, map_location=device, weights_only=True, mmap=lazily)
    except Exception as error:  # zip, pickle and unpickler errors of many types
        raise UsageError(
            f"--resume: {file} is truncated, corrupt or not a checkpoint of this program; allowed: "
            "a checkpoint.pt that a run wrote"
        ) from error
    written = content.get("format", "no format") if isinstance(content, dict) else "no format"
    if written != FORMAT:
        raise UsageError(
            f"--resume: {file} is of another version ({written}); allowed: a {FORMAT}, or this run "
            "by the version that wrote it (config.json has its commit)"
        )
    return content["state"]
