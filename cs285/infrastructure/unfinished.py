"""The state of a long computation within an iteration, kept for a resumed run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from cs285.infrastructure.checkpoint import load_checkpoint, save_checkpoint
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.run_folder import UNFINISHED, run_id


class Unfinished:
    """One file in the log folder of a run. A checkpoint has complete iterations only.

    A run that continues without the file computes the same numbers, but takes longer. So a file
    that is missing, damaged or of another iteration is no error, and neither is a full disk.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.file, self.device, self.owner = folder / UNFINISHED, device, run_id(folder)

    def read(self, iteration: int) -> Any:
        """Return the last state that was written in this iteration of the run, or None."""
        if not self.file.exists():
            return None
        try:
            content = load_checkpoint(self.file, self.device, owner=self.owner)
        except UsageError:
            return None
        return content["state"] if content["iteration"] == iteration else None

    def write(self, iteration: int, state: Any) -> None:
        """Replace the file; `state` is nested lists of tensors and plain values."""
        with contextlib.suppress(OSError):
            save_checkpoint(self.file, {"iteration": iteration, "state": state}, self.owner)

    def remove(self) -> None:
        """Delete the file, if there is one."""
        with contextlib.suppress(OSError):
            self.file.unlink()
