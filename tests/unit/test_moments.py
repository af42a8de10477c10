"""Tests of the moments of PILCO: against values of an independent implementation, and sampling."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cs285.models.moments import (
    KernelSum,
    Moments,
    angle_moments,
    augment,
    kernel_sum_moments,
    linear_moments,
    saturating_cost_mean,
    saturating_cost_variance,
    scale_moments,
    squash_moments,
)

SAMPLES, ERRORS = 200_000, 5.0  # of a Monte Carlo test; tolerance in standard errors
CART_TARGET = torch.tensor([0, 0, 0, 0, 0, -1.0], dtype=torch.float64)
CART_MATRIX = torch.tensor([[1, 0, 0, 0, 0.5, 0], [0, 0, 0, 0, 0, 0.5]], dtype=torch.float64)


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def posterior(
    inputs: Tensor, targets: Tensor, scales: Tensor, variances: Tensor, noises: Tensor
) -> KernelSum:
    """Return the posterior by plain inversion: inputs (n, D), targets (n, E), scales (E, D)."""
    differences = (inputs[:, None] - inputs) / scales[:, None, None]
    kernels = variances[:, None, None] * (-0.5 * differences.square().sum(-1)).exp()
    inverse = torch.linalg.inv(kernels + noises[:, None, None] * torch.eye(len(inputs)).double())
    beta = (inverse @ targets.mT[..., None])[..., 0]
    return KernelSum.of(inputs, 1 / scales, variances, beta, inverse)


def golden_posterior() -> KernelSum:
    i, j = torch.arange(1, 7).double(), torch.arange(1, 4).double()
    return posterior(
        torch.sin(i[:, None] * j),
        torch.stack([i.cos(), (2 * i).sin()], -1),
        double([[0.8, 1.1, 1.4], [1.2, 0.9, 0.7]]),
        double([1.5, 0.6]),
        double([0.01, 0.02]),
    )


GOLDEN_MEAN = double([0.1, -0.2, 0.3])
GOLDEN_COV = double([[0.10, 0.02, 0.01], [0.02, 0.20, -0.03], [0.01, -0.03, 0.15]])


def assert_close(found: Tensor, expected: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, double(expected), rtol=0, atol=tolerance)


def test_gp_moments_have_the_golden_values() -> None:
    functions = golden_posterior()
    mean, cov, cross = kernel_sum_moments(functions, GOLDEN_MEAN, GOLDEN_COV)
    assert_close(mean, [-0.5931446020553256, -0.1444226492866925])
    between = -0.002709768632855644
    assert_close(cov, [[0.3647825412095864, between], [between, 0.28036160354587936]])
    assert_close(
        cross,
        [
            [-0.3559342708785393, 0.09215297868651527],
            [-0.07515408061335932, 0.7560882835959859],
            [-0.7801131461936585, 0.060880350273196965],
        ],
    )
    certain = KernelSum.of(*functions[:4])
    cov = kernel_sum_moments(certain, GOLDEN_MEAN, GOLDEN_COV).cov
    assert_close(cov, [[0.17166354971430542, between], [between, 0.13680807399112369]])


def test_moments_of_angles_have_the_golden_values() -> None:
    mean, cov, _ = angle_moments(double([0.3, 2.5]), double([[0.2, 0.05], [0.05, 0.4]]))
    assert_close(mean, [0.2673977408, 0.8644242022, 0.4899875492, -0.6559209157])
    assert_close(cov.diagonal(), [0.1518789445, 0.0293903024, 0.1961833836, 0.1334965703])
    upper = cov[torch.triu_indices(4, 4, 1).unbind()]
    assert_close(
        upper,
        [-0.0418994944, -0.0281976985, -0.0214059654, 0.0093027998, 0.0058449181, 0.1059568565],
        1.0001e-9 / 2,
    )


def test_squashed_moments_have_the_golden_values() -> None:
    for third_harmonic, expected in (
        (True, (6.517660423547855, 18.195223228251212, 6.915153293114669)),
        (False, (5.544833019595838, 14.590829495934274, 6.583057713021471)),
    ):
        plain = squash_moments(double([0.7]), double([[0.3]]), third_harmonic)
        scaled = scale_moments(plain, double([10.0]), double([0.0]))
        assert_close(torch.cat([part.flatten() for part in scaled]), expected)


@pytest.mark.parametrize(
    ("angle", "expected"),
    [(0.0, 0.9996807920798266), (math.pi, 0.08711368734147051), (math.pi / 2, 0.9758680289)],
)
def test_expected_cost_of_the_cart_pole_has_the_golden_value(angle: float, expected: float) -> None:
    mean, cov = augment(double([0, 0, 0, angle]), 0.01 * torch.eye(4).double(), [3])
    weights = CART_MATRIX.mT @ CART_MATRIX / 0.25**2
    assert_close(saturating_cost_mean(mean, cov, CART_TARGET, weights), expected, 1e-10)
    if angle == math.pi:
        variance = saturating_cost_variance(mean, cov, CART_TARGET, weights)
        assert_close(variance, 0.011781395895813729)


def random_case(inputs: int, outputs: int, seed: int = 0) -> tuple[KernelSum, Tensor, Tensor]:
    """Return a random posterior on 25 rows, and the moments of its uncertain input."""
    torch.manual_seed(seed)
    rows, targets = torch.randn(25, inputs).double(), torch.randn(25, outputs).double()
    functions = posterior(
        rows,
        targets,
        0.7 + torch.rand(outputs, inputs).double(),
        0.5 + torch.rand(outputs).double(),
        0.05 + 0.1 * torch.rand(outputs).double(),
    )
    factor = 0.4 * torch.randn(inputs, inputs).double()
    return functions, torch.randn(inputs).double(), factor


def draw(mean: Tensor, factor: Tensor) -> Tensor:
    return mean + torch.randn(SAMPLES, len(mean), dtype=torch.float64) @ factor.mT


def assert_sampled(found: Tensor, values: Tensor) -> None:
    """Compare an expectation with samples (n, ...), within 5 standard errors."""
    errors = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - found).abs() <= ERRORS * errors + 1e-9).all()


def products(left: Tensor, right: Tensor) -> Tensor:
    """Return centred outer products (n, ., .), whose expectation is the covariance."""
    return (left - left.mean(0))[:, :, None] * (right - right.mean(0))[:, None]


def test_gp_moments_equal_sampled_moments() -> None:
    functions, mean, factor = random_case(4, 3)
    cov = factor @ factor.mT
    found = kernel_sum_moments(functions, mean, cov)
    inputs = draw(mean, factor)
    parts = [values_and_variances(functions, chunk) for chunk in inputs.split(20_000)]
    values, variances = (torch.cat(part) for part in zip(*parts, strict=True))
    assert_sampled(found.mean, values)
    # The law of total variance.
    assert_sampled(found.cov, products(values, values) + torch.diag_embed(variances))
    assert_sampled(cov @ found.cross, products(inputs, values))


def values_and_variances(functions: KernelSum, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return posterior means and variances (n, E) at certain inputs (n, D)."""
    differences = (inputs[:, None] - functions.centres) * functions.inverse_scales[:, None, None]
    exponents = -0.5 * differences.square().sum(-1)
    kernels = functions.variances[:, None, None] * exponents.exp()  # (E, n, rows)
    assert functions.inverse is not None
    explained = ((kernels @ functions.inverse) * kernels).sum(-1)
    means = (kernels @ functions.beta[..., None])[..., 0]
    return means.mT, functions.variances - explained.mT


