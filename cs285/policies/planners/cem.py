"""The cross-entropy method (CEM) planner: Gaussian populations, refitted to their elites."""

from __future__ import annotations

import torch
from torch import Tensor

from cs285.policies.planners.sampling import Returns, SamplingContext, elite_statistics


def cross_entropy(returns_of: Returns, context: SamplingContext) -> Tensor:
    """Return the mean (B, H, A) after the last refit; NaN if no return is finite.

    As in the homework, the first population is uniform and the others are Gaussian. A refit sets
    mean = alpha * elite mean + (1 - alpha) * mean, and the std in the same way. With a warm start
    the first population is Gaussian as well, around the previous plan.
    """
    config = context.config

    def refit(sequences: Tensor) -> tuple[Tensor, Tensor]:
        candidates = context.with_proposals(sequences)
        return elite_statistics(returns_of, candidates, config.cem_num_elites)

    gaussian_populations = config.cem_iterations
    if config.is_warm_started:
        mean = context.recall_mean()
        std = context.first_std.expand_as(mean)
    else:
        mean, std = refit(context.uniform())
        gaussian_populations -= 1
    for _ in range(gaussian_populations):
        elite_mean, elite_std = refit(context.gaussian(mean, std))
        mean = torch.lerp(mean, elite_mean, config.cem_alpha)
        std = torch.lerp(std, elite_std, config.cem_alpha)
    context.keep("mean", mean)
    return mean
