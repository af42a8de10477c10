"""The base class of the MuJoCo tasks: `step` gets its reward from `get_reward`."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.terminations import Array

RENDER_MODES = ["human", "rgb_array", "depth_array", "rgbd_tuple"]


class MujocoTask(MujocoEnv):
    """A MuJoCo environment whose subclasses define `get_reward` and `_get_obs`.

    As in all Gymnasium tasks, body and site positions date from the start of the last simulation
    step. `set_state` updates them.
    """

    def __init__(self, model: str, frame_skip: int, ob_dim: int, **kwargs: Any) -> None:
        observation_space = Box(-np.inf, np.inf, (ob_dim,), np.float64)
        super().__init__(model, frame_skip, observation_space, **kwargs)

    @staticmethod
    def get_reward(observations: Array, actions: Array) -> tuple[Array, Array]:
        """Return rewards (...) and terminated (...).

        The arguments are post-step observations (..., O) and actions (..., A).
        """
        raise NotImplementedError

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], Any, bool, bool, dict[str, Any]]:
        self.do_simulation(action, self.frame_skip)
        observation = self._get_obs()
        reward, terminated = self.get_reward(observation, action)
        if self.render_mode == "human":
            self.render()
        return observation, float(reward), bool(terminated), False, {}

    def _get_obs(self) -> NDArray[np.float64]:
        raise NotImplementedError
