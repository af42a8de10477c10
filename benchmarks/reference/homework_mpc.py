"""Random shooting and CEM as homework 4 has its students write them, for comparison only.

One network at a time, one horizon step at a time, NumPy arrays in and out of every prediction.
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
    """One member: normalised (s, a) -> normalised change of s."""

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
        """obs (N, O), acs (N, A) -> next observations (N, O), all arrays."""
        stats = {name: torch.from_numpy(value) for name, value in self.statistics.items()}
        obs_tensor, acs_tensor = torch.from_numpy(obs), torch.from_numpy(acs)
        obs_normalized = (obs_tensor - stats["obs_mean"]) / (stats["obs_std"] + 1e-8)
        acs_normalized = (acs_tensor - stats["acs_mean"]) / (stats["acs_std"] + 1e-8)
        change_normalized = self.network(torch.cat([obs_normalized, acs_normalized], 1))
        change = change_normalized * stats["delta_std"] + stats["delta_mean"]
        return (obs_tensor + change).detach().numpy()


def build_models(data: Transitions, members: int, size: int) -> list[HomeworkModel]:
    """Return untrained members with the statistics of `data`."""
    columns = {"obs": data.obs, "acs": data.acs, "delta": data.next_obs - data.obs}
    statistics = {f"{name}_mean": column.mean(0).numpy() for name, column in columns.items()}
    statistics |= {f"{name}_std": column.std(0).numpy() for name, column in columns.items()}
    dims = (data.obs.shape[1], data.acs.shape[1])
    return [HomeworkModel(*dims, size, statistics) for _ in range(members)]


class HomeworkMPC:
    """The planner over a Python list of such models."""

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
        """obs (O,) -> action (A,). Without CEM iterations: random shooting."""
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
        """Return mean and std (H, A) of the best candidates."""
        best = np.argsort(self.evaluate(candidates, obs))[-self.num_elites :]
        return candidates[best].mean(0), candidates[best].std(0)

    def evaluate(self, candidates: Array, obs: Array) -> Array:
        """candidates (N, H, A), obs (O,) -> returns (N,), the mean over models."""
        returns = [self.sum_of_rewards(obs, candidates, model) for model in self.models]
        return np.mean(returns, axis=0)

    def sum_of_rewards(self, obs: Array, candidates: Array, model: HomeworkModel) -> Array:
        """Follow every candidate (N, H, A) with one model: summed rewards (N,)."""
        states = np.tile(obs, (self.num_sequences, 1))
        total = np.zeros(self.num_sequences, np.float32)
        for step in range(self.horizon):
            states = model.get_prediction(states, candidates[:, step])
            total += self.get_reward(states, candidates[:, step])[0]
        return total