@pytest.mark.parametrize("third_harmonic", [True, False])
def test_squashed_moments_equal_sampled_moments(third_harmonic: bool) -> None:
    torch.manual_seed(1)
    mean, factor = double([0.4, -1.0]), double([[0.5, 0.0], [0.3, 0.6]])
    inputs, cov = draw(mean, factor), factor @ factor.mT
    found = squash_moments(mean, cov, third_harmonic)
    values = inputs.sin()
    if third_harmonic:
        values = (9 * inputs.sin() + (3 * inputs).sin()) / 8
    assert_moments(found, cov, inputs, values)


def test_moments_of_angles_equal_sampled_moments() -> None:
    torch.manual_seed(2)
    mean, factor = double([0.4, -2.0]), double([[0.5, 0.0], [-0.3, 0.6]])
    inputs, cov = draw(mean, factor), factor @ factor.mT
    values = torch.stack([inputs.sin(), inputs.cos()], -1).flatten(1)
    assert_moments(angle_moments(mean, cov), cov, inputs, values)
    joint_mean, joint_cov = augment(mean, cov, [0, 1])
    joint = torch.cat([inputs, values], 1)
    assert_sampled(joint_mean, joint)
    assert_sampled(joint_cov, products(joint, joint))


def assert_moments(found: Moments, cov: Tensor, inputs: Tensor, values: Tensor) -> None:
    assert_sampled(found.mean, values)
    assert_sampled(found.cov, products(values, values))
    assert_sampled(cov @ found.cross, products(inputs, values))


