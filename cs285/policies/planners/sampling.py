"""What the planner's searches draw from, and what they keep from one decision to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cs285.config.planner import PlannerConfig
from cs285.policies.base_policy import Memory
from cs285.policies.planners.colored_noise import noise_basis


@dataclass(frozen=True)
class Search:
    """What a sampler may use: the box (A,) of legal actions, the settings, a memory per env."""

    ac_low: Tensor
    ac_high: Tensor
    config: PlannerConfig
    memories: Sequence[Memory]

    @property
    def candidates(self) -> int:
        """N."""
        return self.config.mpc_num_action_sequences

    @property
    def first_std(self) -> Tensor:
        """The std (H, A) of a first population that is Gaussian."""
        half = (self.ac_high - self.ac_low) / 2
        return (self.config.mpc_init_std * half).expand(self.config.mpc_horizon, -1)

    def uniform(self) -> Tensor:
        """Draw sequences (B, N, H, A) uniformly in the box."""
        shape = (self.candidates, self.config.mpc_horizon, len(self.ac_low))
        device = self.ac_low.device
        draws = [torch.rand(shape, generator=m.generator, device=device) for m in self.memories]
        return torch.addcmul(self.ac_low, torch.stack(draws), self.ac_high - self.ac_low)

    def gaussian(
        self, mean: Tensor, std: Tensor, count: int | None = None, beta: float = 0.0
    ) -> Tensor:
        """Draw sequences (B, N, H, A), or `count` of them, from N(mean, std) of (B, H, A).

        They are clipped to the box. The power of their noise in time falls with frequency^-beta.
        """
        count = self.candidates if count is None else count
        shape = (count, self.config.mpc_horizon, len(self.ac_low))
        device = self.ac_low.device
        draws = [torch.randn(shape, generator=m.generator, device=device) for m in self.memories]
        noise = torch.stack(draws)
        if beta:
            basis = noise_basis(self.config.mpc_horizon, beta).to(noise)
            noise = torch.einsum("bnfa,fh->bnha", noise, basis)
        sequences = torch.addcmul(mean[:, None], noise, std[:, None])
        return sequences.clamp_(self.ac_low, self.ac_high)

    def keep(self, name: str, sequences: Tensor) -> None:
        """Keep sequences (B, ..., H, A) for the next decision of each environment."""
        if self.config.is_warm_started:
            for memory, own in zip(self.memories, sequences, strict=True):
                memory.kept[name] = own.clone()

    def recall(self, name: str, otherwise: Tensor) -> Tensor:
        """Return what was kept, moved on by a step with its last action repeated.

        (B, ..., H, A); a row of `otherwise`, of the same shape, where nothing is: at an episode's
        start.
        """
        rows = [
            moved_on(memory.kept[name]) if name in memory.kept else own
            for memory, own in zip(self.memories, otherwise, strict=True)
        ]
        return torch.stack(rows)

    def recall_mean(self) -> Tensor:
        """Return the last decision's mean, moved on by a step; the box's centre at first."""
        centre = (self.ac_low + self.ac_high) / 2
        return self.recall("mean", centre.expand(len(self.memories), self.config.mpc_horizon, -1))


def moved_on(sequences: Tensor) -> Tensor:
    """Return sequences (..., H, A) from their second step on, the last action repeated."""
    return torch.cat([sequences[..., 1:, :], sequences[..., -1:, :]], -2)
