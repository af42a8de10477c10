"""What PILCO must know about a task before the first trial: features, starts, noise and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.config.flags import numbers
from cs285.config.pilco import NONE, PilcoSettings
from cs285.envs.checked_env import CheckedEnv, close_env
from cs285.envs.registration import TaskSpec, make_env
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.value_types import shortened
from cs285.models.gp import Features
from cs285.models.moments import saturating_cost_mean, saturating_cost_variance
from cs285.models.task_model import TaskModel

Array = NDArray[np.float64]
START_DRAWS = 200  # resets from which the start distribution of other tasks is estimated
RIDGE, TINY = 1e-6, 1e-12  # of its variances, relative and absolute


class SaturatingCost(NamedTuple):
    """The mean over W widths of 1 - exp(-1/2 (x - target)^T weights (x - target))."""

    target: Tensor  # (G,), an augmented observation
    weights: Tensor  # (W, G, G)

    def expected(self, mean: Tensor, cov: Tensor) -> Tensor:
        """Return the expected cost () of an augmented observation ~ N(mean (G,), cov (G, G))."""
        costs = [saturating_cost_mean(mean, cov, self.target, each) for each in self.weights]
        return torch.stack(costs).mean()

    def std(self, mean: Tensor, cov: Tensor) -> Tensor:
        """Return the standard deviation () of the cost, the mean over the widths."""
        cases = [saturating_cost_variance(mean, cov, self.target, each) for each in self.weights]
        return smooth_sqrt(torch.stack(cases)).mean()

    def at(self, augmented: Tensor) -> Tensor:
        """Return the costs (T,) of augmented observations (T, G)."""
        offsets = augmented - self.target
        squares = ((offsets @ self.weights) * offsets).sum(-1)  # (W, T)
        return (1 - (-0.5 * squares).exp()).mean(0)


def smooth_sqrt(variances: Tensor) -> Tensor:
    """Return standard deviations (...) that have a finite gradient at a variance of 0."""
    return variances.clamp(min=TINY).sqrt()


class Problem(NamedTuple):
    """The declarations of a task: flags override them, and resets estimate a missing start."""

    features: Features
    start_mean: Tensor  # (O,)
    start_factor: Tensor  # (O, O), F with F F^T the covariance of the start
    noise_std: Tensor  # (O,), of the measurement noise in training
    cost: SaturatingCost | None  # None: the cost is minus the reward

    @property
    def start_cov(self) -> Tensor:
        """The covariance (O, O) of the start."""
        return self.start_factor @ self.start_factor.mT

    def draw_starts(self, noise: Tensor) -> Tensor:
        """Return starts (B, O) for standard normal noise (B, O)."""
        return self.start_mean + noise @ self.start_factor.mT


class Declared:
    """The attributes that a task declares for PILCO."""

    def __init__(self, env: gym.Env, env_name: str) -> None:
        self.env, self.env_name = env.unwrapped, env_name

    def has(self, name: str) -> bool:
        """Return whether the task declares an attribute."""
        return getattr(self.env, name, None) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an attribute."""
        value: Any = getattr(self.env, name, None)
        return np.shape(value)

    def get(
        self, name: str, must_be: str, holds: Callable[[Array], bool], default: Any = None
    ) -> Array:
        """Return an attribute. Raises UsageError: it is not finite numbers for which `holds`."""
        value = getattr(self.env, name, default)
        try:
            array = np.array(value, np.float64)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if not (np.isfinite(array).all() and holds(array)):
            text = shortened(" ".join(str(value).split()))
            raise UsageError(f"--env_name {self.env_name}: its {name} is {text}; must be {must_be}")
        return array


def _are_different(dims: Array, O: int) -> bool:
    return dims.ndim == 1 and len(set(dims)) == len(dims) and set(dims) <= set(range(O))


def describe_problem(
    task_id: tuple[str, ...], task: TaskSpec, settings: PilcoSettings, device: torch.device
) -> Problem:
    """Return the task's declarations, with the flags that replace them.

    The start distribution of a task that declares none is estimated from resets. Raises UsageError:
    a flag does not fit the task, or the task lacks what the propagation needs. Raises TaskError: a
    reset fails.
    """
    env = make_env(task_id)
    try:
        return _describe(env, task_id[0], task, settings, device)
    finally:
        close_env(env)


