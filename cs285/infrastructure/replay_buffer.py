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
    """One episode of T steps, float32, or a piece of one that an earlier path began.

    Not terminated at the end: cut by the time limit, or to go on in a later path.
    """

    obs: NDArray[np.float32]  # (T, O)
    acs: NDArray[np.float32]  # (T, A)
    rewards: NDArray[np.float32]  # (T,)
    next_obs: NDArray[np.float32]  # (T, O)
    terminated: NDArray[np.bool_]  # (T,)
    goes_on: bool = False  # from the path before it

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

    Transitions are kept as packed rows: a batch is then one gather from one tensor. With each row
    goes the number of its episode, by which sequences are sampled.
    """

    def __init__(
        self, capacity: int, ob_dim: int, ac_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.capacity, self.ob_dim, self.ac_dim, self.device = capacity, ob_dim, ac_dim, device
        self._next = 0  # where the next row goes
        self._size = 0
        self._rows = torch.empty(capacity, 2 * ob_dim + ac_dim + 2, device=device)
        self._episodes = torch.empty(capacity, dtype=torch.int32)
        self._last_episode = -1

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Transitions, paths: Sequence[Path] = ()) -> None:
        """Append B transitions, overwriting the oldest where the ring is full.

        They are those of `paths`, one after the other, or without any those of one episode.
        """
        self.add_rows(pack(batch), paths)

    def add_rows(self, rows: Tensor, paths: Sequence[Path] = ()) -> None:
        """Append packed rows (B, D); see `add`."""
        first = self._next + max(len(rows) - self.capacity, 0)
        kept = rows[-self.capacity :].to(self.device)
        slots = torch.arange(first, first + len(kept), device=self.device) % self.capacity
        self._rows[slots] = kept
        slots = torch.arange(first, first + len(kept)) % self.capacity
        self._episodes[slots] = self._number_episodes(len(rows), paths)[-self.capacity :]
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

    def sample_sequences(
        self, shape: Sequence[int], length: int, generator: torch.Generator
    ) -> Tensor:
        """Return the numbers of the rows of random sequences, (*shape, length).

        Each is of `length` steps in a row of one episode. Raises ValueError: no episode is that
        long.
        """
        oldest = self._next if self._size == self.capacity else 0
        order = (torch.arange(self._size) + oldest) % self.capacity
        episodes = self._episodes[order]
        firsts = torch.arange(max(self._size - length + 1, 0))
        firsts = firsts[episodes[firsts] == episodes[firsts + length - 1]]
        if len(firsts) == 0:
            raise ValueError(f"no episode has {length} steps")
        chosen = firsts[torch.randint(len(firsts), tuple(shape), generator=generator)]
        return order[chosen[..., None] + torch.arange(length)]

    def _number_episodes(self, count: int, paths: Sequence[Path]) -> Tensor:
        """Return the number of the episode of each of `count` new rows."""
        lengths = torch.tensor([path.length for path in paths] or [count])
        begins = torch.tensor([not path.goes_on for path in paths] or [True])
        numbers = self._last_episode + begins.cumsum(0)
        self._last_episode = int(numbers[-1])
        return numbers.repeat_interleave(lengths).int()

    def state_dict(self) -> dict[str, Any]:
        """Return the filled rows, not a copy where the ring is full, and the ring's position."""
        # Of a view torch.save would write the whole ring.
        is_full = self._size == self.capacity
        return {
            "rows": self._rows if is_full else self.rows.clone(),
            "episodes": self._episodes[: self._size].clone(),
            "last_episode": self._last_episode,
            "next": self._next,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError: more rows than capacity."""
        rows = state["rows"]
        if len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} rows do not fit a replay of {self.capacity}")
        self._size, self._next = len(rows), state["next"]
        self._rows[: self._size] = rows.to(self.device)
        self._episodes[: self._size] = state["episodes"].cpu()
        self._last_episode = state["last_episode"]


def stack_paths(paths: Sequence[Path]) -> Transitions:
    """Concatenate paths into B = sum of T transitions on the CPU."""
    columns = [np.concatenate(column) for column in zip(*(path[:5] for path in paths), strict=True)]
    obs, acs, rewards, next_obs = map(from_numpy, columns[:4])
    return Transitions(obs, acs, rewards, next_obs, torch.as_tensor(columns[4]))
