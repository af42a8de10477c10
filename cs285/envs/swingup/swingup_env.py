"""The swing-up tasks of PILCO: a cart-pole and a pendulum that hang down at the start.

Dynamics and constants are from the authors' MATLAB code (github.com/UCL-SML/pilco-matlab). An
angle of 0 points down, pi points up, and angles grow without limit. A step lasts 0.1 s, in which
the force is constant. Episodes never terminate; the registered limit of 40 steps is 4 s.

Besides the Gymnasium interface, a task declares what PILCO needs: the angles among its
observations, the distribution of its starts, and its cost as a saturating function of a distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.terminations import Array, never

GRAVITY = 9.82  # m/s^2
STEP_SECONDS = 0.1
SUBSTEPS = 10  # of the integrator; the error of a step is below 1e-6
NEAR = 0.2  # largest distance of the tip from its target for a success, in pole lengths
NEAR_STEPS = 10  # in a row: one second
STRICT_ANGLE = math.radians(10)

State = tuple[float, ...]


class SwingUp(gym.Env):
    """A swing-up task with the observation (velocities and positions, ..., angle of the pole)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    angle_dims: ClassVar[tuple[int, ...]]  # observation dimensions that are angles, in radians
    start_mean: ClassVar[tuple[float, ...]]  # of the start states, which are Gaussian
    start_std: ClassVar[tuple[float, ...]]
    # The cost is 1 - exp(-d^2 / (2 width^2)). The rows of the matrix map the observation, followed
    # by sine and cosine of each angle, to coordinates in which d is the distance to the target.
    cost_target: ClassVar[tuple[float, ...]]
    cost_matrix: ClassVar[tuple[tuple[float, ...], ...]]
    cost_width: ClassVar[float]
    pole_length: ClassVar[float]  # in m
    largest_force: ClassVar[float]  # in N, or N m for a torque

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        dims = len(self.start_std)
        self.observation_space = Box(-np.inf, np.inf, (dims,), np.float64)
        self.action_space = Box(-self.largest_force, self.largest_force, (1,), np.float32)
        self.state: State = (0.0,) * dims
        self.force = 0.0  # of the last step, for the picture

    @staticmethod
    def derivative(state: State, force: float) -> State:
        """Return the time derivative of the state."""
        raise NotImplementedError

    @classmethod
    def squared_tip_distance(cls, observations: Array) -> Array:
        """Return the squared distance (...) of the tip from its target, in m^2."""
        raise NotImplementedError

    @classmethod
    def get_reward(cls, observations: Array, actions: Array) -> tuple[Array, Array]:
        """Return rewards (...) and terminated (...) of post-step observations (..., O).

        The reward is exp(-d^2 / (2 width^2)), 1 minus PILCO's cost.
        """
        squared = cls.squared_tip_distance(observations)
        return math.e ** (squared / (-2 * cls.cost_width**2)), never(observations)

    @classmethod
    def get_success(cls, observations: NDArray[np.floating]) -> dict[str, bool]:
        """Judge an episode by its post-step observations (T, O).

        Success: the tip stays within a fifth of the pole's length of its target for a second.
        StrictSuccess: throughout the last second, the pole is within 10 degrees of upright and the
        cart within 0.1 m of the centre.
        """
        near = cls.squared_tip_distance(observations) <= (NEAR * cls.pole_length) ** 2
        run = longest = 0
        for is_near in near:
            run = run + 1 if is_near else 0
            longest = max(longest, run)
        end = observations[-NEAR_STEPS:]
        upright = (np.cos(end[:, cls.angle_dims[0]]) <= -math.cos(STRICT_ANGLE)).all()
        is_long = len(end) == NEAR_STEPS
        return {
            "Success": longest >= NEAR_STEPS,
            "StrictSuccess": bool(is_long and upright and cls.is_centred(end)),
        }

    @classmethod
    def is_centred(cls, observations: NDArray[np.floating]) -> bool:
        """Return whether the pole's pivot stays near the centre."""
        return True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        super().reset(seed=seed)
        self.state = tuple(self.np_random.normal(self.start_mean, self.start_std).tolist())
        self.force = 0.0
        return np.array(self.state), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        self.force = min(max(float(action[0]), -self.largest_force), self.largest_force)
        self.state = integrate(self.derivative, self.state, self.force, STEP_SECONDS, SUBSTEPS)
        observation = np.array(self.state)
        reward, terminated = self.get_reward(observation, action)
        return observation, float(reward), bool(terminated), False, {}

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture (400, 600, 3) uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        from cs285.envs.swingup.drawing import draw

        return draw(self.pivot(), self.state[self.angle_dims[0]], self.pole_length, self.force)

    def pivot(self) -> float:
        """Return the position of the pole's pivot, in m."""
        return 0.0


