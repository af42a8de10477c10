"""What an ensemble's outputs mean, and the losses that fit them.

Targets have D columns in units of their std: the change of the observation and, where it is
learned, the reward. A loss takes means (E, B, D), log-variances (E, B, D) or None, and targets
(E, B, D), and returns the loss of each member (E,). Autograd differentiates it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

NOISE_FLOOR = 1e-3  # a column known this well, in units of its variance, needs no more weight
LOG_VAR_RANGE = (-10.0, 0.5)  # at first
BOUND_WEIGHT = 0.01  # of the bounds in the loss

Loss = Callable[[Tensor, Tensor | None, Tensor], Tensor]


def column_nll(means: Tensor, log_var: Tensor | None, targets: Tensor) -> Tensor:
    """Return the mean over columns of log(MSE + NOISE_FLOOR), MSE (E, D) over the batch.

    The negative log-likelihood of a Gaussian with one variance per column, at the variance that
    fits best: a column that is mostly noise gets little weight. The variances are not looked at.
    """
    mse = (means - targets).square().mean(1)
    return (mse + NOISE_FLOOR).log().mean(1)


def gaussian_nll(means: Tensor, log_var: Tensor | None, targets: Tensor) -> Tensor:
    """Return the mean of (mean - target)^2 / variance + log variance.

    Twice the negative log-likelihood, less a constant: Chua et al. 2018, arXiv:1805.12114,
    section 4.
    """
    assert log_var is not None
    return ((means - targets).square() * (-log_var).exp() + log_var).mean((1, 2))


def column_nll_with_variances(means: Tensor, log_var: Tensor | None, targets: Tensor) -> Tensor:
    """Fit the means as `column_nll` does, and the variances to the errors that are left.

    By their likelihood, means are learned least where they err most, as the variance is large there
    (Seitzer et al. 2022, arXiv:2203.09168). Stirn et al. 2023, arXiv:2212.09184, but that the
    layers learn from both.
    """
    variances = gaussian_nll(means.detach(), log_var, targets)
    return column_nll(means, None, targets) + variances


LOSSES: dict[tuple[str, str], Loss] = {  # by --model and --model_loss
    ("deterministic", "column_nll"): column_nll,
    ("probabilistic", "column_nll"): column_nll_with_variances,
    ("probabilistic", "nll"): gaussian_nll,
}


def bounded(raw: Tensor, bounds: Tensor) -> Tensor:
    """Hold raw log-variances (E, B, D) softly between learned `bounds` (E, 2, 1, D).

    Chua et al. 2018, arXiv:1805.12114, appendix A.1.
    """
    softplus = nn.functional.softplus
    low, high = bounds.unbind(1)
    return low + softplus(high - softplus(high - raw) - low)


def bound_penalty(bounds: Tensor) -> Tensor:
    """Return BOUND_WEIGHT times the mean distance of the `bounds` (E, 2, 1, D), (E,).

    The papers' code adds the bounds' sum to the likelihood's mean: of more than 1 / BOUND_WEIGHT
    columns, one member's bounds would win, and variances grow for ever.
    """
    low, high = bounds.unbind(1)
    return BOUND_WEIGHT * (high - low).mean((1, 2))


def first_bounds(ensemble_size: int, dim: int) -> Tensor:
    """Return the bounds (E, 2, 1, D) that learning begins with: each member has its own."""
    return torch.tensor(LOG_VAR_RANGE)[:, None, None].repeat(ensemble_size, 1, 1, dim)


def termination_loss(logits: Tensor, terminated: Tensor) -> Tensor:
    """Return the binary cross-entropy of logits (E, B) and whether episodes ended (E, B), (E,)."""
    loss = nn.functional.binary_cross_entropy_with_logits
    return loss(logits, terminated, reduction="none").mean(1)
