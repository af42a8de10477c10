"""The half-cheetah of homework 4: run forward and keep the front leg low."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from cs285.envs.mujoco_task import RENDER_MODES, MujocoTask
from cs285.envs.terminations import Array, never

OB_DIM = 21  # qpos (9), qvel (9), xyz of the torso frame (3)
RESET_NOISE = 0.1
TOTAL_MASS = 14.0  # kg


class HalfCheetahEnv(MujocoTask):
    """Observation (21,): qpos, qvel, torso xyz. Action (6,) in [-1, 1]. One step is 0.01 s."""

    metadata = {"render_modes": RENDER_MODES, "render_fps": 100}

    def __init__(self, **kwargs: Any) -> None:
        views = {"camera_name": "track", "default_camera_config": {"distance": 4.0}}
        super().__init__("half_cheetah.xml", 1, OB_DIM, **views | kwargs)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Load Gymnasium's model, and set the mass that its deprecated attribute sets.

        MuJoCo 3.16 and later print a warning about this attribute and write MUJOCO_LOG.TXT.
        """
        xml = Path(self.fullpath).read_text().replace(f' settotalmass="{TOTAL_MASS:.0f}"', "")
        model = mujoco.MjModel.from_xml_string(xml)
        mujoco.mj_setTotalmass(model, TOTAL_MASS)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        return model, mujoco.MjData(model)

    @staticmethod
    def get_reward(observations: Array, actions: Array) -> tuple[Array, Array]:
        """Return rewards (...) and terminated (...), always False, of observations (..., 21).

        The observations are post-step. The reward is the forward speed (m/s), minus 10 for each of
        front thigh, shin and foot whose angle exceeds its limit (radians). Without this penalty, a
        planner makes the cheetah roll on its back.
        """
        forward_speed = observations[..., 9]
        front_thigh = observations[..., 6] > 0.2
        front_shin = observations[..., 7] > 0
        front_foot = observations[..., 8] > 0
        rewards = forward_speed - 10 * front_thigh - 10 * front_shin - 10 * front_foot
        return rewards, never(observations)

    def reset_model(self) -> NDArray[np.float64]:
        qpos = self.init_qpos + self.np_random.uniform(-RESET_NOISE, RESET_NOISE, self.model.nq)
        qvel = self.init_qvel + RESET_NOISE * self.np_random.standard_normal(self.model.nv)
        self.set_state(qpos, qvel)
        return self._get_obs()

    def _get_obs(self) -> NDArray[np.float64]:
        return np.concatenate([self.data.qpos, self.data.qvel, self.get_body_com("torso")])
