"""What PILCO must know about a task before the first trial: features, starts, noise and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cs285.config.pilco import NONE, PilcoSettings, numbers
from cs285.envs.checked_env import CheckedEnv, close_env
from cs285.envs.registration import TaskSpec, make_env
from cs285.infrastructure.errors import UsageError
from cs285.models.gp import Features
from cs285.models.moments import saturating_cost_mean, saturating_cost_variance
from cs285.models.task_model import TaskModel

START_DRAWS = 200  # resets from which the start distribution of other tasks is estimated
RIDGE, TINY = 1e-6, 1e-12  # of its variances, relative and absolute


class SaturatingCost(NamedTuple):
    """The mean over W widths of 1 - exp(-1/2 (x - target)^T weights (x - target))."""

    target: Tensor  # (D,), an augmented observation
    weights: Tensor  # (W, D, D)

    def expected(self, mean: Tensor, cov: Tensor) -> Tensor:
        """Return the expected cost () of an augmented observation ~ N(mean (D,), cov (D, D))."""
        costs = [saturating_cost_mean(mean, cov, self.target, each) for each in self.weights]
        return torch.stack(costs).mean()

    def std(self, mean: Tensor, cov: Tensor) -> Tensor:
        """Return the standard deviation () of the cost, the mean over the widths."""
        cases = [saturating_cost_variance(mean, cov, self.target, each) for each in self.weights]
        return smooth_sqrt(torch.stack(cases)).mean()

    def at(self, augmented: Tensor) -> Tensor:
        """Return the costs (T,) of augmented observations (T, D)."""
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


def describe_problem(
    task_id: tuple[str, ...], task: TaskSpec, settings: PilcoSettings, device: torch.device
) -> Problem:
    """Return the task's declarations, with the flags that replace them.

    The start distribution of a task that declares none is estimated from resets. Raises UsageError:
    a flag does not fit the task, or the task lacks what the propagation needs. Raises TaskError: a
    reset fails.
    """
    env = make_env(task_id)
    declared: Any = env.unwrapped
    dims = getattr(declared, "angle_dims", ())
    if settings.pilco_angle_dims is not None:
        text = settings.pilco_angle_dims
        dims = () if text == NONE else tuple(map(int, text.split(",")))
        if len(set(dims)) < len(dims) or max(dims, default=0) >= task.ob_dim:
            raise UsageError(
                f"--pilco_angle_dims {text}: must be different dimensions below {task.ob_dim}"
            )
    features = Features(task.ob_dim, dims)

    def tensor(values: Any) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float64, device=device)

    if hasattr(declared, "start_mean"):
        start_mean, start_factor = (
            tensor(declared.start_mean),
            torch.diag(tensor(declared.start_std)),
        )
    else:
        checked = CheckedEnv(env)
        starts = tensor([checked.reset(number) for number in range(START_DRAWS)])
        start_mean, cov = starts.mean(0), starts.mT.cov().reshape(task.ob_dim, task.ob_dim)
        # Equal or constant columns have no Cholesky factor without a ridge.
        start_factor = torch.linalg.cholesky(cov + torch.diag(RIDGE * cov.diagonal() + TINY))
    close_env(env)
    noise = numbers(settings.pilco_noise)
    if len(noise) not in (1, task.ob_dim):
        raise UsageError(
            f"--pilco_noise {settings.pilco_noise}: must be 1 or {task.ob_dim} numbers"
        )
    noise_std = tensor(noise).expand(task.ob_dim)
    cost = None
    if settings.pilco_propagation == "moments":
        cost = _saturating_cost(declared, features, settings, tensor)
    elif task.get_reward is None:
        raise UsageError(
            "--pilco_propagation particles: must be moments, because this task has no get_reward"
        )
    elif not TaskModel(task.get_reward).is_differentiable(task.ob_dim, task.ac_dim):
        raise UsageError(
            "--pilco_propagation particles: must be moments, because autograd cannot differentiate "
            "this task's get_reward"
        )
    return Problem(features, start_mean, start_factor, noise_std, cost)


def _saturating_cost(
    declared: Any, features: Features, settings: PilcoSettings, tensor: Callable[[Any], Tensor]
) -> SaturatingCost:
    """Return the cost of the flags, or else of the task. Raises UsageError: there is none."""
    size = features.ob_dim + 2 * len(features.angle_dims)
    target, matrix = getattr(declared, "cost_target", None), getattr(declared, "cost_matrix", None)
    for name in ("pilco_target", "pilco_weights"):
        text = getattr(settings, name)
        if text is not None and len(numbers(text)) != size:
            raise UsageError(
                f"--{name} {text}: must be {size} numbers: {features.ob_dim} for the observation "
                f"and {size - features.ob_dim} for sines and cosines of its angles"
            )
    if settings.pilco_target is not None:
        target = numbers(settings.pilco_target)
    if settings.pilco_weights is not None:
        if not any(numbers(settings.pilco_weights)):
            raise UsageError(
                f"--pilco_weights {settings.pilco_weights}: must have a number above 0"
            )
        matrix = np.diag(np.sqrt(numbers(settings.pilco_weights)))
    if target is None or matrix is None or len(target) != size or np.shape(matrix)[-1] != size:
        raise UsageError(
            "--pilco_propagation moments: this task declares no saturating cost for these "
            "--pilco_angle_dims; must be particles, unless you pass --pilco_target and "
            "--pilco_weights"
        )
    widths = [getattr(declared, "cost_width", 1.0)]
    if settings.pilco_width is not None:
        widths = numbers(settings.pilco_width)
    square = tensor(matrix).mT @ tensor(matrix)
    return SaturatingCost(tensor(target), torch.stack([square / width**2 for width in widths]))
