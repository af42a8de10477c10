"""What a collector asks of a policy, and the policy of iteration 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Policy(Protocol):
    """Acts for B environments at once; picklable, so that worker processes can hold a copy."""

    device: torch.device

    def get_action(
        self, obs: NDArray[np.float32], generators: Sequence[torch.Generator]
    ) -> NDArray[np.float32]:
        """obs (B, O) and one generator of `device` per row -> actions (B, A).

        A row depends on its own observation and generator only.
        """
        ...


class RandomPolicy:
    """Uniform actions in the box [ac_low (A,), ac_high (A,)], whatever is observed."""

    def __init__(self, ac_low: NDArray[np.float32], ac_high: NDArray[np.float32]) -> None:
        self.device = torch.device("cpu")
        self.ac_low, self.ac_high = ac_low, ac_high

    def get_action(
        self, obs: NDArray[np.float32], generators: Sequence[torch.Generator]
    ) -> NDArray[np.float32]:
        shape = self.ac_low.shape
        draws = np.stack([torch.rand(shape, generator=g).numpy() for g in generators])
        return self.ac_low + draws * (self.ac_high - self.ac_low)
