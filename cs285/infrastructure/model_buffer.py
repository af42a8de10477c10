"""The buffer of imagined transitions, which records the age of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions

Recipe: TypeAlias = dict[str, Any]


class Block(NamedTuple):
    """The rows of one `add`."""

    created: int  # SAC iteration
    rows: int
    recipe: Recipe | None = None  # tensors and numbers that determine the rows


class ModelBuffer:
    """A ring buffer of the newest C imagined transitions; ages are in SAC iterations."""

    def __init__(self, capacity: int, ob_dim: int, ac_dim: int, device: torch.device) -> None:
        self._shape = (ob_dim, ac_dim, device)
        self._replay = ReplayBuffer(capacity, *self._shape)
        self._blocks: list[Block] = []  # oldest first
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
        return self._blocks[-1].rows if self._blocks else 0

    def add(self, data: Transitions, now: int, recipe: Recipe | None = None) -> None:
        """Append transitions that were imagined at SAC iteration `now`.

        A checkpoint holds their `recipe` instead of the transitions, if there is one.
        """
        count = len(data.rewards)
        self._replay.add(data)
        self._blocks.append(Block(now, count, recipe))
        self.total_added += count
        self._forget_blocks()

    def resize(self, capacity: int) -> None:
        """Set the capacity; if it changes, this copies the rows that remain."""
        if capacity != self._replay.capacity:
            rows = self._replay.newest_rows(capacity)
            self._replay = ReplayBuffer(capacity, *self._shape)
            self._replay.add_rows(rows)
            self._forget_blocks()

    def clear(self) -> None:
        """Remove all rows; `total_added` still counts them."""
        self._replay = ReplayBuffer(self._replay.capacity, *self._shape)
        self._blocks = []

    def _forget_blocks(self) -> None:
        surplus = sum(block.rows for block in self._blocks) - len(self)
        while len(self._blocks) > 1 and surplus >= self._blocks[0].rows:
            surplus -= self._blocks.pop(0).rows

    def mean_age(self, now: int) -> float:
        """Return the mean age of the rows at SAC iteration `now`, or 0 without rows."""
        left, total = len(self), 0
        for block in reversed(self._blocks):
            kept = min(block.rows, left)  # some rows of the oldest block may be overwritten
            total += kept * (now - block.created)
            left -= kept
        return total / max(len(self), 1)

    def state_dict(self, recipes_hold: bool = True) -> dict[str, Any]:
        """Return the capacity, the ages, the ring's position, and the rows or their recipes.

        With `recipes_hold` False, the recipes no longer determine the rows.
        """
        recipes = [block.recipe for block in self._blocks]
        stores_rows = None in recipes or not recipes_hold
        return {
            "capacity": self._replay.capacity,
            "replay": self._replay.state_dict() if stores_rows else None,
            "recipes": None if stores_rows else recipes,
            "size": len(self),
            "next": self._replay.next_row,
            "blocks": [[block.created, block.rows] for block in self._blocks],
            "added": self.total_added,
        }

    def load_state_dict(
        self, state: dict[str, Any], follow: Callable[[Recipe], Transitions]
    ) -> None:
        """Restore what `state_dict` returned; `follow` imagines the rows of a recipe again."""
        self._replay = ReplayBuffer(state["capacity"], *self._shape)
        recipes = state["recipes"]
        if recipes is None:
            self._replay.load_state_dict(state["replay"])
            recipes = [None] * len(state["blocks"])
        else:
            for recipe in recipes:
                self._replay.add(follow(recipe))
            self._replay.restore_ring(state["size"], state["next"])
        pairs = zip(state["blocks"], recipes, strict=True)
        self._blocks = [Block(created, rows, recipe) for (created, rows), recipe in pairs]
        self.total_added = state["added"]
