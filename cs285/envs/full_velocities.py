"""Gymnasium's Hopper and Walker2d (v5) with velocities that are not clipped.

Gymnasium clips the observed velocities to [-10, 10], and a swinging foot is often faster. The true
velocity is then hidden, so no model can predict where the foot lands. Kubo et al. 2025,
arXiv:2512.15439, observe all velocities as they are.
"""

from __future__ import annotations

import numpy as np
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv
from numpy.typing import NDArray


class HopperFullVelocities(HopperEnv):
    """Hopper-v5 whose observation is qpos without x, and qvel, (11,)."""

    def _get_obs(self) -> NDArray[np.float64]:
        return np.concatenate([self.data.qpos[1:], self.data.qvel])


class Walker2dFullVelocities(Walker2dEnv):
    """Walker2d-v5 whose observation is qpos without x, and qvel, (17,)."""

    def _get_obs(self) -> NDArray[np.float64]:
        return np.concatenate([self.data.qpos[1:], self.data.qvel])
