"""Real transitions: the paths that come in, and the ring that keeps the newest of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.infrastructure.pytorch_util import from_numpy


class Path(NamedTuple):
    """One episode of T steps, float32. Not terminated at the end: cut by the time limit."""

    obs: NDArray[np.float32]  # (T, O)
    acs: NDArray[np.float32]  # (T, A)
    rewards: NDArray[np.float32]  # (T,)
    next_obs: NDArray[np.float32]  # (T, O)
    terminated: NDArray[np.bool_]  # (T,)

    @property
    def length(self) -> int:
        """T, in env steps."""
        return self.rewards.shape[0]


class Transitions(NamedTuple):
    """B transitions as tensors on one device, float32 but `terminated`, which is bool."""

    obs: Tensor  # (B, O)
    acs: Tensor  # (B, A)
    rewards: Tensor  # (B,)
    next_obs: Tensor  # (B, O)
    terminated: Tensor  # (B,)


class ReplayBuffer:
    """A ring of the newest C transitions, preallocated; adding costs what is added, never C."""

    def __init__(
        self, capacity: int, ob_dim: int, ac_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.capacity, self.device = capacity, device
        self._next = 0  # where the next row goes
        self._size = 0
        self._rows = Transitions(
            obs=torch.empty(capacity, ob_dim, device=device),
            acs=torch.empty(capacity, ac_dim, device=device),
            rewards=torch.empty(capacity, device=device),
            next_obs=torch.empty(capacity, ob_dim, device=device),
            terminated=torch.empty(capacity, dtype=torch.bool, device=device),
        )

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Transitions) -> None:
        """Append B rows, overwriting the oldest where the ring is full."""
        count = batch.rewards.shape[0]
        kept = min(count, self.capacity)
        first = self._next + count - kept
        slots = torch.arange(first, first + kept, device=self.device) % self.capacity
        for column, rows in zip(self._rows, batch, strict=True):
            column[slots] = rows[count - kept :].to(self.device)
        self._next = (self._next + count) % self.capacity
        self._size = min(self._size + count, self.capacity)

    def all(self) -> Transitions:
        """Return every row as views, in no promised order."""
        return Transitions(*(column[: self._size] for column in self._rows))

    def state_dict(self) -> dict[str, Any]:
        """Return the filled rows and the ring's position."""
        # Cloned: a view would make torch.save write the whole preallocated column.
        rows = [column.clone() for column in self.all()]
        return {"rows": rows, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError: more rows than capacity."""
        self._size = state["rows"][0].shape[0]
        if self._size > self.capacity:
            raise ValueError(f"{self._size} rows do not fit a replay of {self.capacity}")
        for column, rows in zip(self._rows, state["rows"], strict=True):
            column[: self._size] = rows.to(self.device)
        self._next = state["next"]


def stack_paths(paths: Sequence[Path]) -> Transitions:
    """Concatenate paths into B = sum of T transitions on the CPU."""
    obs, acs, rewards, next_obs, terminated = (
        np.concatenate(column) for column in zip(*paths, strict=True)
    )
    return Transitions(
        from_numpy(obs),
        from_numpy(acs),
        from_numpy(rewards),
        from_numpy(next_obs),
        torch.as_tensor(terminated),
    )
