"""The heads' gradients are autograd's, and a Gaussian head learns means and variances."""

import pytest
import torch
from torch import Tensor

from cs285.models.losses import BOUND_WEIGHT, NOISE_FLOOR, EndingHead, GaussianHead, PointHead

E, B, D = 3, 11, 4


def point_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Sum over members: the mean over columns of log(MSE + floor)."""
    mse = (outputs - targets).square().mean(1)
    return (mse + NOISE_FLOOR).log().mean(1).sum()


def gaussian_loss(outputs: Tensor, bounds: Tensor, targets: Tensor) -> Tensor:
    """Sum over members: NLL but for constants, and the bounds; by torch's own softplus."""
    softplus = torch.nn.functional.softplus
    low, high = bounds.unbind(1)
    log_var = high - softplus(high - outputs[..., D:])
    log_var = low + softplus(log_var - low)
    errors = outputs[..., :D] - targets
    nll = (errors**2 / log_var.exp() + log_var).mean((1, 2)).sum()
    return nll + BOUND_WEIGHT * (high - low).mean(2).sum()


def spread_bounds(head: GaussianHead) -> None:
    head.bounds += torch.randn_like(head.bounds)


@pytest.mark.parametrize("mean_loss", ["nll", "mse"])
def test_gaussian_gradients_are_those_of_autograd(mean_loss: str) -> None:
    head = GaussianHead(E, D, mean_loss).double()
    spread_bounds(head)
    outputs = (3 * torch.randn(E, B, 2 * D)).double().requires_grad_()
    targets = torch.randn(E, B, D).double()
    bounds = head.bounds.clone().requires_grad_()
    means, raw = outputs.split(D, -1)
    if mean_loss == "nll":
        loss = gaussian_loss(outputs, bounds, targets)
    else:
        variances_alone = torch.cat([means.detach(), raw], -1)
        loss = point_loss(means, targets) + gaussian_loss(variances_alone, bounds, targets)
    expected = torch.autograd.grad(loss, [outputs, bounds])
    found = head.gradient(outputs.detach(), targets)
    torch.testing.assert_close(found.outputs, expected[0])
    torch.testing.assert_close(found.parameters[0], expected[1])
    torch.testing.assert_close(found.losses, (means.detach() - targets).square().mean((0, 1)))


def test_means_are_fitted_as_points_where_that_is_asked_for() -> None:
    outputs, targets = torch.randn(E, B, 2 * D), torch.randn(E, B, D)
    found = GaussianHead(E, D, "mse").gradient(outputs, targets)
    expected = PointHead().gradient(outputs[..., :D], targets)
    assert torch.equal(found.outputs[..., :D], expected.outputs)


def test_variances_of_many_columns_are_those_of_the_data() -> None:
    """The bounds press as little on each of 300 columns as on a single one."""
    stds = torch.cat([torch.full((150,), 0.1), torch.ones(150)])
    targets = stds * torch.randn(1, 256, 300)
    head, outputs = GaussianHead(1, 300), torch.zeros(1, 1, 600)
    optimizer = torch.optim.Adam([outputs, head.bounds], 0.05)
    for _ in range(500):
        found = head.gradient(outputs.expand(-1, 256, -1), targets)
        outputs.grad, head.bounds.grad = found.outputs.sum(1, keepdim=True), found.parameters[0]
        optimizer.step()
    _, log_var = head.moments(outputs)
    assert log_var is not None
    expected = targets.var(1, keepdim=True, unbiased=False).log()
    torch.testing.assert_close(log_var, expected, atol=0.05, rtol=0)


def test_point_gradients_are_those_of_autograd() -> None:
    outputs = torch.randn(E, B, D).double().requires_grad_()
    targets = torch.randn(E, B, D).double()
    (expected,) = torch.autograd.grad(point_loss(outputs, targets), [outputs])
    torch.testing.assert_close(PointHead().gradient(outputs.detach(), targets).outputs, expected)


@pytest.mark.parametrize("kind", ["point", "gaussian"])
def test_the_ending_adds_a_cross_entropy_and_changes_nothing_else(kind: str) -> None:
    inner = PointHead() if kind == "point" else GaussianHead(E, D).double()
    width = D if kind == "point" else 2 * D
    outputs = torch.randn(E, B, width + 1).double().requires_grad_()
    targets, ended = torch.randn(E, B, D).double(), (torch.rand(E, B, 1) < 0.4).double()
    found = EndingHead(inner).gradient(outputs.detach(), torch.cat([targets, ended], -1))
    without = inner.gradient(outputs.detach()[..., :-1], targets)
    assert torch.equal(found.outputs[..., :-1], without.outputs)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs[..., -1:], ended, reduction="none"
    )
    (expected,) = torch.autograd.grad(entropy.mean(1).sum(), [outputs])
    torch.testing.assert_close(found.outputs[..., -1:], expected[..., -1:])
    torch.testing.assert_close(found.losses[-1], entropy.mean().detach())


def test_log_variances_stay_between_their_bounds() -> None:
    head = GaussianHead(E, D)
    spread_bounds(head)
    raw = torch.linspace(-100, 100, 201)[None, :, None].expand(E, -1, D)
    _, log_var = head.moments(torch.cat([torch.zeros_like(raw), raw], -1))
    low, high = head.bounds.unbind(1)
    assert log_var is not None
    # Softplus of both bounds: a little above the upper one, where the lower one is near.
    assert ((log_var >= low) & (log_var <= high + 0.1)).all()
    assert (log_var.diff(dim=1) >= -1e-5).all()
    _, of_two = head.moments(
        torch.cat([torch.zeros_like(raw), raw], -1)[[2, 0]], torch.tensor([2, 0])
    )
    assert of_two is not None
    # The end of a vector and its middle go through different instructions: not to the last bit.
    torch.testing.assert_close(of_two, log_var[[2, 0]])
