"""Termination functions of Gymnasium's MuJoCo tasks (v5, as registered).

Each function takes post-step observations (..., O), as NumPy arrays or torch tensors, and returns
`terminated` (...) as `env.step` does. It cannot test what the observation does not contain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Array: TypeAlias = Any  # np.ndarray in env.step, torch.Tensor in the planner
TerminationFunction = Callable[[Array], Array]
INFINITY = float("inf")


def never(obs: Array) -> Array:
    """Return False everywhere, even for a non-finite state."""
    return obs[..., 0] * 0 > 0  # NaN > 0 is False too


def hopper(obs: Array) -> Array:
    """Return whether height <= 0.7 m, |angle| >= 0.2 rad, or a coordinate is outside (-100, 100).

    The simulator also tests the velocities, which Hopper-v5 observes clipped to [-10, 10].
    """
    height, angle = obs[..., 0], obs[..., 1]
    is_bounded = (abs(obs[..., 1:]) < 100).all(-1)
    return ~((height > 0.7) & (abs(angle) < 0.2) & is_bounded)


def walker2d(obs: Array) -> Array:
    """Return whether the height is outside (0.8, 2) m, or |angle| >= 1 rad."""
    height, angle = obs[..., 0], obs[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (abs(angle) < 1.0))


def ant(obs: Array) -> Array:
    """Return whether the height is outside [0.2, 1] m, or a coordinate is non-finite."""
    height = obs[..., 0]
    is_finite = (abs(obs) < INFINITY).all(-1)
    return ~((height >= 0.2) & (height <= 1.0) & is_finite)


def humanoid(obs: Array) -> Array:
    """Return whether the height is outside (1, 2) m."""
    height = obs[..., 0]
    return ~((height > 1.0) & (height < 2.0))


def inverted_pendulum(obs: Array) -> Array:
    """Return whether |pole angle| > 0.2 rad, or a coordinate is non-finite."""
    is_finite = (abs(obs) < INFINITY).all(-1)
    return ~((abs(obs[..., 1]) <= 0.2) & is_finite)


def inverted_double_pendulum(obs: Array) -> Array:
    """Return whether the tip of the two poles, 0.6 m each, is at most 1 m above the cart."""
    sin_1, sin_2, cos_1, cos_2 = (obs[..., column] for column in (1, 2, 3, 4))
    height = 0.6 * cos_1 + 0.6 * (cos_1 * cos_2 - sin_1 * sin_2)
    return ~(height > 1.0)


TERMINATIONS: dict[str, TerminationFunction] = {
    "Hopper-v5": hopper,
    "HopperFullVelocities-v5": hopper,
    "Walker2d-v5": walker2d,
    "Walker2dFullVelocities-v5": walker2d,
    "Ant-v5": ant,
    "AntTruncatedObs-v5": ant,
    "Humanoid-v5": humanoid,
    "HumanoidTruncatedObs-v5": humanoid,
    "InvertedPendulum-v5": inverted_pendulum,
    "InvertedDoublePendulum-v5": inverted_double_pendulum,
}
