"""A model rollout in the style of homework 4: one state at a time, for comparison only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.reference.homework_mpc import HomeworkModel

Array = NDArray[np.float32]


class HomeworkActor:
    """The homework's tanh-squashed Gaussian policy, with NumPy arrays as input and output."""

    def __init__(self, ob_dim: int, ac_dim: int, size: int) -> None:
        self.network = nn.Sequential(
            nn.Linear(ob_dim, size), nn.Tanh(), nn.Linear(size, size), nn.Tanh(),
            nn.Linear(size, ac_dim),
        )  # fmt: skip
        self.logstd = nn.Parameter(torch.zeros(ac_dim))

    def get_action(self, obs: Array) -> Array:
        """Sample an action: obs (1, O) -> action (1, A)."""
        mean = self.network(torch.from_numpy(obs))
        distribution = torch.distributions.Normal(mean, self.logstd.exp())
        return distribution.rsample().tanh().detach().numpy()


def collect_model_trajectory(
    models: list[HomeworkModel],
    actor: HomeworkActor,
    get_reward: Callable[[Any, Any], tuple[Any, Any]],
    replay_obs: Array,
    length: int,
) -> dict[str, Array]:
    """Roll out the actor for `length` steps from one random state of `replay_obs` (C, O)."""
    # The homework's buffer permutes all its rows to draw one row.
    obs = replay_obs[np.random.permutation(len(replay_obs))[:1]]  # noqa: NPY002
    steps = []
    for _ in range(length):
        acs = actor.get_action(obs)
        next_obs = np.mean([model.get_prediction(obs, acs) for model in models], axis=0)
        rewards, terminated = get_reward(next_obs, acs)
        steps.append((obs[0], acs[0], rewards[0], next_obs[0], terminated[0]))
        obs = next_obs
    names = ("observation", "action", "reward", "next_observation", "terminal")
    return {
        name: np.array(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)
    }
