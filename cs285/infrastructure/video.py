"""Record episodes as frames, with whatever offscreen OpenGL the machine has."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from cs285.infrastructure.episodes import EpisodeKey, run_episodes
from cs285.infrastructure.errors import UsageError
from cs285.policies.base_policy import Policy

LINUX_BACKENDS = ("egl", "osmesa")  # EGL first: it uses a GPU where there is one
_PROBE = """
import sys
from cs285.envs import make_env
env = make_env(sys.argv[1], render_mode="rgb_array")
env.reset()
env.render()
"""


def record_episode(env: gym.Env, policy: Policy, key: EpisodeKey) -> list[NDArray[np.uint8]]:
    """Run one episode in an env of render mode rgb_array: its frames (height, width, 3)."""
    frames: list[NDArray[np.uint8]] = []

    def capture(_: int) -> None:
        frames.append(np.asarray(env.render()))

    run_episodes([env], policy, [key], capture)
    return frames


def choose_renderer(env_name: str) -> None:
    """Set MUJOCO_GL to a backend that renders `env_name` here; a value the user set is kept.

    Tried in processes of their own: a backend that fails leaves OpenGL unusable in its process.
    Raises UsageError, naming what to install, where nothing renders.
    """
    chosen = os.environ.get("MUJOCO_GL")
    on_linux = sys.platform.startswith("linux")
    candidates: tuple[str | None, ...] = LINUX_BACKENDS if on_linux and not chosen else (chosen,)
    for backend in candidates:
        environment = dict(os.environ, **({"MUJOCO_GL": backend} if backend else {}))
        command = [sys.executable, "-c", _PROBE, env_name]
        probe = subprocess.run(command, env=environment, capture_output=True, text=True)
        if probe.returncode == 0:
            os.environ.update({"MUJOCO_GL": backend} if backend else {})
            return
    reason = (probe.stderr.strip().splitlines() or ["no reason given"])[-1]
    tried = f"MUJOCO_GL={chosen}" if chosen else " and ".join(LINUX_BACKENDS)
    raise UsageError(
        f"--video_log_freq: {env_name} cannot be rendered here (tried {tried}: {reason}); install "
        "libegl1 or libosmesa6 (MuJoCo tasks) or pygame (classic control), or give -1"
    )
