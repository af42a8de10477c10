"""The losses of the ensemble, and the bounds of its log-variances.

Targets have D normalised columns: the change of the observation and, if the model learns it, the
reward. A loss takes means (E, B, D), log-variances (E, B, D) or None, and targets (E, B, D). It
returns the loss (E, D) of each member and column; the model averages over the columns that vary.
Autograd differentiates it. The log-variances of a homoscedastic ensemble are (E, 1, D).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

NOISE_FLOOR = 1e-3  # limits the weight of a column with a small MSE; in units of its variance
LOG_VAR_RANGE = (-10.0, 0.5)  # initial bounds
BOUND_WEIGHT = 0.01  # weight of the bound penalty in the loss
STD_FLOOR = 1e-3  # of a homoscedastic member's noise, in units of the target's std
STD_SPEED = 10.0  # Adam's steps of 1e-3 then change a std by at most 1% each

Loss = Callable[[Tensor, Tensor | None, Tensor], Tensor]


def mse(means: Tensor, log_var: Tensor | None, targets: Tensor) -> Tensor:
    """Return the mean squared error (E, D) over the batch: the homework's loss.

    `log_var` is ignored.
    """
    return (means - targets).square().mean(1)


def column_nll(means: Tensor, log_var: Tensor | None, targets: Tensor) -> Tensor:
    """Return log(MSE + NOISE_FLOOR), with the MSE (E, D) over the batch.

    Up to a factor, a constant and NOISE_FLOOR, this is the negative log-likelihood of a Gaussian
    with one variance per column, at the variance that fits best. A column that is mostly noise gets
    little weight. `log_var` is ignored.
    """
    return (mse(means, log_var, targets) + NOISE_FLOOR).log()


def gaussian_nll(means: Tensor, log_var: Tensor | None, targets: Tensor) -> Tensor:
    """Return the mean over the batch (E, D) of (mean - target)^2 / variance + log variance.

    Up to a constant, this is twice the negative log-likelihood. Chua et al. 2018, arXiv:1805.12114,
    section 4.
    """
    assert log_var is not None
    return ((means - targets).square() * (-log_var).exp() + log_var).mean(1)


def with_variances(
    mean_loss: Loss, means: Tensor, log_var: Tensor | None, targets: Tensor
) -> Tensor:
    """Return the loss that fits the means by `mean_loss` and the variances by `gaussian_nll`.

    With `gaussian_nll` alone, means learn least where their errors are largest, because the
    variance is large there (Seitzer et al. 2022, arXiv:2203.09168). Stirn et al. 2023,
    arXiv:2212.09184, also separate the two losses, but their variance loss does not train the
    shared layers. Here, both losses train them.
    """
    return mean_loss(means, None, targets) + gaussian_nll(means.detach(), log_var, targets)


LOSSES: dict[tuple[str, str], Loss] = {  # keys: (--model, --model_loss)
    ("deterministic", "mse"): mse,
    ("deterministic", "column_nll"): column_nll,
    ("probabilistic", "mse"): partial(with_variances, mse),
    ("probabilistic", "column_nll"): partial(with_variances, column_nll),
    ("probabilistic", "nll"): gaussian_nll,
    ("homoscedastic", "nll"): gaussian_nll,
}


def bounded(raw: Tensor, bounds: Tensor) -> Tensor:
    """Softly clip raw log-variances (E, B, D) to the learned `bounds` (E, 2, 1, D).

    Chua et al. 2018, arXiv:1805.12114, appendix A.1.
    """
    softplus = nn.functional.softplus
    low, high = bounds.unbind(1)
    return low + softplus(high - softplus(high - raw) - low)


def bound_penalty(bounds: Tensor) -> Tensor:
    """Return BOUND_WEIGHT times the distance (E, D) of each member's `bounds` (E, 2, 1, D).

    It is averaged over columns like the loss. The PETS and MBPO code adds the sum over columns to a
    loss that is a mean. With more than 1 / BOUND_WEIGHT columns, the bounds of one member would
    then outweigh its likelihood, and the variances would grow without limit.
    """
    low, high = bounds.unbind(1)
    return BOUND_WEIGHT * (high - low)[:, 0]


def first_bounds(ensemble_size: int, dim: int) -> Tensor:
    """Return the initial bounds (E, 2, 1, D); each member has its own."""
    return torch.tensor(LOG_VAR_RANGE)[:, None, None].repeat(ensemble_size, 1, 1, dim)


def shared_log_var(raw_std: Tensor) -> Tensor:
    """Return the log-variances (E, 1, D) of homoscedastic members, which all rows share."""
    return 2 * ((STD_SPEED * raw_std).exp() + STD_FLOOR).log()


def termination_loss(logits: Tensor, terminated: Tensor) -> Tensor:
    """Return the binary cross-entropy (E,) of logits (E, B) for the true `terminated` (E, B)."""
    loss = nn.functional.binary_cross_entropy_with_logits
    return loss(logits, terminated, reduction="none").mean(1)
