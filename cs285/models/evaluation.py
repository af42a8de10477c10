"""What a model makes of actions: its open-loop predictions, and their error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.infrastructure.pytorch_util import from_numpy, to_numpy
from cs285.models.base_model import DynamicsModel
from cs285.models.task_model import TaskModel

LEARNED = TaskModel(learns_reward=True)


class Imagined(NamedTuple):
    """What E members make of B sequences of H actions, each following its own states."""

    observations: NDArray[np.float32]  # (E, B, H + 1, O), the given ones first
    rewards: NDArray[np.float32]  # (E, B, H), of the post-step observations


@torch.no_grad()
def imagine(
    model: DynamicsModel,
    obs: NDArray[np.float32],
    acs: NDArray[np.float32],
    task: TaskModel = LEARNED,
) -> Imagined:
    """Act out `acs` (B, H, A) from `obs` (B, O) in every member.

    Rewards are those of `task`: by default the model's own, 0 if it learns none.
    """
    E, step = model.members, model.planning_step()
    first = from_numpy(obs, model.device)
    state = model.initial_state(first)
    observations: list[Tensor] = [first.expand(E, -1, -1)]
    rewards: list[Tensor] = []
    for actions in from_numpy(acs, model.device).unbind(1):
        actions = actions.expand(E, -1, -1)
        state, predicted = step(state, actions)
        observations.append(predicted.next_obs)
        rewards.append(task.outcome(predicted, actions).rewards)
    return Imagined(to_numpy(torch.stack(observations, 2)), to_numpy(torch.stack(rewards, 2)))


def mean_prediction_error(true: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    """Return the mean squared error of predicted states (..., T, O) against the true (T, O)."""
    return float(np.square(predicted - true).mean())
