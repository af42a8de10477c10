"""A wrapper that adds the previous observation, for tasks that hide a part of their state."""

from __future__ import annotations

import functools
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.terminations import Array, TerminationFunction


class WithPreviousObservation(gym.Wrapper):
    """Observes (2 O,): the current observation (O,), then the previous one.

    Two observations show what one can hide. For example, the change of a position shows a velocity
    that the task clips or leaves out. In the first step of an episode, both halves are equal.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, Box)
        low, high = (np.tile(bound, 2) for bound in (space.low, space.high))
        self.observation_space = Box(low, high, dtype=space.dtype.type)
        self.previous: NDArray[Any] | None = None

    def reset(self, **options: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(**options)
        self.previous = None
        return self._with_previous(obs), info

    def step(self, action: Any) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_previous(obs), reward, terminated, truncated, info

    def _with_previous(self, obs: Any) -> NDArray[Any]:
        current = np.array(obs)  # a copy, because a task may change its array later
        previous = current if self.previous is None else self.previous
        self.previous = current
        return np.concatenate([current, previous])

    @staticmethod
    def termination_of(function: TerminationFunction) -> TerminationFunction:
        """Return the termination function of (..., 2 O) for the function of the task (..., O)."""
        return functools.partial(_of_current, function)


def _of_current(function: TerminationFunction, obs: Array) -> Array:
    return function(obs[..., : obs.shape[-1] // 2])
