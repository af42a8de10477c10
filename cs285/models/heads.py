"""What the ensemble's outputs say of its targets, and the gradients of the losses, written out.

Targets have D columns, all in units of their std: the state's change and, where it is learned, the
reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

NOISE_FLOOR = 1e-3  # a column known this well, in units of its variance, needs no more weight
LOG_VAR_RANGE = (-10.0, 0.5)  # at first
BOUND_WEIGHT = 0.01  # of the bounds in a column's loss


class HeadGradient(NamedTuple):
    """The gradients of a loss that is summed over members, and what the metrics need."""

    outputs: Tensor  # (E, B, C), by the networks' outputs
    parameters: tuple[Tensor, ...]  # by the head's own, in their order
    losses: Tensor  # by column, over batch and members


class Head(Protocol):
    """Reads C outputs per row as a prediction of D targets."""

    def moments(
        self, outputs: Tensor, members: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """outputs (E, B, C) -> means (E, B, D), and log-variances (E, B, D) where it has them.

        Of all members, or of some, whose numbers are `members` (E,).
        """
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def gradient(self, outputs: Tensor, targets: Tensor) -> HeadGradient:
        """Differentiate the loss at outputs (E, B, C) and targets (E, B, D)."""
        ...


class PointHead(nn.Module):
    """C = D means. Loss: the mean over columns of log(MSE + NOISE_FLOOR).

    MSE (E, D) is each member's over its batch. This is the negative log-likelihood of a Gaussian
    with one variance per column, at the variance that fits best: a column that is mostly noise is
    not listened to for it.
    """

    def moments(
        self, outputs: Tensor, members: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return outputs, None

    def gradient(self, outputs: Tensor, targets: Tensor) -> HeadGradient:
        errors = outputs - targets
        mse = errors.square().mean(1, keepdim=True)
        return HeadGradient(_point_gradient(errors, mse), (), mse.mean((0, 1)))


def _point_gradient(errors: Tensor, mse: Tensor) -> Tensor:
    """Return PointHead's gradient by the means: errors (E, B, D) and their MSE (E, 1, D)."""
    return errors * (2 / errors[0].numel() / (mse + NOISE_FLOOR))


class GaussianHead(nn.Module):
    """C = 2D: means, and log-variances held softly between two bounds, which are learned.

    Loss: the mean over batch and columns of (mean - target)^2 / variance + log variance, and
    BOUND_WEIGHT times the mean of the upper bounds less the lower ones. Chua et al. 2018,
    arXiv:1805.12114, section 4 and appendix A.1. The bounds are each member's own, so that members
    do not depend on each other. The papers' code adds the bounds' sum to the likelihood's mean: of
    more than 1 / BOUND_WEIGHT columns, one member's bounds would win, and variances grow for ever.

    Where the likelihood fits them, means are learned least where they err most, as the variance is
    large there (Seitzer et al. 2022, arXiv:2203.09168). With `mean_loss` "mse" they are fitted by
    the loss of PointHead, as if there were no variances, and the variances to what they miss
    (Stirn et al. 2023, arXiv:2212.09184, but that the layers learn from both).
    """

    def __init__(self, ensemble_size: int, dim: int, mean_loss: str = "nll") -> None:
        super().__init__()
        self.mean_loss = mean_loss
        bounds = torch.tensor(LOG_VAR_RANGE)[:, None, None].expand(ensemble_size, 2, 1, dim)
        self.bounds = nn.Parameter(bounds.clone(), requires_grad=False)  # (E, 2, 1, D)

    def moments(
        self, outputs: Tensor, members: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        mean, raw = outputs.chunk(2, -1)
        bounds = self.bounds if members is None else self.bounds[members]
        return mean, _bounded(raw, bounds)[0]

    def gradient(self, outputs: Tensor, targets: Tensor) -> HeadGradient:
        mean, raw = outputs.chunk(2, -1)
        log_var, slope_of_low, slope_of_high = _bounded(raw, self.bounds)
        errors, precision = mean - targets, (-log_var).exp()
        squares, rows = errors.square(), errors[0].numel()
        bound_weight = BOUND_WEIGHT / targets.shape[-1]
        d_log_var = (1 - squares * precision) / rows
        d_below_high = d_log_var * slope_of_low
        d_raw = d_below_high * slope_of_high
        d_low = (d_log_var - d_below_high).sum(1) - bound_weight
        d_high = (d_below_high - d_raw).sum(1) + bound_weight
        if self.mean_loss == "mse":
            d_mean = _point_gradient(errors, squares.mean(1, keepdim=True))
        else:
            d_mean = errors * precision * (2 / rows)
        d_bounds = torch.stack([d_low, d_high], 1)[:, :, None]
        d_outputs = torch.cat([d_mean, d_raw], -1)
        return HeadGradient(d_outputs, (d_bounds,), squares.mean((0, 1)))


def _bounded(raw: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return raw values (E, B, D) held between `bounds` (E, 2, 1, D), and the slopes there."""
    softplus = nn.functional.softplus
    low, high = bounds.unbind(1)
    below_high = high - softplus(high - raw)
    log_var = low + softplus(below_high - low)
    return log_var, (below_high - low).sigmoid(), (high - raw).sigmoid()


class EndingHead(nn.Module):
    """Another head's outputs, and last the logit of whether the episode ends with this step.

    Adds the mean over the batch of the binary cross-entropy to the loss. The targets' last column
    is 1 where it ended, and 0 elsewhere.
    """

    def __init__(self, inner: PointHead | GaussianHead) -> None:
        super().__init__()
        self.inner = inner

    def moments(
        self, outputs: Tensor, members: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return self.inner.moments(outputs[..., :-1], members)

    def gradient(self, outputs: Tensor, targets: Tensor) -> HeadGradient:
        found = self.inner.gradient(outputs[..., :-1], targets[..., :-1])
        logits, ended = outputs[..., -1:], targets[..., -1:]
        d_logits = (logits.sigmoid() - ended) / logits.shape[1]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, ended)
        return HeadGradient(
            torch.cat([found.outputs, d_logits], -1),
            found.parameters,
            torch.cat([found.losses, loss[None]]),
        )
