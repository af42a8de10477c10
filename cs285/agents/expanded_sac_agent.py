"""SAC with updates from training rollouts in a model: the learner of double-horizon MBPO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cs285.agents.sac_agent import SACAgent
from cs285.agents.value_expansion import (
    Draws,
    ValueExpansion,
    expanded_actor_loss,
    expanded_critic_loss,
)
from cs285.critics.sac_critic import CriticDraws
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import unpack


class ExpandedSACAgent(SACAgent):
    """SAC that uses only the observations of a batch. A training rollout starts in each."""

    def __init__(self, expansion: ValueExpansion, *args: Any, **options: Any) -> None:
        """Take the arguments of SACAgent after the `expansion`."""
        super().__init__(*args, **options)
        self.expansion = expansion

    def _batches(self, rows: Tensor, first: int) -> Iterator[tuple[Tensor, Draws, CriticDraws]]:
        """Yield the arguments of `_update` for packed rows (U, B, D)."""
        generator = make_generator(self.seed, "sac noise", first, device=self.device)
        for obs in unpack(rows, self.task.ob_dim, self.task.ac_dim).obs.unbind():
            draws = self.expansion.draw(len(obs), self.task.ac_dim, generator)
            yield obs, draws, self.critic.draw(len(obs), generator)

    def _update(  # type: ignore[override]
        self,
        obs: Tensor,
        draws: Draws,
        critic_draws: CriticDraws,
        moves_target: bool,
        trains_actor: bool,
    ) -> dict[str, Tensor]:
        """Do one update with a training rollout from obs (B, O); return the metrics, () each.

        Critic and policy share the rollout.
        """
        config, policy, critic = self.config, self.policy, self.critic
        temperature = self.log_temperature.detach().exp()
        with torch.set_grad_enabled(trains_actor):
            rollout = self.expansion.roll_out(policy, obs, draws)
        if critic.bounds is not None:
            soft_rewards = rollout.rewards[0] - temperature * rollout.log_probs[0]
            critic.bounds.follow(
                soft_rewards.detach(), config.sac_discount, ~rollout.alive[-1], rollout.valid
            )
        result = expanded_critic_loss(
            rollout,
            policy.scale_obs(obs),
            critic,
            self.target_critic,
            critic_draws,
            temperature,
            config.sac_discount,
        )
        metrics = self._take_critic_step(result)
        metrics["Training Rollouts Dropped"] = 1 - rollout.valid.float().mean()
        if moves_target:
            self._move_target()
        if trains_actor:
            losses = expanded_actor_loss(
                rollout, critic, self.log_temperature, config.sac_discount, self.target_entropy
            )
            metrics |= self._take_actor_step(losses, temperature)
        return metrics
