"""Rewards and terminations of imagined steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cs285.config.model import ModelConfig
from cs285.envs.registration import RewardFunction, TaskSpec
from cs285.envs.terminations import TerminationFunction
from cs285.models.base_model import Prediction


class Outcome(NamedTuple):
    """Rewards and terminations of imagined steps (...)."""

    rewards: Tensor  # (...)
    terminated: Tensor | None  # (...), bool; None: episodes do not terminate


@dataclass(frozen=True)
class TaskModel:
    """Rewards and terminations from the task's own functions or from the model's predictions."""

    get_reward: RewardFunction | None = None
    get_termination: TerminationFunction | None = None  # overrides get_reward's termination
    learns_reward: bool = False
    termination: str = "known"  # known, learned or none
    ends_plans: bool = True  # True: planners, too, ignore rewards after termination

    @staticmethod
    def of(task: TaskSpec, config: ModelConfig) -> TaskModel:
        """Return the task model for the settings in `config`.

        Without --termination, plans ignore a termination that only `get_reward` reports, as in the
        homework.
        """
        return TaskModel(
            get_reward=task.get_reward,
            get_termination=task.get_termination,
            learns_reward=config.learned_reward or task.get_reward is None,
            termination=config.termination or "known",
            ends_plans=config.termination is not None or task.get_termination is not None,
        )

    @property
    def termination_is_unknown(self) -> bool:
        """Whether imagined episodes never terminate because the task has no function for it."""
        return self.termination == "known" and (self.get_termination or self.get_reward) is None

    def is_differentiable(self, ob_dim: int, ac_dim: int) -> bool:
        """Return whether autograd can differentiate the reward."""
        if self.get_reward is None or self.learns_reward:
            return True
        obs, acs = (torch.zeros(2, dim, requires_grad=True) for dim in (ob_dim, ac_dim))
        try:
            rewards, _ = self.get_reward(obs, acs)
        except Exception:  # a third party's function may raise anything
            return False
        return isinstance(rewards, Tensor) and rewards.requires_grad

    def outcome(self, prediction: Prediction, acs: Tensor) -> Outcome:
        """Return the rewards and terminations of predicted steps (...) after actions (..., A)."""
        rewards, terminated = prediction.rewards, None
        if self.get_reward is not None:
            known, terminated = self.get_reward(prediction.next_obs, acs)
            rewards = rewards if self.learns_reward else known.to(rewards.dtype)
        if self.termination == "none":
            return Outcome(rewards, None)
        if self.termination == "learned":
            return Outcome(rewards, prediction.terminated)
        if self.get_termination is not None:
            return Outcome(rewards, self.get_termination(prediction.next_obs))
        return Outcome(rewards, None if terminated is None else terminated.bool())
