"""The planner's searches over action sequences, each a function from returns to a plan.

A new search is one function with this signature and one entry in SAMPLERS.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cs285.policies.planners.sampling import Search

Returns = Callable[[Tensor], Tensor]  # sequences (B, N, H, A) -> returns (B, N)


def random_shooting(returns_of: Returns, search: Search) -> Tensor:
    """Return the best of N uniform sequences, (B, H, A); NaN where no return is finite.

    With a warm start the last plan takes the place of one of them.
    """
    sequences = search.uniform()
    if search.config.is_warm_started:
        sequences[:, 0] = search.recall("mean", sequences[:, 0])
    elites, weights = best_sequences(returns_of, sequences, 1)
    plan = _or_nan(elites[:, 0], weights)
    search.keep("mean", plan)
    return plan


def cross_entropy(returns_of: Returns, search: Search) -> Tensor:
    """Return the mean of the last elites, (B, H, A); NaN where no return is finite.

    The homework's CEM: a uniform population, then Gaussian ones refitted to the elites by
    mean = alpha * elite mean + (1 - alpha) * mean, and the std likewise. With a warm start the
    first population is Gaussian, too, around the last plan, and refitted like the others.
    """
    config = search.config
    gaussian_populations = config.cem_iterations
    if config.is_warm_started:
        mean = search.recall_mean()
        std = search.first_std.expand_as(mean)
    else:
        mean, std = elite_statistics(returns_of, search.uniform(), config.cem_num_elites)
        gaussian_populations -= 1
    for _ in range(gaussian_populations):
        sequences = search.gaussian(mean, std)
        elite_mean, elite_std = elite_statistics(returns_of, sequences, config.cem_num_elites)
        mean = torch.lerp(mean, elite_mean, config.cem_alpha)
        std = torch.lerp(std, elite_std, config.cem_alpha)
    search.keep("mean", mean)
    return mean


def improved_cross_entropy(returns_of: Returns, search: Search) -> Tensor:
    """Return the best sequence of the last population, (B, H, A); NaN where no return is finite.

    iCEM, Pinneri et al. 2020, arXiv:2008.06389, algorithm 1: noise that goes together in time,
    populations that shrink, elites that come into the next population and, moved on by a step, into
    the next decision's first one, the mean among the last candidates, the best one executed.
    """
    config, count = search.config, search.candidates
    mean = search.recall_mean()
    std = search.first_std.expand_as(mean)
    reused = int(config.icem_reuse * config.cem_num_elites)
    # A first decision has no elites yet: it draws more candidates in their place.
    in_their_place = search.gaussian(mean, std, reused, config.icem_noise_beta)
    elites = search.recall("elites", in_their_place)
    for iteration in range(config.cem_iterations):
        if iteration > 0:
            count = max(int(count / config.icem_decay), min(2 * config.cem_num_elites, count))
        sequences = search.gaussian(mean, std, count, config.icem_noise_beta)
        candidates = [sequences, elites[:, :reused]]
        if iteration + 1 == config.cem_iterations:
            candidates.append(mean[:, None])
        elites, weights = best_sequences(
            returns_of, torch.cat(candidates, 1), config.cem_num_elites
        )
        elite_mean, elite_std = _statistics(elites, weights)
        mean = torch.lerp(mean, elite_mean, config.cem_alpha)
        std = torch.lerp(std, elite_std, config.cem_alpha)
    search.keep("mean", mean)
    search.keep("elites", elites[:, :reused])
    return _or_nan(elites[:, 0], weights)


def path_integral(returns_of: Returns, search: Search) -> Tensor:
    """Return the mean of N sequences weighted by exp(return / temperature), (B, H, A).

    NaN where no return is finite. MPPI, Williams et al. 2017, arXiv:1707.02342, algorithms 1
    and 2, without the cost of the noise (the task's reward is all that is looked for), the plan's
    smoothing and the samples around zero.
    """
    mean = search.recall_mean()
    sequences = search.gaussian(mean, search.first_std.expand_as(mean))
    returns = rank_non_finite_last(returns_of(sequences))
    worse_by = (returns - returns.amax(1, keepdim=True)).double()  # whose quotient may be any size
    weights = (worse_by / search.config.mppi_temperature).softmax(1).float()
    plan = torch.einsum("bn,bnha->bha", weights, sequences)
    search.keep("mean", plan)
    return plan


def best_sequences(returns_of: Returns, sequences: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best of (B, N, H, A), (B, count, H, A), best first, and their weights (B, count).

    Weights are equal and sum to 1; that of a sequence whose return is not finite is 0, which are
    there only if fewer than `count` others are left. Where none is left, the weights are NaN.
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
    return _statistics(*best_sequences(returns_of, sequences, num_elites))


def _statistics(elites: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    weights = weights[..., None, None]
    mean = (weights * elites).sum(1)
    variance = (weights * (elites - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


def _or_nan(plans: Tensor, weights: Tensor) -> Tensor:
    """Return plans (B, H, A), NaN where the weights (B, count) of the best sequences are."""
    return torch.where(weights[:, 0].isfinite()[:, None, None], plans, torch.nan)


def rank_non_finite_last(returns: Tensor) -> Tensor:
    """Return (B, N) with -inf for every return that is not finite, also for +inf."""
    return torch.where(returns.isfinite(), returns, -torch.inf)


SAMPLERS: dict[str, Callable[[Returns, Search], Tensor]] = {
    "random": random_shooting,
    "cem": cross_entropy,
    "icem": improved_cross_entropy,
    "mppi": path_integral,
}
