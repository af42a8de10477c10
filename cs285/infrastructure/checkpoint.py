"""Checkpoints: written whole or not at all, read without running anything from the file."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from cs285.infrastructure.errors import UsageError

FORMAT = "cs285 checkpoint 4"


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values, nested) to `file`, replacing it only when complete.

    Raises OSError if the disk does not take it; `file` is then what it was.
    """
    buffer = io.BytesIO()  # torch.save hides a full disk behind an error of its own; we do not
    torch.save({"format": FORMAT, "state": state}, buffer)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(buffer.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def load_checkpoint(file: Path, device: torch.device | str) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises UsageError, naming the file, if it is truncated, corrupt, or not one of ours.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UsageError(f"--resume: cannot read {file}: {error.strerror}") from error
    try:
        content = torch.load(io.BytesIO(raw), map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle and unpickler errors of many types
        raise UsageError(
            f"--resume: {file} is truncated, corrupt or not a checkpoint of this program; allowed: "
            "a checkpoint.pt that a run wrote"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"--resume: {file} is not a checkpoint of this program ({FORMAT})")
    return content["state"]
