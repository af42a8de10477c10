"""How well an ensemble predicts transitions that it has not learned from."""

from __future__ import annotations

import torch
from torch import Tensor

from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.ff_model import FFModel
from cs285.models.heads import NOISE_FLOOR

LEVELS = (50, 80, 95)  # per cent, of the intervals whose coverage is measured


def error_on_unseen(model: FFModel, data: Transitions) -> Tensor:
    """Return the mean squared error () of the state change on `data` that came after the fit.

    Averaged over members, in units of the variance that the model was fitted with.
    """
    return _squared_errors(model, data)[..., : model.ob_dim].mean()


def validation_errors(model: FFModel, data: Transitions) -> Tensor:
    """Return each member's error (E,) on the held-out part: geometric mean of its columns' MSE.

    The papers' code has the plain mean, in which columns that cannot be learned, being the largest,
    hide what is learned of the others. Columns that never changed are left out: there is nothing to
    learn of them, and the more there are, the less an error of the others would count.
    """
    mse = _squared_errors(model, data).mean(1)
    return _mean_of_varying(model, (mse + NOISE_FLOOR).log()).exp()


def _mean_of_varying(model: FFModel, by_column: Tensor) -> Tensor:
    """(..., D) -> the mean (...) over the targets' columns that were not constant."""
    varies = (model.target_stats.std > 0).float()
    return (by_column * varies).sum(-1) / varies.sum().clamp(min=1)


@torch.no_grad()
def _squared_errors(model: FFModel, data: Transitions) -> Tensor:
    """Return those of each member's means, (E, B, D)."""
    inputs, targets = model.regression_data(data)
    means = model(inputs.expand(model.ensemble_size, -1, -1))
    return (means - targets[:, : model.target_dim]).square()


@torch.no_grad()
def coverage(model: FFModel, data: Transitions) -> dict[str, Tensor]:
    """Return the share of the targets of `data` inside the elites' intervals, "Coverage 50" etc.

    (1,) each, over rows, columns that vary, and elites, for central intervals of 50, 80 and 95 per
    cent: a calibrated ensemble's shares are just these. Nothing for an ensemble of points.
    """
    inputs, targets = model.regression_data(data)
    outputs = model.network(inputs.expand(model.ensemble_size, -1, -1))
    mean, log_var = model.head.moments(outputs)
    if log_var is None:
        return {}
    deviations = (mean - targets[:, : model.target_dim]).abs() * (-0.5 * log_var).exp()
    normal = torch.distributions.Normal(0.0, 1.0)
    limits = [float(normal.icdf(torch.tensor(0.5 + level / 200))) for level in LEVELS]
    of_elites = deviations[model.elites]
    shares = ((of_elites <= limit).float().mean((0, 1)) for limit in limits)
    return {
        f"Coverage {level}": _mean_of_varying(model, share)[None]
        for level, share in zip(LEVELS, shares, strict=True)
    }
