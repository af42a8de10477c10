"""The random shooting planner: the best of many random sequences."""

from __future__ import annotations

from torch import Tensor

from cs285.policies.planners.sampling import (
    Returns,
    SamplingContext,
    best_or_nan,
    best_sequences,
)


def random_shooting(returns_of: Returns, context: SamplingContext) -> Tensor:
    """Return the best (B, H, A) of N uniform sequences; NaN if no return is finite.

    With a warm start, the previous plan replaces one of them.
    """
    sequences = context.uniform()
    if context.config.is_warm_started:
        sequences[:, 0] = context.recall("mean", sequences[:, 0])
    plan = best_or_nan(*best_sequences(returns_of, context.with_proposals(sequences), 1))
    context.keep("mean", plan)
    return plan
