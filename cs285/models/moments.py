"""Exact means and covariances of functions of a Gaussian x ~ N(m, S): the equations of PILCO.

Every function returns the moments of y = f(x) with V = S^-1 cov(x, y), so cov(x, y) = S V and no
covariance is ever inverted. Deisenroth & Rasmussen 2011, "PILCO", equations 10 to 23, and
Deisenroth 2010, "Efficient Reinforcement Learning using Gaussian Processes", appendix A. All
functions are differentiable. Letters: D inputs, E outputs, n rows, L = E (E + 1) / 2 pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean and covariance of y, and V = S^-1 cov(x, y)."""

    mean: Tensor  # (E,)
    cov: Tensor  # (E, E)
    cross: Tensor  # (D, E)


class KernelSum(NamedTuple):
    """E functions on n shared centres: the posterior of Gaussian processes, or an RBF network.

    Function a has the mean sum_i beta_ai k_a(x, centre_i) with the kernel
    k_a(x, c) = variance_a exp(-1/2 sum_d ((x_d - c_d) / l_ad)^2). If the functions are uncertain,
    function a has the variance variance_a - k_a(x)^T G_a^-1 k_a(x).
    """

    centres: Tensor  # (n, D)
    inverse_scales: Tensor  # (E, D), 1 / l
    variances: Tensor  # (E,), of the signal
    beta: Tensor  # (E, n)
    inverse: Tensor | None  # (E, n, n), G_a^-1; None: the functions are certain
    first: Tensor  # (L,), index a of each pair of functions a >= b
    second: Tensor  # (L,), index b
    pair_of: Tensor  # (E, E), index of the pair of two functions
    pair_weights: Tensor  # (L, n, n), beta_a beta_b^T, minus G_a^-1 if a = b

    @staticmethod
    def of(
        centres: Tensor,
        inverse_scales: Tensor,
        variances: Tensor,
        beta: Tensor,
        inverse: Tensor | None = None,
    ) -> KernelSum:
        """Return the functions with their pair weights."""
        first, second = torch.tril_indices(len(beta), len(beta), device=beta.device)
        weights = beta[first, :, None] * beta[second, None, :]
        if inverse is not None:
            same = (first == second)[:, None, None]
            weights = torch.where(same, weights - inverse[first], weights)
        numbers = torch.arange(len(first), device=beta.device)
        pair_of = numbers.new_empty(len(beta), len(beta))
        pair_of[first, second] = pair_of[second, first] = numbers
        return KernelSum(
            centres, inverse_scales, variances, beta, inverse, first, second, pair_of, weights
        )


def kernel_sum_moments(functions: KernelSum, mean: Tensor, cov: Tensor) -> Moments:
    """Return the moments of E functions of x ~ N(mean (D,), cov (D, D)).

    Every expectation needs T = (S P + I)^-1 S for a precision matrix P: 1 / l_a^2 for the mean of
    function a, 1 / l_a^2 + 1 / l_b^2 for the covariance of a and b. All are computed as one batch.
    """
    centres, scales, variances, beta = functions[:4]
    E, D = scales.shape
    first, second = functions.first, functions.second
    L = len(first)
    precisions = scales.square()
    offsets = centres - mean  # (n, D)
    weighted = offsets * precisions[:, None]  # (E, n, D)
    log_kernels = variances.log()[:, None] - 0.5 * (weighted * offsets).sum(-1)  # (E, n)

    summed = torch.cat(
        [precisions, precisions.index_select(0, first) + precisions.index_select(0, second)]
    )  # (E + L, D)
    eye = torch.eye(D, dtype=cov.dtype, device=cov.device)
    spread = cov * summed[:, None] + eye  # S P + I
    shared = torch.linalg.solve_ex(spread, cov.expand(len(summed), D, D))[0]  # T
    shrink = (-0.5 * torch.linalg.slogdet(spread)[1]).exp()  # (E + L,)

    # For each function, and for the first and the second function of each pair.
    which = torch.cat([torch.arange(E, device=cov.device), first, second])
    chosen = weighted.index_select(0, which)  # (E + 2 L, n, D)
    shared_singles, shared_pairs = shared.split([E, L])
    moved = chosen @ torch.cat([shared_singles, shared_pairs, shared_pairs])
    logs = log_kernels.index_select(0, which) + 0.5 * (moved * chosen).sum(-1)  # (E + 2 L, n)
    moved_single, moved_first, _ = moved.split([E, L, L])
    logs_single, logs_first, logs_second = logs.split([E, L, L])
    shrink_single, shrink_pair = shrink.split([E, L])

    activations = beta * logs_single.exp() * shrink_single[:, None]  # (E, n)
    means = activations.sum(-1)
    slopes = weighted - moved_single * precisions[:, None]  # (S + diag(l_a^2))^-1 times the offsets
    cross = (activations[:, None] @ slopes)[:, 0]  # (E, D)

    one = logs.new_ones(L, len(centres), 1)
    left = torch.cat([moved_first, logs_first[..., None], one], -1)
    right = torch.cat([weighted.index_select(0, second), one, logs_second[..., None]], -1)
    sums = WeightedExponentials.apply(left, right, functions.pair_weights)
    covs = sums * shrink_pair - means.index_select(0, first) * means.index_select(0, second)
    full = covs.index_select(0, functions.pair_of.flatten()).view(E, E)
    if functions.inverse is not None:
        full = full + torch.diag(variances)
    return Moments(means, full, cross.mT)


