"""A wrapper that repeats actions, as papers on DeepMind Control do."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np


class ActionRepeat(gym.Wrapper):
    """Takes each action `repeats` times and adds up the rewards, until the episode ends.

    One env step is then several steps of the simulator. Papers count the simulator's steps. A task
    with `get_reward` needs --learned_reward, because its function scores single steps.
    """

    def __init__(self, env: gym.Env, repeats: int = 2) -> None:
        super().__init__(env)
        self.repeats = repeats

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the action `repeats` times."""
        total = 0.0
        for _ in range(self.repeats):
            # A copy: the task may change what it gets.
            obs, reward, terminated, truncated, info = self.env.step(np.array(action))
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info
