"""How the members' predictions become the next imagined state of each row.

A step here goes from states (E, B, S) to states (E, B, S), a row's for each member that may carry
it on, and returns one prediction per row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cs285.models.base_model import DynamicsModel, Prediction, Step


def mean_of_members(prediction: Prediction) -> Prediction:
    """Return the means over E members, with one leading row: (1, B, ...).

    An episode terminates where at least half of the members say so.
    """
    mean = prediction.each(lambda part: part.float().mean(0, keepdim=True))
    terminated = None if mean.terminated is None else mean.terminated >= 0.5
    return mean._replace(terminated=terminated)


def step_with_mean(
    model: DynamicsModel, step: Step, state: Tensor, acs: Tensor
) -> tuple[Tensor, Prediction]:
    """state (E, B, S), acs (B, A) -> states (E, B, S) and the prediction's mean, rows (B, ...).

    Each member goes on from the mean observation, with what it remembers itself.
    """
    state, prediction = step(state, acs.expand(len(state), -1, -1))
    mean = mean_of_members(prediction).each(lambda part: part[0])
    return model.initial_state(mean.next_obs, state), mean


def step_with_random_member(
    step: Step,
    state: Tensor,
    acs: Tensor,
    generator: torch.Generator,
    noise_dim: int = 0,
) -> tuple[Tensor, Prediction]:
    """state (E, B, S), acs (B, A) -> states (E, B, S) and the prediction of a member for each row.

    A random partition gives every member an equal share of the rows, so that each row is computed
    once, not E times. With `noise_dim`, the dimension of a Gaussian model's targets, it is drawn
    from the member's distribution: trajectory sampling TS1 of Chua et al. 2018, arXiv:1805.12114.
    A model with memory does not go with it: members do not share what they remember.
    """
    E, B = state.shape[:2]
    share, device = -(-B // E), acs.device
    slots = torch.randperm(E * share, generator=generator, device=device)[:B]
    rows = torch.zeros(E * share, dtype=torch.long, device=device)  # a spare slot repeats row 0
    rows[slots] = torch.arange(B, device=device)
    rows = rows.view(E, share)
    noise = None
    if noise_dim:
        noise = torch.randn((E, share, noise_dim), generator=generator, device=device)
    _, prediction = step(state[0][rows], acs[rows], noise)
    per_row = prediction.each(lambda part: part.flatten(0, 1)[slots])
    return per_row.next_obs.expand(E, -1, -1), per_row


def swap_members(particles: Tensor, order: Tensor) -> Tensor:
    """Deal a candidate's P particles out to the members anew: TS1.

    particles (E, K, R, ...) with P = E K, order (P, R), a permutation of each column -> the same
    shape.
    """
    E, K, R = particles.shape[:3]
    index = order.view(E * K, R, *[1] * (particles.dim() - 3))
    dealt = particles.flatten(0, 1).gather(0, index.expand(E * K, R, *particles.shape[3:]))
    return dealt.view(particles.shape)