class CartPoleSwingUp(SwingUp):
    """Observation: x, dx/dt, dtheta/dt, theta. Action: force on the cart, in N."""

    angle_dims = (3,)
    start_mean, start_std = (0.0, 0.0, 0.0, 0.0), (0.1, 0.1, 0.1, 0.1)
    cost_target = (0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    cost_matrix = ((1.0, 0.0, 0.0, 0.0, 0.5, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0, 0.5))
    cost_width = 0.25
    pole_length = 0.5
    largest_force = 10.0

    @staticmethod
    def derivative(state: State, force: float) -> State:
        """Return the time derivative: cart 0.5 kg, pole 0.5 kg and 0.5 m, friction 0.1 N s/m."""
        _, velocity, rate, angle = state
        cart, pole, length, friction = 0.5, 0.5, 0.5, 0.1
        sine, cosine = math.sin(angle), math.cos(angle)
        push = force - friction * velocity
        below = 4 * (cart + pole) - 3 * pole * cosine**2
        swing = pole * length * rate**2 * sine
        acceleration = (2 * swing + 3 * pole * GRAVITY * sine * cosine + 4 * push) / below
        turn = -3 * swing * cosine - 6 * (cart + pole) * GRAVITY * sine - 6 * push * cosine
        return velocity, acceleration, turn / (length * below), rate

    @classmethod
    def squared_tip_distance(cls, observations: Array) -> Array:
        """Return the squared distance of the tip from the point above the centre."""
        sine, cosine = sine_and_cosine(observations[..., 3])
        across = observations[..., 0] + cls.pole_length * sine
        return across**2 + (cls.pole_length * (cosine + 1)) ** 2

    @classmethod
    def is_centred(cls, observations: NDArray[np.floating]) -> bool:
        """Return whether the cart stays within 0.1 m of the centre."""
        return bool((np.abs(observations[:, 0]) < 0.1).all())

    def pivot(self) -> float:
        """Return the position of the cart, in m."""
        return self.state[0]


class PendulumSwingUp(SwingUp):
    """Observation: dtheta/dt, theta. Action: torque at the pivot, in N m."""

    angle_dims = (1,)
    start_mean, start_std = (0.0, 0.0), (0.1, 0.1)
    cost_target = (0.0, 0.0, 0.0, -1.0)
    cost_matrix = ((0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    cost_width = 0.5
    pole_length = 1.0
    largest_force = 2.5

    @staticmethod
    def derivative(state: State, force: float) -> State:
        """Return the time derivative: a thin rod, 1 kg and 1 m, friction 0.01 N m s."""
        rate, angle = state
        mass, length, friction = 1.0, 1.0, 0.01
        torque = force - friction * rate - mass * GRAVITY * length * math.sin(angle) / 2
        return torque / (mass * length**2 / 3), rate

    @classmethod
    def squared_tip_distance(cls, observations: Array) -> Array:
        """Return the squared distance of the tip from the point above the pivot."""
        sine, cosine = sine_and_cosine(observations[..., 1])
        return cls.pole_length**2 * (sine**2 + (cosine + 1) ** 2)


def sine_and_cosine(angle: Array) -> tuple[Array, Array]:
    """Return sine and cosine of a NumPy array or, differentiably, of a torch tensor."""
    if hasattr(angle, "cos"):  # a tensor
        return angle.sin(), angle.cos()
    return np.sin(angle), np.cos(angle)


def integrate(derivative: Any, state: State, force: float, seconds: float, substeps: int) -> State:
    """Return the state after `seconds` of a constant force, by the Runge-Kutta method RK4."""
    h = seconds / substeps
    for _ in range(substeps):
        first = derivative(state, force)
        second = derivative(_moved(state, first, h / 2), force)
        third = derivative(_moved(state, second, h / 2), force)
        fourth = derivative(_moved(state, third, h), force)
        slopes = zip(first, second, third, fourth, strict=True)
        state = _moved(state, [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in slopes], h)
    return state


def _moved(state: State, slope: Sequence[float], h: float) -> State:
    return tuple(value + h * rate for value, rate in zip(state, slope, strict=True))
