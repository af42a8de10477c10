"""The interface of a policy for the collectors, and the random policy of iteration 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass
class Memory:
    """What a policy remembers during one episode."""

    generator: torch.Generator  # draws the policy's random numbers, on the policy's device
    # Tensors for the next decision: plans for a warm start, states of a model with memory.
    kept: dict[str, Tensor] = field(default_factory=dict)


def draw_each(
    memories: Sequence[Memory],
    function: Callable[..., Tensor],
    shape: Sequence[int],
    device: torch.device,
    dim: int = 0,
) -> Tensor:
    """Draw a tensor of `shape` with the generator of each memory, and stack them along `dim`.

    `function` is torch.rand or torch.randn. A row does not depend on the other memories.
    """
    draws = [function(shape, generator=m.generator, device=device) for m in memories]
    return torch.stack(draws, dim)


class Policy(Protocol):
    """Acts in B environments at once. Must be picklable, because worker processes get copies."""

    device: torch.device

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """Return the actions (B, A) for obs (B, O) and the memory of each row's episode.

        Each action must depend only on its own observation and memory.
        """
        ...


def is_planner(policy: Policy) -> bool:
    """Return whether the policy has a `plan` method, like MPCPolicy."""
    return hasattr(policy, "plan")


class RandomPolicy:
    """Draws uniform actions in the box [ac_low (A,), ac_high (A,)] and ignores observations."""

    def __init__(self, ac_low: NDArray[np.float32], ac_high: NDArray[np.float32]) -> None:
        self.device = torch.device("cpu")
        self.ac_low, self.ac_high = ac_low, ac_high

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        draws = draw_each(memories, torch.rand, self.ac_low.shape, self.device).numpy()
        return self.ac_low + draws * (self.ac_high - self.ac_low)
