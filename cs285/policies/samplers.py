"""The planner's searches over action sequences, each a function from returns to a plan.

A new search is one function with this signature and one entry in SAMPLERS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cs285.infrastructure.config import PlannerConfig

Returns = Callable[[Tensor], Tensor]  # sequences (B, N, H, A) -> returns (B, N)


@dataclass(frozen=True)
class Search:
    """What a sampler may use: the box (A,) of legal actions, the settings, a generator per env."""

    ac_low: Tensor
    ac_high: Tensor
    config: PlannerConfig
    generators: Sequence[torch.Generator]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, A)."""
        config = self.config
        return config.mpc_num_action_sequences, config.mpc_horizon, self.ac_low.shape[0]

    def uniform(self) -> Tensor:
        """Draw sequences (B, N, H, A) uniformly in the box."""
        device = self.ac_low.device
        draws = [torch.rand(self.shape, generator=g, device=device) for g in self.generators]
        return torch.addcmul(self.ac_low, torch.stack(draws), self.ac_high - self.ac_low)

    def gaussian(self, mean: Tensor, std: Tensor) -> Tensor:
        """Draw sequences (B, N, H, A) from N(mean, std) of (B, H, A), clipped to the box."""
        device = self.ac_low.device
        draws = [torch.randn(self.shape, generator=g, device=device) for g in self.generators]
        sequences = torch.addcmul(mean[:, None], torch.stack(draws), std[:, None])
        return sequences.clamp_(self.ac_low, self.ac_high)


def random_shooting(returns_of: Returns, search: Search) -> Tensor:
    """Return the best of N uniform sequences, (B, H, A); NaN where no return is finite."""
    sequences = search.uniform()
    best_return, best = rank_non_finite_last(returns_of(sequences)).max(1)
    plan = sequences[torch.arange(len(best), device=best.device), best]
    return torch.where(best_return.isfinite()[:, None, None], plan, torch.nan)


def cross_entropy(returns_of: Returns, search: Search) -> Tensor:
    """Return the mean of the last elites, (B, H, A); NaN where no return is finite.

    The homework's CEM: a uniform population, then Gaussian ones refitted to the elites by
    mean = alpha * elite mean + (1 - alpha) * mean, and the std likewise.
    """
    config = search.config
    mean, std = elite_statistics(returns_of, search.uniform(), config.cem_num_elites)
    for _ in range(config.cem_iterations - 1):
        sequences = search.gaussian(mean, std)
        elite_mean, elite_std = elite_statistics(returns_of, sequences, config.cem_num_elites)
        mean = torch.lerp(mean, elite_mean, config.cem_alpha)
        std = torch.lerp(std, elite_std, config.cem_alpha)
    return mean


def elite_statistics(
    returns_of: Returns, sequences: Tensor, num_elites: int
) -> tuple[Tensor, Tensor]:
    """Return mean and std, (B, H, A) each, of the best sequences of (B, N, H, A).

    A candidate whose return is not finite is never an elite, even if fewer than `num_elites` are
    left; where none is left the result is NaN.
    """
    top = rank_non_finite_last(returns_of(sequences)).topk(num_elites, dim=1)
    rows = torch.arange(len(sequences), device=sequences.device)[:, None]
    elites = sequences[rows, top.indices]  # (B, elites, H, A)
    weights = top.values.isfinite().float()
    weights = (weights / weights.sum(1, keepdim=True))[..., None, None]
    mean = (weights * elites).sum(1)
    variance = (weights * (elites - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


def rank_non_finite_last(returns: Tensor) -> Tensor:
    """Return (B, N) with -inf for every return that is not finite, also for +inf."""
    return torch.where(returns.isfinite(), returns, -torch.inf)


SAMPLERS: dict[str, Callable[[Returns, Search], Tensor]] = {
    "random": random_shooting,
    "cem": cross_entropy,
}
