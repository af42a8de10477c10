"""MPPI, model-predictive path integral control: all candidates count, the better ones more."""

from __future__ import annotations

import torch
from torch import Tensor

from cs285.policies.planners.sampling import Returns, SamplingContext, rank_non_finite_last


def path_integral(returns_of: Returns, context: SamplingContext) -> Tensor:
    """Return the mean of N sequences weighted by exp(return / temperature), (B, H, A).

    NaN where no return is finite. Williams et al. 2017, arXiv:1707.02342, algorithms 1 and 2,
    without the cost of the noise (only the task's reward counts), the plan's smoothing and the
    samples around zero.
    """
    mean = context.recall_mean()
    sequences = context.with_proposals(context.gaussian(mean, context.first_std.expand_as(mean)))
    returns = rank_non_finite_last(returns_of(sequences))
    worse_by = (returns - returns.amax(1, keepdim=True)).double()  # whose quotient may be any size
    weights = (worse_by / context.config.mppi_temperature).softmax(1).float()
    plan = torch.einsum("bn,bnha->bha", weights, sequences)
    context.keep("mean", plan)
    return plan
