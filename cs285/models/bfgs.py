"""Minimise a differentiable function with SciPy's BFGS, and survive values that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

GRADIENT_TOLERANCE = 1e-8  # PILCO's cost is flat at the start; SciPy's default stops there
CURVATURE = 0.5  # slope ratio at which a line search ends, as in the authors' code


class Minimum(NamedTuple):
    """The best point found. The value is infinite if the function never had a finite value."""

    point: Tensor  # (P,)
    value: float
    evaluations: int


def minimise(function: Callable[[Tensor], Tensor], start: Tensor, line_searches: int) -> Minimum:
    """Minimise `function` of a float64 vector (P,) -> () from `start`.

    If the value or a gradient is non-finite, or a matrix cannot be factorised, the line search gets
    a large value and a zero gradient, and therefore tries a shorter step. BFGS starts again from
    the best point if it loses precision before it has done all line searches. The result is the
    best point of all evaluations.
    """
    best, evaluations = Minimum(start.detach(), np.inf, 0), 0

    def evaluate(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal best, evaluations
        evaluations += 1
        worse = best.value + abs(best.value) + 1
        point = torch.tensor(x, dtype=start.dtype, device=start.device, requires_grad=True)
        try:
            value = function(point)
            (gradient,) = torch.autograd.grad(value, point)
        except torch.linalg.LinAlgError:
            return worse, np.zeros_like(x)
        number = value.item()
        if not (np.isfinite(number) and bool(gradient.isfinite().all())):
            return worse, np.zeros_like(x)
        if number < best.value:
            best = Minimum(point.detach(), number, 0)
        return number, gradient.cpu().numpy()

    left = line_searches
    while left > 0:
        options = {"maxiter": left, "gtol": GRADIENT_TOLERANCE, "c2": CURVATURE}
        found = minimize(evaluate, best.point.cpu().numpy(), jac=True, options=options)
        left -= max(found.nit, 1)
        if found.nit < 2:  # neither the gradient nor a restart leads further down
            break
    return best._replace(evaluations=evaluations)