def _describe(
    env: gym.Env, env_name: str, task: TaskSpec, settings: PilcoSettings, device: torch.device
) -> Problem:
    declared, O = Declared(env, env_name), task.ob_dim
    text, must_be = settings.pilco_angle_dims, f"different dimensions below {O}"
    if text is None:
        dims = declared.get("angle_dims", must_be, lambda dims: _are_different(dims, O), ())
    else:
        dims = np.array([] if text == NONE else text.split(","), np.float64)
        if not _are_different(dims, O):
            raise UsageError(f"--pilco_angle_dims {text}: must be {must_be}")
    features = Features(O, tuple(map(int, dims)))

    def tensor(values: Any) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float64, device=device)

    if declared.has("start_mean") or declared.has("start_std"):
        start_mean = tensor(
            declared.get("start_mean", f"{O} finite numbers", lambda mean: mean.shape == (O,))
        )
        start_std = declared.get(
            "start_std",
            f"{O} non-negative, finite numbers",
            lambda std: std.shape == (O,) and bool((std >= 0).all()),
        )
        start_factor = torch.diag(tensor(start_std))
    else:
        checked = CheckedEnv(env)
        starts = tensor([checked.reset(number) for number in range(START_DRAWS)])
        start_mean, cov = starts.mean(0), starts.mT.cov().reshape(task.ob_dim, task.ob_dim)
        # Equal or constant columns have no Cholesky factor without a ridge.
        start_factor = torch.linalg.cholesky(cov + torch.diag(RIDGE * cov.diagonal() + TINY))
    noise = numbers(settings.pilco_noise)
    if len(noise) not in (1, task.ob_dim):
        raise UsageError(
            f"--pilco_noise {settings.pilco_noise}: must be 1 or {task.ob_dim} numbers"
        )
    noise_std = tensor(noise).expand(task.ob_dim)
    cost = None
    if settings.pilco_propagation == "moments":
        cost = _saturating_cost(declared, features, task, settings, tensor)
    elif task.get_reward is None:
        cost_flags = " with --pilco_target and --pilco_weights" * (not declared.has("cost_target"))
        raise UsageError(
            f"--pilco_propagation particles: must be moments{cost_flags}, because this task has no "
            "get_reward"
        )
    elif not TaskModel(task.get_reward).is_differentiable(task.ob_dim, task.ac_dim):
        raise UsageError(
            "--pilco_propagation particles: must be moments, because autograd cannot differentiate "
            "this task's get_reward"
        )
    return Problem(features, start_mean, start_factor, noise_std, cost)


def _saturating_cost(
    declared: Declared,
    features: Features,
    task: TaskSpec,
    settings: PilcoSettings,
    tensor: Callable[[Any], Tensor],
) -> SaturatingCost:
    """Return the cost of the flags, or else of the task.

    Raises UsageError: there is none, or the task's attributes are wrong.
    """
    size = features.ob_dim + 2 * len(features.angle_dims)
    for name in ("pilco_target", "pilco_weights"):
        text = getattr(settings, name)
        if text is not None and len(numbers(text)) != size:
            raise UsageError(
                f"--{name} {text}: must be {size} numbers: {features.ob_dim} for the observation "
                f"and {size - features.ob_dim} for sines and cosines of its angles"
            )
    parts = {"cost_target": settings.pilco_target, "cost_matrix": settings.pilco_weights}
    of_task = [name for name, text in parts.items() if text is None]
    is_for_others = settings.pilco_angle_dims is not None and any(
        declared.shape(name)[-1:] != (size,) for name in of_task
    )
    if is_for_others or not all(map(declared.has, of_task)):
        can_sample = "must be particles, unless you " * (task.get_reward is not None)
        raise UsageError(
            "--pilco_propagation moments: this task declares no saturating cost for these "
            f"--pilco_angle_dims; {can_sample}pass --pilco_target and --pilco_weights"
        )
    if settings.pilco_target is not None:
        target = np.array(numbers(settings.pilco_target))
    else:
        target = declared.get(
            "cost_target", f"{size} finite numbers", lambda target: target.shape == (size,)
        )
    if settings.pilco_weights is not None:
        if not any(numbers(settings.pilco_weights)):
            raise UsageError(
                f"--pilco_weights {settings.pilco_weights}: must have a number above 0"
            )
        matrix = np.diag(np.sqrt(numbers(settings.pilco_weights)))
    else:
        matrix = declared.get(
            "cost_matrix",
            f"a matrix of finite numbers with {size} columns, not all 0",
            lambda matrix: matrix.ndim == 2 and matrix.shape[1] == size and bool(matrix.any()),
        )
    if settings.pilco_width is not None:
        widths = np.array(numbers(settings.pilco_width))
    else:
        widths = declared.get(
            "cost_width",
            "a positive, finite number or a list of them",
            lambda widths: widths.ndim < 2 and widths.size > 0 and bool((widths > 0).all()),
            1.0,
        ).reshape(-1)
    square = tensor(matrix).mT @ tensor(matrix)
    return SaturatingCost(tensor(target), torch.stack([square / width**2 for width in widths]))
