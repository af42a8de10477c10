"""Test the losses against hand calculations, and the variances that they learn."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from cs285.models import losses
from cs285.models.losses import (
    BOUND_WEIGHT,
    LOG_VAR_RANGE,
    NOISE_FLOOR,
    bound_penalty,
    bounded,
    column_nll,
    first_bounds,
    gaussian_nll,
    mse,
    termination_loss,
    with_variances,
)

E, B, D = 3, 11, 4


def draw(*shape: int) -> Tensor:
    return torch.randn(shape).double()


def spread_bounds() -> Tensor:
    """Return bounds (E, 2, 1, D) that differ among members and columns."""
    bounds = first_bounds(E, D).double()
    return bounds + torch.randn_like(bounds)


# Two members, two rows, one column: errors 1 and 3 for member 0, and 0 for member 1.
MEANS = torch.tensor([[[1.0], [5.0]], [[0.0], [2.0]]])
TARGETS = torch.tensor([[[0.0], [2.0]], [[0.0], [2.0]]])
LOG_VAR = torch.full((2, 2, 1), math.log(4.0))


def test_mse_and_column_nll_match_hand_calculations() -> None:
    means, targets = torch.cat([MEANS, MEANS * 0], 2), torch.cat([TARGETS, MEANS * 0 + 2], 2)
    by_column = torch.tensor([[5.0, 4.0], [0.0, 4.0]])
    torch.testing.assert_close(mse(means, None, targets), by_column)
    torch.testing.assert_close(column_nll(means, None, targets), (by_column + NOISE_FLOOR).log())


def test_gaussian_nll_matches_hand_calculation() -> None:
    expected = torch.tensor([[5 / 4 + math.log(4)], [math.log(4)]])
    torch.testing.assert_close(gaussian_nll(MEANS, LOG_VAR, TARGETS), expected)


def test_gaussian_nll_equals_torch_up_to_factor_and_constant() -> None:
    means, log_var, targets = draw(E, B, D), draw(E, B, D), draw(E, B, D)
    normal = torch.distributions.Normal(means, (0.5 * log_var).exp())
    expected = -2 * normal.log_prob(targets).mean(1) - math.log(2 * math.pi)
    torch.testing.assert_close(gaussian_nll(means, log_var, targets), expected)


def test_column_nll_fits_means_and_gaussian_nll_fits_variances() -> None:
    means, log_var, targets = draw(E, B, D), draw(E, B, D), draw(E, B, D)
    for tensor in (means, log_var):
        tensor.requires_grad_()

    def gradients(loss: Any) -> tuple[Tensor | None, ...]:
        total = loss(means, log_var, targets).sum()
        return torch.autograd.grad(total, [means, log_var], allow_unused=True)

    mean_gradient, log_var_gradient = gradients(partial(with_variances, column_nll))
    torch.testing.assert_close(mean_gradient, gradients(column_nll)[0])
    torch.testing.assert_close(log_var_gradient, gradients(gaussian_nll)[1])
    both = with_variances(column_nll, means, log_var, targets)
    torch.testing.assert_close(
        both, column_nll(means, None, targets) + gaussian_nll(means, log_var, targets)
    )


@pytest.mark.parametrize("kind", list(losses.LOSSES))
def test_member_losses_are_independent(kind: tuple[str, str]) -> None:
    means, log_var, targets = draw(E, B, D).requires_grad_(), draw(E, B, D), draw(E, B, D)
    by_member = losses.LOSSES[kind](means, log_var, targets)
    assert by_member.shape == (E, D)
    (gradient,) = torch.autograd.grad(by_member[1].sum(), means)
    assert gradient[1].all()
    assert not gradient[[0, 2]].any()


def test_termination_loss_is_the_cross_entropy() -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 3.0]])
    terminated = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def loss(logit: float, terminated: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -math.log(p if terminated else 1 - p)

    expected = [(loss(0, 1) + loss(2, 0)) / 2, (loss(-1, 0) + loss(3, 1)) / 2]
    assert termination_loss(logits, terminated).tolist() == pytest.approx(expected)


def test_bounds_start_equal_and_their_distance_is_the_penalty() -> None:
    low, high = LOG_VAR_RANGE
    bounds = first_bounds(E, D)
    assert bounds.shape == (E, 2, 1, D)
    assert bounds[:, 0].unique().tolist() == [low]
    assert bounds[:, 1].unique().tolist() == [high]
    distance = torch.full((E, D), high - low)
    torch.testing.assert_close(bound_penalty(bounds), BOUND_WEIGHT * distance)
    bounds[1, 1] += torch.arange(D)[None]
    distance[1] += torch.arange(D)
    torch.testing.assert_close(bound_penalty(bounds), BOUND_WEIGHT * distance)


def test_log_variances_stay_between_their_bounds() -> None:
    bounds = spread_bounds()
    raw = torch.linspace(-100, 100, 201).double()[None, :, None].expand(E, -1, D)
    log_var, (low, high) = bounded(raw, bounds), bounds.unbind(1)
    # If the bounds are close, the softplus can exceed the upper bound slightly.
    assert ((log_var >= low) & (log_var <= high + 0.1)).all()
    assert (log_var.diff(dim=1) >= -1e-5).all()
    selected = bounded(raw[[2, 0]], bounds[[2, 0]])
    # The last bits may differ: the end of a vector uses other instructions than its middle.
    torch.testing.assert_close(selected, log_var[[2, 0]])


def test_variances_of_many_columns_match_the_data() -> None:
    """With 300 columns, the bound penalty affects a column as little as with one column."""
    stds = torch.cat([torch.full((150,), 0.1), torch.ones(150)])
    targets = stds * torch.randn(1, 256, 300)
    bounds, outputs = first_bounds(1, 300).requires_grad_(), torch.zeros(1, 1, 600).requires_grad_()
    optimizer = torch.optim.Adam([outputs, bounds], 0.05)
    for _ in range(500):
        means, raw = outputs.expand(-1, 256, -1).chunk(2, -1)
        loss = gaussian_nll(means, bounded(raw, bounds), targets) + bound_penalty(bounds)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    log_var = bounded(outputs.detach()[..., 300:], bounds.detach())
    expected = targets.var(1, keepdim=True, unbiased=False).log()
    torch.testing.assert_close(log_var, expected, atol=0.05, rtol=0)
