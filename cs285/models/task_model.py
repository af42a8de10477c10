"""The task as an imagined step meets it: its reward, and whether the episode terminates there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from cs285.config.model import ModelConfig
from cs285.envs.registration import RewardFunction, TaskSpec
from cs285.envs.terminations import TerminationFunction
from cs285.models.base_model import Prediction


class Outcome(NamedTuple):
    """Of imagined steps of any leading dims."""

    rewards: Tensor  # (...)
    terminated: Tensor | None  # (...), bool; None: episodes do not end


@dataclass(frozen=True)
class TaskModel:
    """The task's own functions where they are known and wanted, and else what the model learns."""

    get_reward: RewardFunction | None = None
    get_termination: TerminationFunction | None = None  # it goes before what get_reward says of it
    learns_reward: bool = False
    termination: str = "known"  # known, learned or none
    ends_plans: bool = True  # whether the planner, too, counts no reward after the end

    @staticmethod
    def of(task: TaskSpec, config: ModelConfig) -> TaskModel:
        """Return the task as a run's model is to have it.

        Unless --termination is given, plans go on past the end that a `get_reward` knows of, as
        they do in the homework.
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
        """Whether episodes go on for ever unless --termination says otherwise."""
        return self.termination == "known" and (self.get_termination or self.get_reward) is None

    def outcome(self, prediction: Prediction, acs: Tensor) -> Outcome:
        """Return the outcome of the predicted steps (...) by actions (..., A)."""
        rewards, dones = prediction.rewards, None
        if self.get_reward is not None:
            known, dones = self.get_reward(prediction.next_obs, acs)
            rewards = rewards if self.learns_reward else known.to(rewards.dtype)
        if self.termination == "none":
            return Outcome(rewards, None)
        if self.termination == "learned":
            return Outcome(rewards, prediction.terminated)
        if self.get_termination is not None:
            return Outcome(rewards, self.get_termination(prediction.next_obs))
        return Outcome(rewards, None if dones is None else dones.bool())
