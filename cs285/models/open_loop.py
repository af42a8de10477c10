"""Open-loop predictions of a dynamics model, and their error."""

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
    """Open-loop predictions of M elites for B sequences of H actions.

    Each elite follows its own predicted states.
    """

    observations: NDArray[np.float32]  # (M, B, H + 1, O), the initial ones first
    rewards: NDArray[np.float32]  # (M, B, H), of the post-step observations


@torch.no_grad()
def imagine(
    model: DynamicsModel,
    obs: NDArray[np.float32],
    acs: NDArray[np.float32],
    task: TaskModel = LEARNED,
) -> Imagined:
    """Predict the action sequences `acs` (B, H, A) from `obs` (B, O) with every elite.

    `task` defines the rewards. By default, they are the learned rewards, or 0 if the model learns
    none.
    """
    M, step = model.members, model.planning_step()
    first = from_numpy(obs, model.device)
    state = model.initial_state(first)
    observations: list[Tensor] = [first.expand(M, -1, -1)]
    rewards: list[Tensor] = []
    for actions in from_numpy(acs, model.device).unbind(1):
        actions = actions.expand(M, -1, -1)
        state, predicted = step(state, actions)
        observations.append(predicted.next_obs)
        rewards.append(task.outcome(predicted, actions).rewards)
    return Imagined(to_numpy(torch.stack(observations, 2)), to_numpy(torch.stack(rewards, 2)))


def mean_prediction_error(true: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    """Return the mean squared error of predicted (..., T, O) against true states (T, O)."""
    with np.errstate(over="ignore"):  # of a model that diverges
        return float(np.square(predicted - true).mean())
