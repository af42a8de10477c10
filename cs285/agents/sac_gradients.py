"""The two gradients of a SAC update, as functions of tensors alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cs285.critics.sac_critic import SACCritic, td_target
from cs285.infrastructure.replay_buffer import Transitions
from cs285.policies.sac_policy import SACPolicy


class CriticRecord(NamedTuple):
    """What the metrics of a gradient step on the twin Q are of."""

    values: Tensor  # (2, B)
    errors: Tensor  # (2, B), values less targets


class ActorRecord(NamedTuple):
    """What the temperature's step needs, and what the metrics of it and the policy's are of."""

    excess_entropy: Tensor  # (), over the target: the gradient by the log temperature
    temperature: Tensor  # ()
    log_probs: Tensor  # (B,)
    values: Tensor  # (B,), the lesser of the twins'


@torch.no_grad()
def critic_gradient(
    policy: SACPolicy,
    critic: SACCritic,
    target_critic: SACCritic,
    batch: Transitions,
    noise: Tensor,
    log_temperature: Tensor,
    discount: float,
) -> tuple[Tensor, CriticRecord]:
    """Differentiate the mean over B of (Q - target)^2, summed over the twins, by their weights.

    Returns the gradient (P,) apart from the record, since only the latter is kept. `batch` holds
    scaled observations and actions; `noise` (B, A) draws the next actions.
    """
    drawn = policy.sample(batch.next_obs, noise)
    next_values = target_critic(batch.next_obs, drawn.acs)
    temperature = log_temperature.exp()
    targets = td_target(
        batch.rewards, batch.terminated, next_values, drawn.log_probs, temperature, discount
    )
    trace = critic.trace(batch.obs, batch.acs)
    values = trace.outputs[..., 0]
    errors = values - targets
    gradient = critic.gradient(trace, errors * (2 / len(targets)))
    return gradient, CriticRecord(values, errors)


@torch.no_grad()
def actor_gradient(
    policy: SACPolicy,
    critic: SACCritic,
    obs: Tensor,
    noise: Tensor,
    log_temperature: Tensor,
    target_entropy: float,
) -> tuple[Tensor, ActorRecord]:
    """Differentiate the mean over B of temperature * log pi - min Q by the policy's weights.

    Returns the gradient (P,) and the record. Scaled `obs` (B, O); `noise` (B, A) draws the actions.
    The temperature falls while there is more entropy than asked for. Haarnoja et al. 2018,
    arXiv:1812.05905, equations 7 to 9 and 18.
    """
    drawn, temperature = policy.sample(obs, noise), log_temperature.exp()
    trace = critic.trace(obs, drawn.acs)
    values = trace.outputs[..., 0]
    first_is_less = values[0] < values[1]
    B = len(obs)
    d_values = torch.stack([first_is_less, ~first_is_less]) * (-1 / B)
    d_acs = critic.action_gradient(trace, d_values)
    gradient = policy.gradient(drawn, d_acs, (temperature / B).expand(B))
    record = ActorRecord(
        -drawn.log_probs.mean() - target_entropy,
        temperature,
        drawn.log_probs,
        values.amin(0),
    )
    return gradient, record
