"""The obstacles task: a point mass moves around rectangles to a goal."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.terminations import Array

BOUNDARY = 0.99
GOAL_RADIUS = 0.1
START = (-0.5, 0.75)
GOAL = (0.7, -0.8)
START_LOW, START_HIGH = (-0.99, 0.26), (0.59, 0.99)


class Rectangle(NamedTuple):
    """An axis-parallel obstacle, given by its left and top edges."""

    left: float
    top: float
    width: float
    height: float

    def contains(self, point: NDArray[np.float64]) -> bool:
        """Return whether the point (2,) lies strictly inside; the edges are free."""
        x, y = point
        inside_x = self.left < x < self.left + self.width
        return bool(inside_x and self.top - self.height < y < self.top)


RECTANGLES = (
    Rectangle(-0.4, 0.8, 0.4, 0.3),
    Rectangle(-0.9, 0.3, 0.2, 0.6),
    Rectangle(0.6, -0.1, 0.12, 0.4),
    Rectangle(-0.1, 0.2, 0.15, 0.4),
    Rectangle(0.1, -0.7, 0.3, 0.15),
)


class Obstacles(gym.Env):
    """Observation (4,): position, goal. Action (2,): ten times the displacement."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        start: tuple[float, float] = START,
        end: tuple[float, float] = GOAL,
        random_starts: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self.start = np.array(start, np.float64)
        self.end = np.array(end, np.float64)
        self.current = self.start.copy()
        self.random_starts = random_starts
        self.render_mode = render_mode
        self.action_space = Box(-BOUNDARY, BOUNDARY, (2,), np.float32)
        self.observation_space = Box(-BOUNDARY, BOUNDARY, (4,), np.float64)
        self._trail: list[NDArray[np.float64]] = []

    @staticmethod
    def get_reward(observations: Array, actions: Array) -> tuple[Array, Array]:
        """Return rewards (...) and terminated (...) of post-step observations (..., 4).

        The reward is the negative distance to the goal. An episode terminates at a distance below
        0.1, or outside the square.
        """
        position, goal = observations[..., :2], observations[..., 2:4]
        distance = ((position - goal) ** 2).sum(-1) ** 0.5
        outside = (abs(position) >= BOUNDARY).any(-1)
        return -distance, (distance < GOAL_RADIUS) | outside

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        super().reset(seed=seed)
        if self.random_starts:
            self.start = self._draw_start()
        self.current = self.start.copy()
        self._trail = [self.current]
        return self._get_obs(), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        displacement = np.clip(np.asarray(action, np.float64), -1, 1) / 10
        candidate = self.current + displacement
        if self.is_valid(candidate):
            self.current = candidate
        self._trail.append(self.current)
        observation = self._get_obs()
        reward, terminated = self.get_reward(observation, action)
        return observation, float(reward), bool(terminated), False, {}

    @staticmethod
    def is_valid(point: NDArray[np.float64]) -> bool:
        """Return whether `point` (2,) is inside the square and outside all obstacles."""
        in_square = bool((np.abs(point) < BOUNDARY).all())
        return in_square and not any(rectangle.contains(point) for rectangle in RECTANGLES)

    def render(self) -> NDArray[np.uint8] | None:
        """Return the map with the path, (400, 400, 3) uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        from cs285.envs.obstacles.drawing import draw_map

        return draw_map(np.stack(self._trail or [self.current]), self.end)

    def _draw_start(self) -> NDArray[np.float64]:
        while True:
            point = self.np_random.uniform(START_LOW, START_HIGH)
            if self.is_valid(point):
                return point

    def _get_obs(self) -> NDArray[np.float64]:
        return np.concatenate([self.current, self.end])