class WeightedExponentials(torch.autograd.Function):
    """Sum weights * exp(left right^T) over (n, n), for L pairs at once.

    The gradients are computed together with the sums. Autograd would keep the (L, n, n)
    exponentials of all steps of a predicted episode until the backward pass, which is most of the
    memory of a policy search.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
        """Return the sums (L,) for left and right (L, n, D) and weights (L, n, n)."""
        L, n, _ = left.shape
        keeps = ctx.needs_input_grad[2]
        ctx.exponentials = weights.new_empty(L, n, n) if keeps else None
        sums, of_left, of_right = left.new_empty(L), torch.empty_like(left), torch.empty_like(right)
        # One pair at a time: its matrix stays in the cache, and all pairs share its memory.
        terms = left.new_empty(n, n)
        for pair, (one, other) in enumerate(zip(left, right, strict=True)):
            torch.mm(one, other.mT, out=terms).exp_()
            if keeps:
                ctx.exponentials[pair] = terms
            terms.mul_(weights[pair])
            torch.sum(terms, (0, 1), out=sums[pair])
            torch.mm(terms, other, out=of_left[pair])
            torch.mm(terms.mT, one, out=of_right[pair])
        ctx.save_for_backward(of_left, of_right)
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scale the gradients that `forward` computed."""
        of_left, of_right = ctx.saved_tensors
        scale = gradient[:, None, None]
        of_weights = None if ctx.exponentials is None else scale * ctx.exponentials
        return scale * of_left, scale * of_right, of_weights


def sine_moments(mean: Tensor, cov: Tensor) -> Moments:
    """Return the moments of sin(x_i) for x ~ N(mean (D,), cov (D, D)): E = D, and V is diagonal."""
    half = cov.diagonal() / 2
    shrink = (-half).exp()
    plus, minus = _trigonometric_terms(cov, half)
    sums, differences = mean[:, None] + mean, mean[:, None] - mean
    covs = (plus * differences.cos() - minus * sums.cos()) / 2
    return Moments(shrink * mean.sin(), covs, torch.diag(shrink * mean.cos()))


def angle_moments(mean: Tensor, cov: Tensor) -> Moments:
    """Return the moments of (sin x_1, cos x_1, sin x_2, cos x_2, ...) for D angles: E = 2 D.

    The angles are x ~ N(mean (D,), cov (D, D)).
    """
    D = len(mean)
    half = cov.diagonal() / 2
    shrink = (-half).exp()
    sines, cosines = shrink * mean.sin(), shrink * mean.cos()
    plus, minus = _trigonometric_terms(cov, half)
    sums, differences = mean[:, None] + mean, mean[:, None] - mean
    even, odd = plus * differences.cos(), minus * sums.cos()
    mixed = (plus * differences.sin() + minus * sums.sin()) / 2  # cov(sin_i, cos_j)
    blocks = torch.stack(
        [
            torch.stack([(even - odd) / 2, mixed], -1),
            torch.stack([mixed.mT, (even + odd) / 2], -1),
        ],
        1,
    )  # (D, 2, D, 2)
    cross = torch.stack([torch.diag(cosines), torch.diag(-sines)], -1)  # (D, D, 2)
    means = torch.stack([sines, cosines], -1).flatten()
    return Moments(means, blocks.reshape(2 * D, 2 * D), cross.reshape(D, 2 * D))


