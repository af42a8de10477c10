"""Value expansion: targets and policy gradients from short rollouts that autograd differentiates.

A training rollout takes H imagined steps from each state of a batch. Its rewards and the
critic's value of the last state give the critic's target and the gradient of the policy through
model, reward and policy. The critic is updated first, so the policy's return ends with the updated
critic's value. Double-horizon MBPO: Kubo et al. 2025, arXiv:2512.15439.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cs285.agents.sac_losses import ActorLoss, CriticLoss, squared_error, temperature_loss
from cs285.critics.sac_critic import CriticDraws, SACCritic
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.propagation import Split, advance, check_propagation, draw_split
from cs285.models.task_model import Outcome, TaskModel
from cs285.policies.sac_policy import SACPolicy

LARGEST = 1e10  # a state or reward beyond this has diverged; its square is still finite in float32


class Draws(NamedTuple):
    """The random draws of a training rollout."""

    noise: Tensor  # (H + 1, B, A), draws the actions
    splits: tuple[Split | None, ...]  # the member of each row, by step; None: their mean


class Rollout(NamedTuple):
    """A training rollout of H steps from B states; actions are in [-1, 1]."""

    acs: Tensor  # (B, A), the first actions
    rewards: Tensor  # (H, B)
    log_probs: Tensor  # (H + 1, B)
    alive: Tensor  # (H + 1, B), bool: no termination before this step
    last_obs: Tensor  # (B, O), scaled
    last_acs: Tensor  # (B, A)
    valid: Tensor  # (B,), bool: no state or reward diverged


class ValueExpansion:
    """Training rollouts of `horizon` steps in a model."""

    def __init__(
        self, model: DynamicsModel, task: TaskModel, horizon: int, propagation: str
    ) -> None:
        """Raise UsageError if the members of a model with a memory cannot take turns."""
        self.model, self.task, self.horizon = model, task, horizon
        self.propagation = propagation
        check_propagation(model, propagation)

    def draw(self, B: int, ac_dim: int, generator: torch.Generator) -> Draws:
        """Draw the random numbers of a training rollout from B states."""
        shape, model = (self.horizon + 1, B, ac_dim), self.model
        noise = torch.randn(shape, generator=generator, device=generator.device)
        splits: list[Split | None] = [None] * self.horizon
        if self.propagation == "random_member":
            splits = [draw_split(model.members, B, generator, model.noise_dim) for _ in splits]
        return Draws(noise, tuple(splits))

    def roll_out(self, policy: SACPolicy, obs: Tensor, draws: Draws) -> Rollout:
        """Follow the policy from obs (B, O), differentiable in the policy's weights only.

        Rows stay where they are after a termination. A row also ends before a state or reward that
        diverges, so that no value overflows, and does not count in the losses.
        """
        step, state = self.model.frozen_step(), self.model.initial_state(obs)
        alive = valid = torch.ones(len(obs), dtype=torch.bool, device=obs.device)
        sample = policy.sample(policy.scale_obs(obs), draws.noise[0])
        first_acs, log_probs, alive_at, rewards = sample.acs, [sample.log_probs], [alive], []
        for t in range(self.horizon):
            acs = policy.to_task(sample.acs)
            moved, prediction = advance(self.model, step, state, acs, draws.splits[t])
            sane, outcome = self._sane_outcome(prediction, acs)
            valid = valid & (sane | ~alive)
            alive = alive & sane
            if outcome.terminated is not None:
                alive = alive & ~outcome.terminated
            state = torch.where(alive[:, None], moved, state)
            obs = torch.where(alive[:, None], prediction.next_obs, obs)
            sample = policy.sample(policy.scale_obs(obs), draws.noise[t + 1])
            rewards.append(outcome.rewards)
            log_probs.append(sample.log_probs)
            alive_at.append(alive)
        return Rollout(
            first_acs,
            torch.stack(rewards) if rewards else obs.new_empty(0, len(obs)),
            torch.stack(log_probs),
            torch.stack(alive_at),
            policy.scale_obs(obs),
            sample.acs,
            valid,
        )

    def _sane_outcome(self, prediction: Prediction, acs: Tensor) -> tuple[Tensor, Outcome]:
        """Return which rows did not diverge (B,), bool, and the outcome of a step.

        Rows that diverged get no gradient: infinity times zero, the slope of a reward that
        overflows times the weight of its row, is not a number.
        """
        with torch.no_grad():
            rewards = self.task.outcome(prediction, acs).rewards
        sane = (prediction.next_obs.abs().amax(-1) < LARGEST) & (rewards.abs() < LARGEST)

        def kept(part: Tensor) -> Tensor:
            rows = sane.reshape(-1, *[1] * (part.ndim - 1))
            return torch.where(rows, part, part.detach())

        return sane, self.task.outcome(prediction.each(kept), kept(acs))


def soft_return(
    rollout: Rollout, last_values: Tensor, temperature: Tensor, discount: float
) -> Tensor:
    """Return the return plus entropy bonuses of each row, (B,).

    It is the sum over t < H of discount^t (r_t - temperature * log pi_t), plus discount^H
    (Q - temperature * log pi_H) with `last_values` (B,) as Q. Terms after a termination are zero,
    and so is a row that diverged.
    """
    rewards = torch.cat([rollout.rewards, last_values[None]])
    weights = discount ** torch.arange(len(rewards), device=rewards.device, dtype=rewards.dtype)
    terms = weights[:, None] * (rewards - temperature * rollout.log_probs)
    return torch.where(rollout.alive & rollout.valid, terms, 0.0).sum(0)


def expanded_critic_loss(
    rollout: Rollout,
    obs: Tensor,
    critic: SACCritic,
    target_critic: SACCritic,
    draws: CriticDraws,
    temperature: Tensor,
    discount: float,
) -> CriticLoss:
    """Return the mean over B of (Q - target)^2 at the rollout's first states, summed over E.

    `obs` (B, O) are these states, scaled. The target is the soft return without the entropy bonus
    of the first action, which Q does not include. Feinberg et al. 2018, arXiv:1803.00101. Rows that
    diverged have no error.
    """
    with torch.no_grad():
        last_values = target_critic.target_value(rollout.last_obs, rollout.last_acs, draws.members)
        targets = soft_return(rollout, last_values, temperature, discount)
        targets = targets + temperature * rollout.log_probs[0]
    values = critic(obs, rollout.acs.detach(), masks=draws.masks)
    return squared_error(values, torch.where(rollout.valid, targets, values.detach()))


def expanded_actor_loss(
    rollout: Rollout,
    critic: SACCritic,
    log_temperature: Tensor,
    discount: float,
    target_entropy: float,
) -> ActorLoss:
    """Return minus the mean soft return over B, and the temperature loss of SAC.

    The gradient of the policy flows through all H steps and through the critic at the last state.
    """
    last_values = critic.value_for_actor(rollout.last_obs, rollout.last_acs)
    loss = -soft_return(rollout, last_values, log_temperature.detach().exp(), discount).mean()
    entropy = -rollout.log_probs[0].detach().mean()
    tuning = temperature_loss(log_temperature, entropy, target_entropy)
    return ActorLoss(loss, tuning, entropy)
