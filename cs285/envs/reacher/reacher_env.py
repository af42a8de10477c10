"""The reacher task: a 7-joint arm moves its fingertip to a fixed target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cs285.envs.mujoco_task import RENDER_MODES, MujocoTask
from cs285.envs.terminations import Array, never

MODEL = Path(__file__).parent / "assets" / "reacher.xml"
OB_DIM = 20  # qpos (7), qvel / 10 (7), fingertip xyz (3), target xyz (3)
TARGET = (0.1, 0.1, 0.1)  # metres


class Reacher7DOFEnv(MujocoTask):
    """Observation (20,): qpos, qvel / 10, fingertip, target. Action (7,) in [-1, 1].

    One env step is 0.02 s.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 50}

    def __init__(self, **kwargs: Any) -> None:
        camera = {"distance": 2.5, "azimuth": -120.0, "elevation": -25.0}
        super().__init__(str(MODEL), 2, OB_DIM, default_camera_config=camera, **kwargs)

    @staticmethod
    def get_reward(observations: Array, actions: Array) -> tuple[Array, Array]:
        """Return rewards (...) and terminated (...), always False, of observations (..., 20).

        The observations are post-step. The reward is -10 times the distance (metres) from the
        fingertip to the target.
        """
        gap = observations[..., 14:17] - observations[..., 17:20]
        return -10 * (gap**2).sum(-1) ** 0.5, never(observations)

    def reset_model(self) -> NDArray[np.float64]:
        self.model.site("target").pos = TARGET
        self.set_state(self.init_qpos, self.init_qvel)
        self.do_simulation(np.zeros(self.model.nu), self.frame_skip)
        return self._get_obs()

    def _get_obs(self) -> NDArray[np.float64]:
        fingertip = self.data.site("finger").xpos
        target = self.model.site("target").pos
        return np.concatenate([self.data.qpos, self.data.qvel / 10, fingertip, target])