def _trigonometric_terms(cov: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp(-(s_ii + s_jj) / 2) (exp(s_ij) - 1), and the same with -s_ij: (D, D) each."""
    sums = half[:, None] + half
    return _scaled_expm1(cov, sums), _scaled_expm1(-cov, sums)


def _scaled_expm1(values: Tensor, sums: Tensor) -> Tensor:
    """Return exp(-sums) (exp(values) - 1) for values of at most `sums`, without an overflow.

    exp(values) alone is infinite for an angle with a variance above 709, or above 79 in the third
    harmonic of the squash.
    """
    # Not `clamp`, whose gradient at its bound depends on the version of torch.
    is_positive, zero = values > 0, torch.zeros_like(values)
    positive = torch.where(is_positive, values, zero)
    negative = torch.where(is_positive, zero, values)
    return torch.where(
        is_positive,
        -(positive - sums).exp() * torch.expm1(-positive),
        (-sums).exp() * torch.expm1(negative),
    )


def augment(mean: Tensor, cov: Tensor, angle_dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the joint moments of x and of sine and cosine of its angles: (D + 2 angles, ...).

    The order is x, sin and cos of the first angle, sin and cos of the second angle, and so on.
    """
    if not angle_dims:
        return mean, cov
    dims = list(angle_dims)
    angles = angle_moments(mean[dims], cov[dims][:, dims])
    return append(mean, cov, angles, cov[:, dims])


def append(
    mean: Tensor, cov: Tensor, added: Moments, cov_with_inputs: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the joint moments of x and y = f(z).

    `mean` (n,) and `cov` (n, n) are of x, and `cov_with_inputs` (n, D) is the covariance of x with
    the inputs z (D,) of f. Returns the mean (n + E,) and the covariance (n + E, n + E).
    """
    between = cov_with_inputs @ added.cross
    upper, lower = torch.cat([cov, between], 1), torch.cat([between.mT, added.cov], 1)
    return torch.cat([mean, added.mean]), torch.cat([upper, lower])


def linear_moments(weights: Tensor, bias: Tensor, mean: Tensor, cov: Tensor) -> Moments:
    """Return the moments of weights (E, D) x + bias (E,) for x ~ N(mean (D,), cov (D, D))."""
    return Moments(weights @ mean + bias, weights @ cov @ weights.mT, weights.mT)


def squash_moments(mean: Tensor, cov: Tensor, third_harmonic: bool = True) -> Moments:
    """Return the moments of (9 sin v + sin 3v) / 8, or of sin v without the third harmonic.

    Both map v (D,) to [-1, 1]; the first one is flatter at its limits.
    """
    if not third_harmonic:
        return sine_moments(mean, cov)
    eye = torch.eye(len(mean), dtype=cov.dtype, device=cov.device)
    harmonics, amplitudes = torch.cat([eye, 3 * eye]), torch.cat([9 * eye, eye], 1) / 8
    sines = sine_moments(harmonics @ mean, harmonics @ cov @ harmonics.mT)
    return Moments(
        amplitudes @ sines.mean,
        amplitudes @ sines.cov @ amplitudes.mT,
        harmonics.mT @ sines.cross @ amplitudes.mT,
    )


def scale_moments(moments: Moments, scale: Tensor, shift: Tensor) -> Moments:
    """Return the moments of scale (E,) y + shift (E,)."""
    cov = scale[:, None] * moments.cov * scale
    return Moments(scale * moments.mean + shift, cov, moments.cross * scale)


def chain(outer: Moments, inner: Moments) -> Moments:
    """Return the moments of outer(inner(x)), whose `cross` (D, E) belongs to x.

    `outer` was computed from the moments of `inner`.
    """
    return Moments(outer.mean, outer.cov, inner.cross @ outer.cross)


def saturating_cost_mean(mean: Tensor, cov: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the expectation () of 1 - exp(-1/2 (x - target)^T W (x - target)).

    `weights` W (D, D) is positive semidefinite and is never inverted.
    """
    offset, eye = mean - target, torch.eye(len(mean), dtype=cov.dtype, device=cov.device)
    spread = eye + cov @ weights
    moved = weights @ torch.linalg.solve_ex(spread, offset)[0]
    return 1 - (-0.5 * (offset @ moved + torch.linalg.slogdet(spread)[1])).exp()


def saturating_cost_variance(mean: Tensor, cov: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the variance () of the same cost."""
    near = 1 - saturating_cost_mean(mean, cov, target, weights)
    near_twice = 1 - saturating_cost_mean(mean, cov, target, 2 * weights)
    return (near_twice - near.square()).clamp(min=0)
