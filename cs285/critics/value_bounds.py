"""Bounds of the values that a critic can have, for scaling and clipping."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = (0.01, 0.99)  # of the quantiles of the rewards
LEAST_WIDTH = 1.0  # half-width; keeps values learnable if all rewards are equal


class ValueBounds(nn.Module):
    """Two bounds that follow the quantiles of the rewards.

    If all rewards of an episode without end were equal to r, its value would be r / (1 - discount).
    The bounds are quantiles of this value. Kubo et al. 2025, arXiv:2512.15439. Once an episode has
    terminated, they include 0, the value of a termination: with a higher lower bound, states before
    a termination would seem better than they are.
    """

    bounds: Tensor
    is_set: Tensor
    has_end: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("bounds", torch.zeros(2))  # lower, upper
        self.register_buffer("is_set", torch.tensor(False))
        self.register_buffer("has_end", torch.tensor(False))  # an episode has terminated

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}has_end", torch.tensor(False))  # old checkpoints lack it
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def follow(
        self, rewards: Tensor, discount: float, terminated: Tensor, valid: Tensor | None = None
    ) -> None:
        """Move the bounds by the rate towards the quantiles of `rewards` (B,) / (1 - discount).

        The first call sets the bounds to the quantiles. `terminated` (B,), bool: the episode of the
        row ends. Only `valid` (B,) rows count; without a valid row, nothing changes.
        """
        levels = torch.tensor(LEVELS, device=rewards.device, dtype=rewards.dtype)
        if valid is None:
            valid = torch.ones_like(rewards, dtype=torch.bool)
        quantiles = torch.nanquantile(rewards.masked_fill(~valid, torch.nan), levels)
        bounds = quantiles / (1 - discount)
        moved = torch.where(self.is_set, self.bounds.lerp(bounds, self.rate), bounds)
        self.has_end.logical_or_((terminated & valid).any())
        with_zero = torch.stack([moved[0].clamp(max=0), moved[1].clamp(min=0)])
        moved = torch.where(self.has_end, with_zero, moved)
        self.bounds.copy_(torch.where(valid.any(), moved, self.bounds))
        self.is_set.logical_or_(valid.any())

    def scale(self, outputs: Tensor) -> Tensor:
        """Map outputs (...) of a network to values: 0 to the centre, 1 to the upper bound."""
        low, high = self.bounds.clone()  # a later `follow` does not change what autograd saved
        return outputs * ((high - low) / 2).clamp(min=LEAST_WIDTH) + (high + low) / 2

    def clip(self, values: Tensor) -> Tensor:
        """Limit values (...) to the bounds."""
        low, high = self.bounds
        return values.clamp(low, high)
