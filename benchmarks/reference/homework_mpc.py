"""Random shooting and CEM in the style of homework 4, for comparison only.

They predict one member and one horizon step at a time. Every prediction converts from and to NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cs285.infrastructure.replay_buffer import Transitions

Array = NDArray[np.float32]


class HomeworkModel:
    """One member: predicts the normalised change of the observation."""

    def __init__(self, ob_dim: int, ac_dim: int, size: int, statistics: dict[str, Array]) -> None:
        self.network = nn.Sequential(
            nn.Linear(ob_dim + ac_dim, size),
            nn.Tanh(),
            nn.Linear(size, size),
            nn.Tanh(),
            nn.Linear(size, ob_dim),
        )
        self.statistics = statistics

    def get_prediction(self, obs: Array, acs: Array) -> Array:
        """Predict the next observations: obs (N, O), acs (N, A) -> (N, O), all NumPy arrays."""
        stats = {name: torch.from_numpy(value) for name, value in self.statistics.items()}
        obs_tensor, acs_tensor = torch.from_numpy(obs), torch.from_numpy(acs)
        obs_normalized = (obs_tensor - stats["obs_mean"]) / (stats["obs_std"] + 1e-8)
        acs_normalized = (acs_tensor - stats["acs_mean"]) / (stats["acs_std"] + 1e-8)
        change_normalized = self.network(torch.cat([obs_normalized, acs_normalized], 1))
        change = change_normalized * stats["delta_std"] + stats["delta_mean"]
        return (obs_tensor + change).detach().numpy()


def build_models(data: Transitions, members: int, size: int) -> list[HomeworkModel]:
    """Return untrained members that normalise with the statistics of `data`."""
    columns = {"obs": data.obs, "acs": data.acs, "delta": data.next_obs - data.obs}
    statistics = {f"{name}_mean": column.mean(0).numpy() for name, column in columns.items()}
    statistics |= {f"{name}_std": column.std(0).numpy() for name, column in columns.items()}
    dims = (data.obs.shape[1], data.acs.shape[1])
    return [HomeworkModel(*dims, size, statistics) for _ in range(members)]


class HomeworkMPC:
    """The planner, with the ensemble as a Python list of models."""

    def __init__(
        self,
        models: list[HomeworkModel],
        get_reward: Callable[[Any, Any], tuple[Any, Any]],
        low: Array,
        high: Array,
        horizon: int,
        num_sequences: int,
        cem_iterations: int = 0,
        num_elites: int = 5,
    ) -> None:
        self.models, self.get_reward = models, get_reward
        self.low, self.high = low, high
        self.horizon, self.num_sequences = horizon, num_sequences
        self.cem_iterations, self.num_elites = cem_iterations, num_elites

    def get_action(self, obs: Array) -> Array:
        """Plan an action: obs (O,) -> action (A,). Without CEM iterations, use random shooting."""
        shape = (self.num_sequences, self.horizon, len(self.low))
        candidates = np.random.uniform(self.low, self.high, shape).astype(np.float32)  # noqa: NPY002
        if not self.cem_iterations:
            return candidates[np.argmax(self.evaluate(candidates, obs))][0]
        mean, std = self.refit(candidates, obs)
        for _ in range(self.cem_iterations - 1):
            drawn = np.random.normal(mean, std, shape)  # noqa: NPY002
            mean, std = self.refit(drawn.clip(self.low, self.high).astype(np.float32), obs)
        return mean[0]

    def refit(self, candidates: Array, obs: Array) -> tuple[Array, Array]:
        """Return the mean and std (H, A) of the elites among the candidates (N, H, A)."""
        elites = np.argsort(self.evaluate(candidates, obs))[-self.num_elites :]
        return candidates[elites].mean(0), candidates[elites].std(0)

    def evaluate(self, candidates: Array, obs: Array) -> Array:
        """Return the mean return over models (N,) of candidates (N, H, A) from obs (O,)."""
        returns = [self.sum_of_rewards(obs, candidates, model) for model in self.models]
        return np.mean(returns, axis=0)

    def sum_of_rewards(self, obs: Array, candidates: Array, model: HomeworkModel) -> Array:
        """Return the summed rewards (N,) of candidates (N, H, A) in one model, from obs (O,)."""
        states = np.tile(obs, (self.num_sequences, 1))
        total = np.zeros(self.num_sequences, np.float32)
        for step in range(self.horizon):
            states = model.get_prediction(states, candidates[:, step])
            total += self.get_reward(states, candidates[:, step])[0]
        return total
