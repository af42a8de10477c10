"""Real transitions: the paths that collectors return, and the replay buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import from_numpy

REPLAY_CAPACITY = 1_000_000  # real transitions that an agent keeps


class Path(NamedTuple):
    """An episode of T env steps, or a piece of an episode.

    If the last step is not terminated, the time limit truncated the episode, or a later path
    continues it.
    """

    obs: NDArray[np.float32]  # (T, O)
    acs: NDArray[np.float32]  # (T, A)
    rewards: NDArray[np.float32]  # (T,)
    next_obs: NDArray[np.float32]  # (T, O)
    terminated: NDArray[np.bool_]  # (T,)
    is_continuation: bool = False  # of the episode in the previous path

    @property
    def length(self) -> int:
        """The number of env steps T."""
        return self.rewards.shape[0]

    @property
    def total_reward(self) -> float:
        """The undiscounted return."""
        return float(self.rewards.sum(dtype=np.float64))


class Transitions(NamedTuple):
    """B transitions as tensors on one device: `terminated` is bool, the others are float32."""

    obs: Tensor  # (B, O)
    acs: Tensor  # (B, A)
    rewards: Tensor  # (B,)
    next_obs: Tensor  # (B, O)
    terminated: Tensor  # (B,)

    def each(self, change: Callable[[Tensor], Tensor]) -> Transitions:
        """Return transitions with `change` applied to each column."""
        return Transitions(*map(change, self))

    def between(self, start: int, end: int) -> Transitions:
        """Return the transitions from row `start` to the row before `end`."""
        return self.each(lambda column: column[start:end])


def pack(batch: Transitions) -> Tensor:
    """Return B transitions as packed rows (B, D) with D = 2O + A + 2.

    The columns are obs, acs, next_obs, rewards, terminated.
    """
    columns = (batch.rewards[:, None], batch.terminated[:, None].float())
    return torch.cat([batch.obs, batch.acs, batch.next_obs, *columns], -1)


def unpack(rows: Tensor, ob_dim: int, ac_dim: int) -> Transitions:
    """Return packed rows (B, D) as transitions: views, except for `terminated`."""
    obs, acs, next_obs, rewards, terminated = rows.split([ob_dim, ac_dim, ob_dim, 1, 1], -1)
    return Transitions(obs, acs, rewards[..., 0], next_obs, terminated[..., 0] > 0)


class ReplayBuffer:
    """A ring buffer of the newest C transitions; adding B rows costs O(B), not O(C).

    Its memory grows with its content, up to C rows.

    Transitions are stored as packed rows, so that a batch is one gather from one tensor. The
    buffer also stores the episode number of each row, which `sample_sequences` uses.
    """

    def __init__(
        self, capacity: int, ob_dim: int, ac_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.capacity, self.ob_dim, self.ac_dim, self.device = capacity, ob_dim, ac_dim, device
        self.next_row = 0  # index of the next row to write
        self._size = 0
        self._rows = torch.empty(0, 2 * ob_dim + ac_dim + 2, device=device)
        self._episodes = torch.empty(0, dtype=torch.int32)
        self._last_episode = -1

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Transitions, paths: Sequence[Path] = ()) -> None:
        """Append B transitions, overwriting the oldest ones if the ring is full.

        `paths` are the paths of these transitions, in order. Without `paths`, the transitions
        count as one episode.
        """
        self.add_rows(pack(batch), paths)

    def add_rows(self, rows: Tensor, paths: Sequence[Path] = ()) -> None:
        """Append packed rows (B, D); `paths` is the same as in `add`."""
        self._reserve(min(self._size + len(rows), self.capacity))
        first = self.next_row + max(len(rows) - self.capacity, 0)
        kept = rows[-self.capacity :].to(self.device)
        slots = torch.arange(first, first + len(kept), device=self.device) % self.capacity
        self._rows[slots] = kept
        slots = torch.arange(first, first + len(kept)) % self.capacity
        self._episodes[slots] = self._number_episodes(len(rows), paths)[-self.capacity :]
        self.next_row = (self.next_row + len(rows)) % self.capacity
        self._size = min(self._size + len(rows), self.capacity)

    def _reserve(self, rows: int) -> None:
        """Make room for a number of rows; doubling the room keeps the copies rare."""
        room = len(self._rows)
        if rows > room:
            more = min(max(rows, 2 * room), self.capacity) - room
            self._rows = torch.cat([self._rows, self._rows.new_empty(more, self._rows.shape[1])])
            self._episodes = torch.cat([self._episodes, self._episodes.new_empty(more)])

    @property
    def rows(self) -> Tensor:
        """Every packed row (size, D), in arbitrary order, as a view."""
        return self._rows[: self._size]

    def all(self) -> Transitions:
        """Return every transition, in arbitrary order."""
        return unpack(self.rows, self.ob_dim, self.ac_dim)

    def newest(self, count: int) -> Transitions:
        """Return the `count` newest transitions, or all if there are fewer."""
        return unpack(self.newest_rows(count), self.ob_dim, self.ac_dim)

    def newest_rows(self, count: int) -> Tensor:
        """Return the `count` newest packed rows, or all if there are fewer, oldest first."""
        first = self.next_row - min(count, self._size)
        slots = torch.arange(first, self.next_row, device=self.device) % self.capacity
        return self._rows[slots]

    def restore_ring(self, count: int, first: int) -> None:
        """Keep the `count` newest rows, as they were in another buffer of the same capacity.

        If it was full, its oldest row was at index `first`, and later rows must overwrite the same
        rows as there.
        """
        rows = self.newest_rows(count)
        self.next_row = first if len(rows) == self.capacity else len(rows)
        self._rows, self._size = rows.roll(self.next_row, 0), len(rows)
        self._episodes = torch.zeros(len(rows), dtype=torch.int32)

    def sample_sequences(
        self, shape: Sequence[int], length: int, generator: torch.Generator
    ) -> Tensor:
        """Return indices (*shape, length) into `rows` of random sequences.

        A sequence is `length` consecutive steps of one episode. All sequences are equally likely.
        Raises UsageError: no episode has `length` steps.
        """
        oldest = self.next_row if self._size == self.capacity else 0
        order = (torch.arange(self._size) + oldest) % self.capacity
        episodes = self._episodes[order]
        firsts = torch.arange(max(self._size - length + 1, 0))
        firsts = firsts[episodes[firsts] == episodes[firsts + length - 1]]
        if len(firsts) == 0:
            raise UsageError(
                f"no episode has {length} steps; must be collected, because the model is fitted to "
                f"sequences of {length}"
            )
        chosen = firsts[torch.randint(len(firsts), tuple(shape), generator=generator)]
        return order[chosen[..., None] + torch.arange(length)]

    def _number_episodes(self, count: int, paths: Sequence[Path]) -> Tensor:
        """Return the episode number (count,) of each new row."""
        lengths = torch.tensor([path.length for path in paths] or [count])
        begins = torch.tensor([not path.is_continuation for path in paths] or [True])
        numbers = self._last_episode + begins.cumsum(0)
        self._last_episode = int(numbers[-1])
        return numbers.repeat_interleave(lengths).int()

    def state_dict(self) -> dict[str, Any]:
        """Return the filled rows and the ring's position; a full ring is not copied."""
        # torch.save writes the whole storage of a view, so the filled rows need a copy.
        is_full = self._size == self.capacity
        return {
            "rows": self._rows if is_full else self.rows.clone(),
            "episodes": self._episodes[: self._size].clone(),
            "last_episode": self._last_episode,
            "next": self.next_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError: it does not fit this buffer."""
        rows = state["rows"]
        if len(rows) > self.capacity or rows.shape[1:] != self._rows.shape[1:]:
            raise ValueError(
                f"rows {tuple(rows.shape)} do not fit into a replay buffer of {self.capacity} rows "
                f"with {self._rows.shape[1]} columns"
            )
        if state["episodes"].shape != rows.shape[:1] or not 0 <= state["next"] <= len(rows):
            raise ValueError("the replay buffer's episodes or position do not match its rows")
        self._reserve(len(rows))
        self._size, self.next_row = len(rows), state["next"]
        self._rows[: self._size] = rows.to(self.device)
        self._episodes[: self._size] = state["episodes"].cpu()
        self._last_episode = state["last_episode"]


def stack_paths(paths: Sequence[Path]) -> Transitions:
    """Concatenate paths into B transitions on the CPU; B is the sum of the path lengths T."""
    columns = [np.concatenate(column) for column in zip(*(path[:5] for path in paths), strict=True)]
    obs, acs, rewards, next_obs = map(from_numpy, columns[:4])
    return Transitions(obs, acs, rewards, next_obs, torch.as_tensor(columns[4]))
