"""What a collector asks of a policy, and the policy of iteration 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass
class Memory:
    """What a policy has of one running episode."""

    generator: torch.Generator  # of its draws, on the policy's device
    # What a decision leaves for the next one: plans of a warm start, states of a model with memory.
    kept: dict[str, Tensor] = field(default_factory=dict)


class Policy(Protocol):
    """Acts for B environments at once; picklable, so that worker processes can hold a copy."""

    device: torch.device

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """obs (B, O) and the memory of each row's episode -> actions (B, A).

        A row depends on its own observation and memory only.
        """
        ...


def is_planner(policy: Policy) -> bool:
    """Return whether the policy makes plans, as MPCPolicy.plan does."""
    return hasattr(policy, "plan")


class RandomPolicy:
    """Uniform actions in the box [ac_low (A,), ac_high (A,)], whatever is observed."""

    def __init__(self, ac_low: NDArray[np.float32], ac_high: NDArray[np.float32]) -> None:
        self.device = torch.device("cpu")
        self.ac_low, self.ac_high = ac_low, ac_high

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        shape = self.ac_low.shape
        draws = np.stack([torch.rand(shape, generator=m.generator).numpy() for m in memories])
        return self.ac_low + draws * (self.ac_high - self.ac_low)
