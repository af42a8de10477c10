"""What the simulated tasks share: a step scored by the task's own pure reward function."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.terminations import Array

RENDER_MODES = ["human", "rgb_array", "depth_array"]


class MujocoTask(MujocoEnv):
    """A MuJoCo environment that gives `get_reward` and `_get_obs`, and gets its step from here.

    As everywhere in Gymnasium, positions derived from the joints (body and site frames) are those
    at the start of the last simulation step; `set_state` brings them up to date.
    """

    def __init__(self, model: str, frame_skip: int, ob_dim: int, **kwargs: Any) -> None:
        observation_space = Box(-np.inf, np.inf, (ob_dim,), np.float64)
        super().__init__(model, frame_skip, observation_space, **kwargs)

    @staticmethod
    def get_reward(observations: Array, actions: Array) -> tuple[Array, Array]:
        """Score post-step observations (..., O) and actions (..., A): rewards and dones (...)."""
        raise NotImplementedError

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], Any, bool, bool, dict[str, Any]]:
        self.do_simulation(action, self.frame_skip)
        observation = self._get_obs()
        reward, done = self.get_reward(observation, action)
        if self.render_mode == "human":
            self.render()
        return observation, float(reward), bool(done), False, {}

    def _get_obs(self) -> NDArray[np.float64]:
        raise NotImplementedError
