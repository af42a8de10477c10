"""Test the environment that steps a model against a model whose members are known."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from cs285.envs import inspect_task
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.model_env import ModelEnv
from cs285.models.task_model import TaskModel
from tests.toys import LinearReach

STILL = np.zeros(2, np.float32)


class Jumps(DynamicsModel):
    """Member m moves the state by 10 m; with noise, by its hundredth in addition."""

    members, noise_dim = 3, 2

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = state + 10.0 * torch.arange(3)[:, None, None]
        next_obs = next_obs if noise is None else next_obs + noise / 100
        return next_obs, Prediction(next_obs, torch.zeros(next_obs.shape[:-1]), None)


def make_env(member: Any, ep_len: int = 4) -> ModelEnv:
    real, task = gym.make("LinearReach-v0"), TaskModel(LinearReach.get_reward)
    return ModelEnv(Jumps(), task, inspect_task("LinearReach-v0", ep_len), real, member)


@pytest.mark.parametrize(("member", "jump"), [(0, 0.0), (1, 10.0), (2, 20.0), ("mean", 10.0)])
def test_the_given_member_predicts(member: Any, jump: float) -> None:
    env = make_env(member)
    first, _ = env.reset(seed=1)
    for step in (1, 2, 3, 4):
        obs, reward, terminated, truncated, _ = env.step(STILL)
        np.testing.assert_allclose(obs - first, step * jump, atol=1e-5)
        assert reward == pytest.approx(-(obs**2).sum(), rel=1e-5)
        assert (terminated, truncated) == (False, step == 4)


def test_random_members_sample_with_new_noise_in_each_episode() -> None:
    env, moves = make_env("random", ep_len=30), []
    for episode in range(2):
        obs, _ = env.reset(seed=None if episode else 1)
        for _ in range(30):
            before, obs = obs, env.step(STILL)[0]
            moves.append(obs - before)
    jumps = np.round(np.stack(moves) / 10) * 10
    assert np.unique(jumps).tolist() == [0, 10, 20]
    assert 0.005 < (moves - jumps).std() < 0.02
    assert np.abs((moves - jumps)[:30] - (moves - jumps)[30:]).min() > 0
