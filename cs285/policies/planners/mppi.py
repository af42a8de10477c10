"""The model-predictive path integral (MPPI) planner: a return-weighted average of candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from cs285.policies.planners.sampling import Returns, SamplingContext, rank_non_finite_last


def path_integral(returns_of: Returns, context: SamplingContext) -> Tensor:
    """Return the mean (B, H, A) of N sequences, weighted by exp(return / temperature).

    It is NaN if no return is finite. Williams et al. 2017, arXiv:1707.02342, algorithms 1 and 2.
    Unlike in the paper, there is no cost on the noise, no smoothing of the plan, and no samples
    around zero.
    """
    mean = context.recall_mean()
    sequences = context.with_proposals(context.gaussian(mean, context.first_std.expand_as(mean)))
    returns = rank_non_finite_last(returns_of(sequences))
    # In double precision, a tiny temperature does not overflow the quotient.
    worse_by = (returns - returns.amax(1, keepdim=True)).double()
    weights = (worse_by / context.config.mppi_temperature).softmax(1).float()
    plan = torch.einsum("bn,bnha->bha", weights, sequences)
    context.keep("mean", plan)
    return plan
