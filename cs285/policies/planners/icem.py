"""The iCEM planner: CEM with coloured noise, shrinking populations and reused elites."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from cs285.policies.planners.sampling import (
    Returns,
    SamplingContext,
    best_or_nan,
    best_sequences,
    weighted_statistics,
)


def improved_cross_entropy(returns_of: Returns, context: SamplingContext) -> Tensor:
    """Return the best sequence (B, H, A) of the last population; NaN if no return is finite.

    The noise is temporally correlated, and the populations shrink. Some elites enter the next
    population. Shifted by one step, they also enter the first population of the next decision. The
    mean is a candidate in the last population. Pinneri et al. 2020, arXiv:2008.06389, algorithm 1.
    """
    config, count = context.config, context.candidates
    mean = context.recall_mean()
    std = context.first_std.expand_as(mean)
    reused = int(config.icem_reuse * config.cem_num_elites)
    # A decision without kept elites draws additional candidates instead.
    elites = context.recall("elites", _draw(context, mean, std, reused))
    for iteration in range(config.cem_iterations):
        if iteration > 0:
            count = max(int(count / config.icem_decay), min(2 * config.cem_num_elites, count))
        sequences = context.with_proposals(_draw(context, mean, std, count))
        candidates = [sequences, elites[:, :reused]]
        if iteration + 1 == config.cem_iterations:
            candidates.append(mean[:, None])
        elites, weights = best_sequences(
            returns_of, torch.cat(candidates, 1), config.cem_num_elites
        )
        elite_mean, elite_std = weighted_statistics(elites, weights)
        mean = torch.lerp(mean, elite_mean, config.cem_alpha)
        std = torch.lerp(std, elite_std, config.cem_alpha)
    context.keep("mean", mean)
    context.keep("elites", elites[:, :reused])
    return best_or_nan(elites, weights)


def _draw(context: SamplingContext, mean: Tensor, std: Tensor, count: int) -> Tensor:
    """Draw sequences (B, count, H, A) with coloured noise around the mean (B, H, A)."""
    noise, beta = context.noise(count), context.config.icem_noise_beta
    if beta:
        basis = noise_basis(context.config.mpc_horizon, beta).to(noise)
        noise = torch.einsum("bnfa,fh->bnha", noise, basis)
    return context.around(mean, std, noise)


@functools.lru_cache
@torch.inference_mode(False)  # planners with gradients use the cached matrix, too
def noise_basis(horizon: int, beta: float) -> Tensor:
    """Return the matrix (H, H) that turns white noise (..., H) into coloured noise: `white @ it`.

    Each step has a variance of 1. The power at frequency f is proportional to f^-beta: beta 0 is
    white noise, 1 pink, 2 red. The rows are sines and cosines scaled by f^(-beta/2). The constant
    row has the scale of the lowest frequency. Timmer & Koenig 1995; Pinneri et al. 2020,
    arXiv:2008.06389, section 3.1.
    """
    steps = torch.arange(horizon, dtype=torch.float64)
    rows = []
    for k in range(horizon // 2 + 1):
        scale = max(k, 1) ** (-beta / 2)
        if k in (0, horizon / 2):
            rows.append(scale * torch.cos(2 * math.pi * k * steps / horizon))
        else:
            angles = 2 * math.pi * k * steps / horizon
            rows += [scale * 2**0.5 * torch.cos(angles), scale * 2**0.5 * torch.sin(angles)]
    basis = torch.stack(rows)
    return (basis / basis.square().sum(0).sqrt()).float()
