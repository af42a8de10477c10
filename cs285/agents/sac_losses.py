"""The losses of SAC for critic, policy and temperature. Autograd differentiates them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cs285.critics.sac_critic import SACCritic, td_target
from cs285.infrastructure.replay_buffer import Transitions
from cs285.policies.sac_policy import SACPolicy


class CriticLoss(NamedTuple):
    """The loss of the twin Q and the mean Q value."""

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
) -> CriticLoss:
    """Return the mean over B of (Q - target)^2, summed over the twins.

    `batch` holds scaled observations and actions. `noise` (B, A) draws the next actions. Haarnoja
    et al. 2018, arXiv:1812.05905, equations 5 and 6.
    """
    with torch.no_grad():
        sample = policy.sample(batch.next_obs, noise)
        targets = td_target(
            batch.rewards,
            batch.terminated,
            target_critic(batch.next_obs, sample.acs),
            sample.log_probs,
            log_temperature.exp(),
            discount,
        )
    values = critic(batch.obs, batch.acs)
    return CriticLoss((values - targets).square().mean(1).sum(), values.detach().mean())


def actor_loss(
    policy: SACPolicy,
    critic: SACCritic,
    obs: Tensor,
    noise: Tensor,
    log_temperature: Tensor,
    target_entropy: float,
) -> ActorLoss:
    """Return the mean over B of temperature * log pi - min Q, and the temperature loss.

    `obs` (B, O) are scaled. `noise` (B, A) draws the actions. The temperature falls while the
    entropy is above `target_entropy`. Haarnoja et al. 2018, arXiv:1812.05905, equations 7 to 9 and
    18.
    """
    sample = policy.sample(obs, noise)
    log_probs, temperature = sample.log_probs.mean(), log_temperature.exp()
    loss = temperature.detach() * log_probs - critic(obs, sample.acs).amin(0).mean()
    entropy = -log_probs.detach()
    return ActorLoss(loss, log_temperature * (entropy - target_entropy), entropy)
