"""What the planners draw from, what they keep from one decision to the next, and their elites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cs285.config.planner import PlannerConfig
from cs285.policies.base_policy import Memory

Returns = Callable[[Tensor], Tensor]  # sequences (B, N, H, A) -> returns (B, N)


@dataclass(frozen=True)
class SamplingContext:
    """What a planner may use in a decision of B environments: the settings, and draws."""

    ac_low: Tensor  # (A,), of the box of legal actions
    ac_high: Tensor  # (A,)
    config: PlannerConfig
    memories: Sequence[Memory]  # one per environment
    proposals: Tensor | None = None  # (B, M, H, A), of a policy prior

    @property
    def candidates(self) -> int:
        """N, the sequences to draw for a population."""
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

    def noise(self, count: int) -> Tensor:
        """Draw standard normal noise (B, count, H, A)."""
        shape = (count, self.config.mpc_horizon, len(self.ac_low))
        device = self.ac_low.device
        draws = [torch.randn(shape, generator=m.generator, device=device) for m in self.memories]
        return torch.stack(draws)

    def around(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """Return mean + std * noise, clipped to the box: (B, H, A) twice, and (B, N, H, A)."""
        sequences = torch.addcmul(mean[:, None], noise, std[:, None])
        return sequences.clamp_(self.ac_low, self.ac_high)

    def gaussian(self, mean: Tensor, std: Tensor) -> Tensor:
        """Draw sequences (B, N, H, A) from N(mean, std) of (B, H, A), clipped to the box."""
        return self.around(mean, std, self.noise(self.candidates))

    def with_proposals(self, sequences: Tensor) -> Tensor:
        """Return sequences (B, N, H, A) and after them those that a policy prior proposes."""
        if self.proposals is None:
            return sequences
        return torch.cat([sequences, self.proposals.clamp(self.ac_low, self.ac_high)], 1)

    def keep(self, name: str, sequences: Tensor) -> None:
        """Keep sequences (B, ..., H, A) for the next decision of each environment."""
        if self.config.is_warm_started:
            for memory, own in zip(self.memories, sequences, strict=True):
                memory.kept[name] = own.clone()

    def recall(self, name: str, otherwise: Tensor) -> Tensor:
        """Return what was kept, moved on by a step, (B, ..., H, A).

        At an episode's start nothing is: a row of `otherwise`, of the same shape, takes its place.
        """
        rows = [
            shifted(memory.kept[name]) if name in memory.kept else own
            for memory, own in zip(self.memories, otherwise, strict=True)
        ]
        return torch.stack(rows)

    def recall_mean(self) -> Tensor:
        """Return the last decision's mean (B, H, A), moved on by a step, or the box's centre."""
        centre = (self.ac_low + self.ac_high) / 2
        return self.recall("mean", centre.expand(len(self.memories), self.config.mpc_horizon, -1))


Planner = Callable[[Returns, SamplingContext], Tensor]  # -> the best plans (B, H, A)


def shifted(sequences: Tensor) -> Tensor:
    """Return sequences (..., H, A) from their second step on, the last action repeated."""
    return torch.cat([sequences[..., 1:, :], sequences[..., -1:, :]], -2)


def best_sequences(returns_of: Returns, sequences: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best of (B, N, H, A), (B, count, H, A), best first, and their weights (B, count).

    Weights are equal and sum to 1, but a sequence whose return is not finite has weight 0; such
    sequences are among the best only where fewer than `count` others are left. Where no other is
    left, the weights are NaN.
    """
    top = rank_non_finite_last(returns_of(sequences)).topk(count, dim=1)
    rows = torch.arange(len(sequences), device=sequences.device)[:, None]
    weights = top.values.isfinite().float()
    return sequences[rows, top.indices], weights / weights.sum(1, keepdim=True)


def elite_statistics(
    returns_of: Returns, sequences: Tensor, num_elites: int
) -> tuple[Tensor, Tensor]:
    """Return mean and std, (B, H, A) each, of the best sequences of (B, N, H, A).

    A candidate whose return is not finite is never an elite, even if fewer than `num_elites` are
    left; where none is left the result is NaN.
    """
    return weighted_statistics(*best_sequences(returns_of, sequences, num_elites))


def weighted_statistics(sequences: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std, (B, H, A) each, of (B, n, H, A) with weights (B, n)."""
    weights = weights[..., None, None]
    mean = (weights * sequences).sum(1)
    variance = (weights * (sequences - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


def best_or_nan(best: Tensor, weights: Tensor) -> Tensor:
    """Return the first (B, H, A) of `best_sequences`, NaN where no return was finite."""
    return torch.where(weights[:, 0].isfinite()[:, None, None], best[:, 0], torch.nan)


def rank_non_finite_last(returns: Tensor) -> Tensor:
    """Return (B, N) with -inf for every return that is not finite, also for +inf."""
    return torch.where(returns.isfinite(), returns, -torch.inf)
