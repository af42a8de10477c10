"""The buffer of imagined transitions, which records the age of its rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions


class ModelBuffer:
    """A ring buffer of the newest C imagined transitions; ages are in SAC iterations."""

    def __init__(self, capacity: int, ob_dim: int, ac_dim: int, device: torch.device) -> None:
        self._shape = (ob_dim, ac_dim, device)
        self._replay = ReplayBuffer(capacity, *self._shape)
        self._blocks: list[tuple[int, int]] = []  # (created at, rows) per add, oldest first
        self.total_added = 0

    def __len__(self) -> int:
        return len(self._replay)

    @property
    def rows(self) -> Tensor:
        """Every packed row (size, D), in arbitrary order, as a view."""
        return self._replay.rows

    @property
    def last_block(self) -> int:
        """The number of rows in the last `add`."""
        return self._blocks[-1][1] if self._blocks else 0

    def add(self, data: Transitions, now: int) -> None:
        """Append transitions that were imagined at SAC iteration `now`."""
        count = len(data.rewards)
        self._replay.add(data)
        self._blocks.append((now, count))
        self.total_added += count
        self._forget_blocks()

    def resize(self, capacity: int) -> None:
        """Set the capacity; if it changes, this copies the rows that remain."""
        if capacity != self._replay.capacity:
            rows = self._replay.newest_rows(capacity)
            self._replay = ReplayBuffer(capacity, *self._shape)
            self._replay.add_rows(rows)
            self._forget_blocks()

    def _forget_blocks(self) -> None:
        surplus = sum(rows for _, rows in self._blocks) - len(self)
        while len(self._blocks) > 1 and surplus >= self._blocks[0][1]:
            surplus -= self._blocks.pop(0)[1]

    def mean_age(self, now: int) -> float:
        """Return the mean age of the rows at SAC iteration `now`, or 0 without rows."""
        left, total = len(self), 0
        for created, rows in reversed(self._blocks):
            kept = min(rows, left)  # some rows of the oldest block may be overwritten
            total += kept * (now - created)
            left -= kept
        return total / max(len(self), 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the capacity, the rows, their ages, and the ring's position."""
        return {
            "capacity": self._replay.capacity,
            "replay": self._replay.state_dict(),
            "blocks": [list(block) for block in self._blocks],
            "added": self.total_added,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.resize(state["capacity"])
        self._replay.load_state_dict(state["replay"])
        self._blocks = [(created, rows) for created, rows in state["blocks"]]
        self.total_added = state["added"]
