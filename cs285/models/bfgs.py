"""Minimise a differentiable function with SciPy's BFGS; a non-finite value shortens the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

GRADIENT_TOLERANCE = 1e-8  # PILCO's cost is flat at the start; SciPy's default stops there
CURVATURE = 0.5  # slope ratio at which a line search ends, as in the authors' code
BLOCK = 25  # line searches between two progress reports


class Minimum(NamedTuple):
    """The best point found. The value is infinite if the function never had a finite value."""

    point: Tensor  # (P,)
    value: float
    evaluations: int


class SearchState(NamedTuple):
    """A search between two blocks of line searches."""

    best: Minimum
    point: Tensor  # (P,), where the next line search starts
    inverse_hessian: Tensor | None  # (P, P), as estimated so far; None: the identity
    left: int  # line searches

    @staticmethod
    def at(start: Tensor, line_searches: int) -> SearchState:
        """Return the state of a search that has not begun."""
        return SearchState(Minimum(start.detach(), np.inf, 0), start.detach(), None, line_searches)


def minimise(
    function: Callable[[Tensor], Tensor],
    progress: SearchState,
    report: Callable[[SearchState], None] = lambda progress: None,
) -> Minimum:
    """Minimise `function` of a float64 vector (P,) -> (); continue a search from its `progress`.

    If the value or a gradient is non-finite, or a matrix cannot be factorised, the line search gets
    a large value and a zero gradient, and therefore tries a shorter step. BFGS starts again from
    the best point if it loses precision before it has done all line searches. The result is the
    best point of all evaluations.

    `report` gets the progress after each BLOCK of line searches. A search that continues from there
    gives the same result, to the last bit.
    """
    best, evaluations = progress.best, progress.best.evaluations

    def evaluate(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal best, evaluations
        evaluations += 1
        worse = best.value + abs(best.value) + 1
        like = progress.point
        point = torch.tensor(x, dtype=like.dtype, device=like.device, requires_grad=True)
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

    while progress.left > 0:
        block = min(BLOCK, progress.left)
        options: dict[str, Any] = {
            "maxiter": block, "gtol": GRADIENT_TOLERANCE, "c2": CURVATURE
        }  # fmt: skip
        hessian = progress.inverse_hessian
        if hessian is not None:
            options["hess_inv0"] = hessian.cpu().numpy()
        found = minimize(evaluate, progress.point.cpu().numpy(), jac=True, options=options)
        if found.nit < 2 and hessian is None:  # neither the gradient nor a restart leads further
            break
        point, hessian = best.point, None
        if found.nit == block:
            point, hessian = best.point.new_tensor(found.x), _estimate(found.hess_inv, best.point)
        progress = SearchState(
            best._replace(evaluations=evaluations),
            point,
            hessian,
            progress.left - max(found.nit, 1),
        )
        report(progress)
    return best._replace(evaluations=evaluations)


def _estimate(inverse_hessian: NDArray[np.float64], like: Tensor) -> Tensor | None:
    """Return the matrix as a tensor, or None if rounding has made it indefinite."""
    matrix = like.new_tensor((inverse_hessian + inverse_hessian.T) / 2)
    is_indefinite = bool(torch.linalg.cholesky_ex(matrix)[1])
    return None if is_indefinite else matrix
