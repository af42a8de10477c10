"""The losses of SAC for critic, policy and temperature. Autograd differentiates them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cs285.critics.sac_critic import NO_DRAWS, CriticDraws, SACCritic, td_target
from cs285.infrastructure.replay_buffer import Transitions
from cs285.policies.sac_policy import SACPolicy


class CriticLoss(NamedTuple):
    """The loss of the Q networks and the mean Q value."""

    loss: Tensor  # ()
    mean_value: Tensor  # ()


class ActorLoss(NamedTuple):
    """The losses of the policy and the temperature, and the policy's entropy."""

    loss: Tensor  # (), of the policy
    temperature_loss: Tensor  # ()
    entropy: Tensor  # ()


def critic_loss(
    policy: SACPolicy,
    critic: SACCritic,
    target_critic: SACCritic,
    batch: Transitions,
    noise: Tensor,
    log_temperature: Tensor,
    discount: float,
    draws: CriticDraws = NO_DRAWS,
) -> CriticLoss:
    """Return the mean over B of (Q - target)^2, summed over the Q networks.

    `batch` holds scaled observations and actions. `noise` (B, A) draws the next actions. Haarnoja
    et al. 2018, arXiv:1812.05905, equations 5 and 6.
    """
    with torch.no_grad():
        sample = policy.sample(batch.next_obs, noise)
        targets = td_target(
            batch.rewards,
            batch.terminated,
            target_critic.target_value(batch.next_obs, sample.acs, draws.members),
            sample.log_probs,
            log_temperature.exp(),
            discount,
        )
    return squared_error(critic(batch.obs, batch.acs, masks=draws.masks), targets)


def squared_error(values: Tensor, targets: Tensor) -> CriticLoss:
    """Return the critic's loss for values (E, B) and targets (B,) or (E, B)."""
    return CriticLoss((values - targets).square().mean(1).sum(), values.detach().mean())


def actor_loss(
    policy: SACPolicy,
    critic: SACCritic,
    obs: Tensor,
    noise: Tensor,
    log_temperature: Tensor,
    target_entropy: float,
) -> ActorLoss:
    """Return the mean over B of temperature * log pi - Q, and the temperature loss.

    `obs` (B, O) are scaled. `noise` (B, A) draws the actions. Haarnoja et al. 2018,
    arXiv:1812.05905, equations 7 to 9.
    """
    sample = policy.sample(obs, noise)
    log_probs, temperature = sample.log_probs.mean(), log_temperature.exp()
    value = critic.value_for_actor(obs, sample.acs).mean()
    loss = temperature.detach() * log_probs - value
    entropy = -log_probs.detach()
    return ActorLoss(loss, temperature_loss(log_temperature, entropy, target_entropy), entropy)


def temperature_loss(log_temperature: Tensor, entropy: Tensor, target_entropy: float) -> Tensor:
    """Return the loss () of the log temperature, for the policy's entropy ().

    The temperature falls while the entropy is above `target_entropy`. Haarnoja et al. 2018,
    arXiv:1812.05905, equation 18.
    """
    return log_temperature * (entropy - target_entropy)
