"""Real transitions: the paths that come in, and the ring that keeps the newest of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.infrastructure.pytorch_util import from_numpy

REPLAY_CAPACITY = 1_000_000  # real transitions that an agent keeps


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

    @property
    def total_reward(self) -> float:
        """The undiscounted return."""
        return float(self.rewards.sum(dtype=np.float64))


class Transitions(NamedTuple):
    """B transitions as tensors on one device, float32 but `terminated`, which is bool."""

    obs: Tensor  # (B, O)
    acs: Tensor  # (B, A)
    rewards: Tensor  # (B,)
    next_obs: Tensor  # (B, O)
    terminated: Tensor  # (B,)


def pack(batch: Transitions) -> Tensor:
    """Return B transitions as rows (B, D) of D = 2O + A + 2 numbers, in this order."""
    columns = (batch.rewards[:, None], batch.terminated[:, None].float())
    return torch.cat([batch.obs, batch.acs, batch.next_obs, *columns], -1)


def unpack(rows: Tensor, ob_dim: int, ac_dim: int) -> Transitions:
    """Return packed rows (B, D) as transitions: views, but for `terminated`."""
    obs, acs, next_obs, rewards, terminated = rows.split([ob_dim, ac_dim, ob_dim, 1, 1], -1)
    return Transitions(obs, acs, rewards[..., 0], next_obs, terminated[..., 0] > 0)


class ReplayBuffer:
    """A ring of the newest C transitions, preallocated; adding costs what is added, never C.

    Transitions are kept as packed rows: a batch is then one gather from one tensor.
    """

    def __init__(
        self, capacity: int, ob_dim: int, ac_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.capacity, self.ob_dim, self.ac_dim, self.device = capacity, ob_dim, ac_dim, device
        self._next = 0  # where the next row goes
        self._size = 0
        self._rows = torch.empty(capacity, 2 * ob_dim + ac_dim + 2, device=device)

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Transitions) -> None:
        """Append B transitions, overwriting the oldest where the ring is full."""
        self.add_rows(pack(batch))

    def add_rows(self, rows: Tensor) -> None:
        """Append packed rows (B, D)."""
        first = self._next + max(len(rows) - self.capacity, 0)
        kept = rows[-self.capacity :].to(self.device)
        slots = torch.arange(first, first + len(kept), device=self.device) % self.capacity
        self._rows[slots] = kept
        self._next = (self._next + len(rows)) % self.capacity
        self._size = min(self._size + len(rows), self.capacity)

    @property
    def rows(self) -> Tensor:
        """Every packed row, (size, D), in no promised order: a view."""
        return self._rows[: self._size]

    def all(self) -> Transitions:
        """Return every row, in no promised order."""
        return unpack(self.rows, self.ob_dim, self.ac_dim)

    def newest(self, count: int) -> Transitions:
        """Return the `count` rows that were added last, or all if there are fewer."""
        return unpack(self.newest_rows(count), self.ob_dim, self.ac_dim)

    def newest_rows(self, count: int) -> Tensor:
        """Return the same as packed rows, oldest first."""
        first = self._next - min(count, self._size)
        slots = torch.arange(first, self._next, device=self.device) % self.capacity
        return self._rows[slots]

    def state_dict(self) -> dict[str, Any]:
        """Return the filled rows, not a copy where the ring is full, and the ring's position."""
        # Of a view torch.save would write the whole ring.
        is_full = self._size == self.capacity
        return {"rows": self._rows if is_full else self.rows.clone(), "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError: more rows than capacity."""
        rows = state["rows"]
        if len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} rows do not fit a replay of {self.capacity}")
        self._size, self._next = len(rows), state["next"]
        self._rows[: self._size] = rows.to(self.device)


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
