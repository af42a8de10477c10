"""Propagation: how the elites' predictions become the next imagined state of each row.

A step takes states (M, B, S) and returns states (M, B, S) and one prediction per row. A row has a
state for each elite, because any elite may predict its next step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cs285.infrastructure.errors import UsageError
from cs285.models.base_model import DynamicsModel, Prediction, Step


def mean_of_members(prediction: Prediction) -> Prediction:
    """Return the mean of the predictions of M elites: (1, B, ...).

    `terminated` is true if at least half of the elites predict a termination.
    """
    mean = prediction.each(lambda part: part.float().mean(0, keepdim=True))
    terminated = None if mean.terminated is None else mean.terminated >= 0.5
    return mean._replace(terminated=terminated)


def advance(
    model: DynamicsModel, step: Step, state: Tensor, acs: Tensor, split: Split | None
) -> tuple[Tensor, Prediction]:
    """Take one step: with the mean over the elites, or with a `split`, with a random elite per row.

    state (M, B, S), acs (B, A) -> states (M, B, S) and one prediction per row (B, ...).
    """
    if split is None:
        return step_with_mean(model, step, state, acs)
    return step_with_random_member(step, state, acs, split)


def step_with_mean(
    model: DynamicsModel, step: Step, state: Tensor, acs: Tensor
) -> tuple[Tensor, Prediction]:
    """Take one step with all elites, and continue from their mean observation.

    state (M, B, S), acs (B, A) -> states (M, B, S) and the mean prediction, rows (B, ...). Each
    elite keeps its own memory.
    """
    state, prediction = step(state, acs.expand(len(state), -1, -1))
    mean = mean_of_members(prediction).each(lambda part: part[0])
    return model.initial_state(mean.next_obs, state), mean


class Split(NamedTuple):
    """A random partition of B rows among M elites, with M * share slots, and the elites' noise."""

    slots: Tensor  # (B,), the slot of each row
    rows: Tensor  # (M, share), the row in each slot; a spare slot repeats row 0
    noise: Tensor | None  # (M, share, noise_dim); None: the predictions are means


def draw_split(M: int, B: int, generator: torch.Generator, noise_dim: int = 0) -> Split:
    """Draw a partition that gives every elite an equal share of the rows."""
    share, device = -(-B // M), generator.device
    slots = torch.randperm(M * share, generator=generator, device=device)[:B]
    rows = torch.zeros(M * share, dtype=torch.long, device=device)
    rows[slots] = torch.arange(B, device=device)
    noise = None
    if noise_dim:
        noise = torch.randn((M, share, noise_dim), generator=generator, device=device)
    return Split(slots, rows.view(M, share), noise)


def step_with_random_member(
    step: Step, state: Tensor, acs: Tensor, split: Split
) -> tuple[Tensor, Prediction]:
    """Take one step in which a random elite predicts each row.

    state (M, B, S), acs (B, A) -> states (M, B, S) and one prediction per row (B, ...). The
    elites share the rows, so each row is computed once instead of M times. With noise, the
    prediction is sampled from the elite's distribution: trajectory sampling TS1 of Chua et al.
    2018, arXiv:1805.12114. The model must have no memory, because members do not share memories.
    """
    slots, rows, noise = split
    _, prediction = step(state[0][rows], acs[rows], noise)
    per_row = prediction.each(lambda part: part.flatten(0, 1)[slots])
    return per_row.next_obs.expand(len(state), -1, -1), per_row


def check_propagation(model: DynamicsModel, propagation: str) -> None:
    """Raise UsageError if the members of a model with a memory cannot take turns."""
    if model.has_memory and propagation == "random_member":
        raise UsageError(
            "--mbpo_propagation random_member: must be mean for a model with memory "
            "(members do not share memories)"
        )


def swap_members(particles: Tensor, order: Tensor) -> Tensor:
    """Reassign the M K particles of each of R rows to the elites, as TS1 does at each step.

    particles (M, K, R, ...) -> the same shape. `order` (M K, R) is a permutation in each column.
    """
    M, K, R = particles.shape[:3]
    index = order.view(M * K, R, *[1] * (particles.dim() - 3))
    dealt = particles.flatten(0, 1).gather(0, index.expand(M * K, R, *particles.shape[3:]))
    return dealt.view(particles.shape)
