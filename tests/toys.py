"""Toy tasks that are easy to model, and exact models of known systems."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from cs285.models.base_model import DynamicsModel, Prediction


class LinearReach(gym.Env):
    """A task that is easy to model, but for which SAC needs many transitions.

    A point moves by a tenth of the action, rotated by 90 degrees. Its goal is the origin.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,))
        self.action_space = Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2)
        return self.state, {}

    def step(self, action: Any) -> Any:
        self.state = self.state + 0.1 * np.array([-action[1], action[0]])
        reward, terminated = self.get_reward(self.state, action)
        return self.state, reward, bool(terminated), False, {}

    @staticmethod
    def get_reward(observations: Any, actions: Any) -> Any:
        distances = (observations**2).sum(-1)
        return -distances, distances > 1e9


gym.register("LinearReach-v0", entry_point=LinearReach, max_episode_steps=20)


class NanReward(LinearReach):
    """Returns a NaN reward in the eighth env step of an episode."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        self.steps += 1
        return obs, np.nan if self.steps == 8 else reward, *rest


class ChangesItsInput(LinearReach):
    """LinearReach that overwrites the action array it is given, after it has used it."""

    def step(self, action: Any) -> Any:
        outcome = super().step(np.array(action))
        action[:] = np.nan
        return outcome


class HalfReward(gym.RewardWrapper):
    """Halves the rewards."""

    def reward(self, reward: Any) -> Any:
        return reward / 2


class Shown(LinearReach):
    """LinearReach with a window, of which it only keeps the number of frames of each episode."""

    metadata = {"render_modes": ["human"]}
    frames: ClassVar[list[int]] = []

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self.render_mode == "human":
            self.frames.append(1)
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        if self.render_mode == "human":
            self.frames[-1] += 1
        return super().step(action)


class LabelledReach(LinearReach):
    """LinearReach with Dict observations."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Dict({"at": self.observation_space})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, info = super().reset(seed=seed)
        return {"at": obs.astype(np.float32)}, info

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        return {"at": obs.astype(np.float32)}, *rest


class RewardOnly(LinearReach):
    """A task whose get_reward does not return `terminated`."""

    @staticmethod
    def get_reward(observations: Any, actions: Any) -> Any:
        return -(observations**2).sum(-1)


gym.register("Shown-v0", entry_point=Shown, max_episode_steps=20)
gym.register("NanReward-v0", entry_point=NanReward, max_episode_steps=20)
gym.register("RewardOnly-v0", entry_point=RewardOnly, max_episode_steps=20)


class AnalyticModel(DynamicsModel):
    """A model of a known system, with the std of its observations."""

    def __init__(self, members: int, std: tuple[float, ...]) -> None:
        super().__init__()
        self.members, self.std = members, torch.tensor(std)

    @property
    def obs_scale(self) -> Tensor:
        return self.std


class ReachModel(AnalyticModel):
    """A model of LinearReach with two members; the error factor `wrong` scales the actions."""

    def __init__(self, wrong: float = 1.0) -> None:
        super().__init__(2, (1.0, 1.0))
        self.wrong = wrong

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        turned = torch.stack([-acs[..., 1], acs[..., 0]], -1)
        next_obs = state + 0.1 * self.wrong * turned
        return next_obs, Prediction(next_obs, torch.zeros(state.shape[:-1]), None)
