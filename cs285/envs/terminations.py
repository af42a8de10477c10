"""Where the episodes of Gymnasium's MuJoCo tasks (v5, as registered) end, by their observations.

Each function takes post-step observations (..., O), NumPy arrays or torch tensors, and returns
booleans (...): what `env.step` says of them, but for what an observation does not show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Array: TypeAlias = Any  # np.ndarray in env.step, torch.Tensor in the planner
TerminationFunction = Callable[[Array], Array]
INFINITY = float("inf")


def never(obs: Array) -> Array:
    """Nowhere, also not where a state is not finite."""
    return obs[..., 0] * 0 > 0  # NaN > 0 is False too


def hopper(obs: Array) -> Array:
    """Height 0.7 m or less, leaning by 0.2 rad or more, or a coordinate out of (-100, 100).

    The simulator looks at its velocities, too; observations clip them at 10, far inside.
    """
    height, angle = obs[..., 0], obs[..., 1]
    is_bounded = (abs(obs[..., 1:]) < 100).all(-1)
    return ~((height > 0.7) & (abs(angle) < 0.2) & is_bounded)


def walker2d(obs: Array) -> Array:
    """Height not within (0.8, 2) m, or leaning by 1 rad or more."""
    height, angle = obs[..., 0], obs[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (abs(angle) < 1.0))


def ant(obs: Array) -> Array:
    """Height not within [0.2, 1] m, or a coordinate that is not finite."""
    height = obs[..., 0]
    is_finite = (abs(obs) < INFINITY).all(-1)
    return ~((height >= 0.2) & (height <= 1.0) & is_finite)


def humanoid(obs: Array) -> Array:
    """Height not within (1, 2) m."""
    height = obs[..., 0]
    return ~((height > 1.0) & (height < 2.0))


def inverted_pendulum(obs: Array) -> Array:
    """The pole leans by more than 0.2 rad, or a coordinate is not finite."""
    is_finite = (abs(obs) < INFINITY).all(-1)
    return ~((abs(obs[..., 1]) <= 0.2) & is_finite)


def inverted_double_pendulum(obs: Array) -> Array:
    """The tip of the two poles, 0.6 m each, is 1 m above the cart or lower."""
    sin_1, sin_2, cos_1, cos_2 = (obs[..., column] for column in (1, 2, 3, 4))
    height = 0.6 * cos_1 + 0.6 * (cos_1 * cos_2 - sin_1 * sin_2)
    return ~(height > 1.0)


TERMINATIONS: dict[str, TerminationFunction] = {
    "Hopper-v5": hopper,
    "Walker2d-v5": walker2d,
    "Ant-v5": ant,
    "AntTruncatedObs-v5": ant,
    "Humanoid-v5": humanoid,
    "HumanoidTruncatedObs-v5": humanoid,
    "InvertedPendulum-v5": inverted_pendulum,
    "InvertedDoublePendulum-v5": inverted_double_pendulum,
}
