"""Record episodes as frames."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.policies.base_policy import Policy


def record_episode(env: gym.Env, policy: Policy, key: EpisodeKey) -> list[NDArray[np.uint8]]:
    """Run one episode in an env of render mode rgb_array: its frames (height, width, 3)."""
    frames: list[NDArray[np.uint8]] = []

    def capture(_: int) -> None:
        frames.append(np.asarray(env.render()))

    run_episodes([env], policy, [key], capture)
    return frames
