"""The parts that planners share: sampling, memory between decisions, and elites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cs285.config.planner import PlannerConfig
from cs285.policies.base_policy import Memory, draw_each

Returns = Callable[[Tensor], Tensor]  # sequences (B, N, H, A) -> returns (B, N)


@dataclass(frozen=True)
class SamplingContext:
    """The settings, random draws and memories for one decision in B environments."""

    ac_low: Tensor  # (A,), lower bounds of the actions
    ac_high: Tensor  # (A,), upper bounds
    config: PlannerConfig
    memories: Sequence[Memory]  # one per environment
    proposals: Tensor | None = None  # (B, any number, H, A), from a policy prior

    @property
    def candidates(self) -> int:
        """N, the number of sequences to draw for a population."""
        return self.config.mpc_num_action_sequences

    @property
    def first_std(self) -> Tensor:
        """The standard deviation (H, A) of the first Gaussian population."""
        half_width = (self.ac_high - self.ac_low) / 2
        return (self.config.mpc_init_std * half_width).expand(self.config.mpc_horizon, -1)

    def uniform(self) -> Tensor:
        """Draw sequences (B, N, H, A) uniformly in the action box."""
        shape = (self.candidates, self.config.mpc_horizon, len(self.ac_low))
        draws = draw_each(self.memories, torch.rand, shape, self.ac_low.device)
        return torch.addcmul(self.ac_low, draws, self.ac_high - self.ac_low)

    def noise(self, count: int) -> Tensor:
        """Draw standard normal noise (B, count, H, A)."""
        shape = (count, self.config.mpc_horizon, len(self.ac_low))
        return draw_each(self.memories, torch.randn, shape, self.ac_low.device)

    def around(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """Return mean + std * noise, (B, N, H, A), clipped to the action box.

        `mean` and `std` are (B, H, A), `noise` (B, N, H, A).
        """
        sequences = torch.addcmul(mean[:, None], noise, std[:, None])
        return sequences.clamp_(self.ac_low, self.ac_high)

    def gaussian(self, mean: Tensor, std: Tensor) -> Tensor:
        """Draw sequences (B, N, H, A) from Gaussians with mean and std (B, H, A), and clip them."""
        return self.around(mean, std, self.noise(self.candidates))

    def with_proposals(self, sequences: Tensor) -> Tensor:
        """Return the sequences (B, N, H, A), followed by the proposals of the policy prior."""
        if self.proposals is None:
            return sequences
        return torch.cat([sequences, self.proposals.clamp(self.ac_low, self.ac_high)], 1)

    def keep(self, name: str, sequences: Tensor) -> None:
        """Keep sequences (B, ..., H, A) for the next decision, if it has a warm start."""
        if self.config.is_warm_started:
            for memory, row in zip(self.memories, sequences, strict=True):
                memory.kept[name] = row.clone()

    def recall(self, name: str, default: Tensor) -> Tensor:
        """Return the kept sequences (B, ..., H, A), shifted by one step.

        An environment for which nothing is kept gets its row of `default` (B, ..., H, A). This
        is the case at the start of an episode, and without a warm start.
        """
        rows = [
            shifted(memory.kept[name]) if name in memory.kept else row
            for memory, row in zip(self.memories, default, strict=True)
        ]
        return torch.stack(rows)

    def recall_mean(self) -> Tensor:
        """Return the previous mean (B, H, A), shifted by one step.

        An environment without a previous mean gets the centre of the action box.
        """
        centre = (self.ac_low + self.ac_high) / 2
        return self.recall("mean", centre.expand(len(self.memories), self.config.mpc_horizon, -1))


Planner = Callable[[Returns, SamplingContext], Tensor]  # -> the best plans (B, H, A)


def shifted(sequences: Tensor) -> Tensor:
    """Return sequences (..., H, A) without their first action, and with the last one repeated."""
    return torch.cat([sequences[..., 1:, :], sequences[..., -1:, :]], -2)


def best_sequences(returns_of: Returns, sequences: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` best sequences (B, count, H, A), best first, and weights (B, count).

    `sequences` are (B, N, H, A). Sequences with a finite return have equal weights that sum to 1.
    The others have weight 0; they are returned only if too few returns are finite. If no return is
    finite, the weights are NaN.
    """
    top = rank_non_finite_last(returns_of(sequences)).topk(count, dim=1)
    rows = torch.arange(len(sequences), device=sequences.device)[:, None]
    weights = top.values.isfinite().float()
    return sequences[rows, top.indices], weights / weights.sum(1, keepdim=True)


def elite_statistics(
    returns_of: Returns, sequences: Tensor, num_elites: int
) -> tuple[Tensor, Tensor]:
    """Return mean and std, (B, H, A) each, of the elites among sequences (B, N, H, A).

    A candidate with a non-finite return is never an elite, even if fewer than `num_elites` remain.
    If none remains, the result is NaN.
    """
    return weighted_statistics(*best_sequences(returns_of, sequences, num_elites))


def weighted_statistics(sequences: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean and std, (B, H, A) each, of (B, n, H, A) with weights (B, n)."""
    weights = weights[..., None, None]
    mean = (weights * sequences).sum(1)
    variance = (weights * (sequences - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


def best_or_nan(best: Tensor, weights: Tensor) -> Tensor:
    """Return the best sequence (B, H, A) of `best_sequences`; NaN if no return was finite."""
    return torch.where(weights[:, 0].isfinite()[:, None, None], best[:, 0], torch.nan)


def rank_non_finite_last(returns: Tensor) -> Tensor:
    """Replace every non-finite return (B, N) by -inf, including +inf."""
    return torch.where(returns.isfinite(), returns, -torch.inf)