def test_cost_moments_equal_sampled_moments() -> None:
    torch.manual_seed(3)
    mean, factor = double([0.4, -0.2, 0.1]), 0.5 * torch.randn(3, 3).double()
    target, matrix = double([0.1, 0.0, -0.3]), torch.randn(2, 3).double()
    weights, cov = matrix.mT @ matrix, factor @ factor.mT  # weights are singular
    offsets = (draw(mean, factor) - target) @ matrix.mT
    costs = 1 - (-0.5 * offsets.square().sum(-1)).exp()
    assert_sampled(saturating_cost_mean(mean, cov, target, weights), costs)
    squares = (costs - costs.mean()).square()
    assert_sampled(saturating_cost_variance(mean, cov, target, weights), squares)


def test_certain_input_gives_the_posterior_and_its_slope() -> None:
    functions, mean, _ = random_case(3, 2)
    found = kernel_sum_moments(functions, mean, torch.zeros(3, 3).double())
    means, variances = values_and_variances(functions, mean[None])
    torch.testing.assert_close(found.mean, means[0])
    torch.testing.assert_close(found.cov, torch.diag(variances[0]), atol=1e-10, rtol=1e-7)

    def at(point: Tensor) -> Tensor:
        return values_and_variances(functions, point[None])[0][0]

    slope = torch.autograd.functional.jacobian(at, mean)
    torch.testing.assert_close(found.cross.mT, slope)


def moments_of_factor(function: Callable[..., Moments], functions: KernelSum | None) -> object:
    """Return a function of mean and factor of the covariance, for gradcheck."""

    def flat(mean: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
        cov = factor @ factor.mT
        return tuple(function(functions, mean, cov) if functions else function(mean, cov))

    return flat


def test_gradients_equal_finite_differences() -> None:
    functions, mean, factor = random_case(3, 2)
    leaves = (mean.requires_grad_(), factor.requires_grad_())
    for function, given in (
        (kernel_sum_moments, functions),
        (angle_moments, None),
        (squash_moments, None),
    ):
        assert torch.autograd.gradcheck(moments_of_factor(function, given), leaves)
    weights = double([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.autograd.gradcheck(
        lambda m, f: saturating_cost_mean(m, f @ f.mT, torch.zeros(3).double(), weights), leaves
    )


def test_gradients_with_respect_to_the_functions_equal_finite_differences() -> None:
    """The policy learns centres, length-scales and beta."""
    functions, mean, factor = random_case(2, 2)
    cov = factor @ factor.mT
    leaves = [functions.centres[:4], functions.inverse_scales, functions.beta[:, :4]]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]

    def flat(centres: Tensor, scales: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        certain = KernelSum.of(centres, scales, functions.variances, beta)
        return tuple(kernel_sum_moments(certain, mean, cov))

    assert torch.autograd.gradcheck(flat, leaves)


def test_linear_moments() -> None:
    weights, bias = double([[1.0, 2.0]]), double([0.5])
    mean, cov = double([1.0, -1.0]), double([[1.0, 0.5], [0.5, 2.0]])
    found = linear_moments(weights, bias, mean, cov)
    assert_close(found.mean, [-0.5])
    assert_close(found.cov, [[1 + 4 * 2 + 2 * 2 * 0.5]])
    assert_close(cov @ found.cross, [[2.0], [4.5]])


def test_moments_of_angles_do_not_overflow_for_large_variances() -> None:
    """An angle about which nothing is known is uniform: sine and cosine have variance 1/2."""
    variance = double([[2000.0, 0.0], [0.0, 0.1]]).requires_grad_()
    found = angle_moments(double([0.3, 0.2]), variance)
    torch.testing.assert_close(found.cov[:2, :2], 0.5 * torch.eye(2).double())
    (gradient,) = torch.autograd.grad(found.cov.sum() + found.mean.sum(), variance)
    assert gradient.isfinite().all()
    squashed = squash_moments(double([0.3]), double([[2000.0]]))
    expected = (9**2 + 1) / 8**2 / 2  # of (9 sin v + sin 3v) / 8 for a uniform v
    assert squashed.cov.item() == pytest.approx(expected)


def test_gradient_of_angles_without_covariance() -> None:
    mean = double([0.3, -0.2])

    def covs(values: Tensor) -> Tensor:
        cov = torch.diag(double([0.5, 0.2])) + values * double([[0.0, 1.0], [1.0, 0.0]])
        return angle_moments(mean, cov).cov

    assert torch.autograd.gradcheck(covs, double([0.0]).requires_grad_())
