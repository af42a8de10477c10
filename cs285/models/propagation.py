"""How the ensemble's predictions become the next imagined state of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from cs285.models.prediction import Predict, Prediction


def mean_of_members(prediction: Prediction) -> Prediction:
    """Return the mean over E members, with one leading row: (1, B, ...).

    An episode ends where at least half of the members say so.
    """
    mean = prediction.each(lambda part: part.float().mean(0, keepdim=True))
    return mean._replace(ended=None if mean.ended is None else mean.ended >= 0.5)


def step_with_mean(predict: Predict, E: int, obs: Tensor, acs: Tensor) -> Prediction:
    """obs (B, O), acs (B, A) -> the mean over E members, rows (B, ...)."""
    mean = mean_of_members(predict(obs.expand(E, -1, -1), acs.expand(E, -1, -1)))
    return mean.each(lambda part: part[0])


def step_with_random_member(
    predict: Predict,
    E: int,
    obs: Tensor,
    acs: Tensor,
    generator: torch.Generator,
    noise_dim: int = 0,
) -> Prediction:
    """obs (B, O), acs (B, A) -> the prediction of a member for each row, rows (B, ...).

    A random partition gives every member an equal share of the rows, so that each row is computed
    once, not E times. With `noise_dim`, the dimension of a Gaussian model's targets, it is drawn
    from the member's distribution: trajectory sampling TS1 of Chua et al. 2018, arXiv:1805.12114.
    """
    B, share = len(obs), -(-len(obs) // E)
    slots = torch.randperm(E * share, generator=generator, device=obs.device)[:B]
    rows = torch.zeros(E * share, dtype=torch.long, device=obs.device)  # a spare slot repeats row 0
    rows[slots] = torch.arange(B, device=obs.device)
    rows = rows.view(E, share)
    noise = None
    if noise_dim:
        noise = torch.randn((E, share, noise_dim), generator=generator, device=obs.device)
    prediction = predict(obs[rows], acs[rows], noise)
    return prediction.each(lambda part: part.flatten(0, 1)[slots])


def swap_members(particles: Tensor, order: Tensor) -> Tensor:
    """Deal a candidate's P particles out to the members anew: TS1.

    particles (E, K, R, ...) with P = E K, order (P, R), a permutation of each column -> the same
    shape.
    """
    E, K, R = particles.shape[:3]
    index = order.view(E * K, R, *[1] * (particles.dim() - 3))
    dealt = particles.flatten(0, 1).gather(0, index.expand(E * K, R, *particles.shape[3:]))
    return dealt.view(particles.shape)
