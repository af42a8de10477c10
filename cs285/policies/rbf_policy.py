"""The deterministic policies of PILCO: their actions, and the moments of their actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cs285.infrastructure.pytorch_util import from_numpy, to_numpy
from cs285.models.gp import Features, kernel
from cs285.models.moments import (
    KernelSum,
    Moments,
    chain,
    kernel_sum_moments,
    linear_moments,
    scale_moments,
    squash_moments,
)
from cs285.policies.base_policy import Memory

RIDGE = 1e-4  # added to the kernel matrix of the centres: the RBF network's noise variance
VARIANCE_FLOOR = 1e-6  # added to the variance of the network's output
INITIAL_STD = 0.1  # of the initial targets and weights
INITIAL_SCALES = (1.0, 0.7)  # of a plain feature, and of a sine or cosine


class Preliminary(Protocol):
    """A policy v(x) before the squashing, with its parameters."""

    def values(self, features: Tensor) -> Tensor:
        """Return v (B, A) for features (B, F)."""
        ...

    def moments(self, mean: Tensor, cov: Tensor) -> Moments:
        """Return the moments of v (A,) for features ~ N(mean (F,), cov (F, F))."""
        ...


class Affine(NamedTuple):
    """v = weights (A, F) x + bias (A,)."""

    weights: Tensor
    bias: Tensor

    def values(self, features: Tensor) -> Tensor:
        return features @ self.weights.mT + self.bias

    def moments(self, mean: Tensor, cov: Tensor) -> Moments:
        return linear_moments(self.weights, self.bias, mean, cov)


class RBFNetwork(NamedTuple):
    """The mean of a Gaussian process with its own data."""

    functions: KernelSum
    log_scales: Tensor  # (A, F)

    def values(self, features: Tensor) -> Tensor:
        log_signal = torch.zeros_like(self.log_scales[:, 0])
        kernels = kernel(features, self.functions.centres, self.log_scales, log_signal)
        return (kernels @ self.functions.beta[..., None])[..., 0].mT

    def moments(self, mean: Tensor, cov: Tensor) -> Moments:
        moments = kernel_sum_moments(self.functions, mean, cov)
        floor = VARIANCE_FLOOR * torch.eye(len(moments.mean)).to(moments.cov)
        return moments._replace(cov=moments.cov + floor)


class SquashedPolicy(nn.Module):
    """A function of the features, squashed smoothly into the action box.

    All parameters are one vector (P,) in float64. Methods take the `preliminary` policy of a
    parameter vector, so that a search prepares it once per vector.
    """

    ac_center: Tensor
    ac_half_range: Tensor

    def __init__(
        self,
        features: Features,
        ac_low: NDArray[np.float32],
        ac_high: NDArray[np.float32],
        third_harmonic: bool,
    ) -> None:
        super().__init__()
        self.features, self.third_harmonic = features, third_harmonic
        low, high = from_numpy(ac_low).double(), from_numpy(ac_high).double()
        self.register_buffer("ac_center", (high + low) / 2, persistent=False)
        self.register_buffer("ac_half_range", (high - low) / 2, persistent=False)
        self.vector = nn.Parameter(torch.zeros(0, dtype=torch.float64), requires_grad=False)

    def initial_vector(self, starts: Tensor, generator: torch.Generator) -> Tensor:
        """Draw parameters (P,); `starts` (n, O) are observations at the start of episodes."""
        raise NotImplementedError

    def preliminary(self, vector: Tensor) -> Preliminary:
        """Return the policy before the squashing with the parameters `vector` (P,)."""
        raise NotImplementedError

    def act(self, preliminary: Preliminary, obs: Tensor) -> Tensor:
        """Return the actions (B, A) for obs (B, O)."""
        values = preliminary.values(self.features.of(obs.double()))
        sines = values.sin()
        if self.third_harmonic:
            sines = (9 * sines + (3 * values).sin()) / 8
        return self.ac_center + self.ac_half_range * sines

    def moments(self, preliminary: Preliminary, mean: Tensor, cov: Tensor) -> Moments:
        """Return the moments of the action (A,); its `cross` (F, A) belongs to the features.

        `mean` (G,) and `cov` (G, G) are of the augmented observation.
        """
        dims = self.features.dims
        inner = preliminary.moments(mean[dims], cov[dims][:, dims])
        outer = squash_moments(inner.mean, inner.cov, self.third_harmonic)
        return chain(scale_moments(outer, self.ac_half_range, self.ac_center), inner)


class RBFPolicy(SquashedPolicy):
    """An RBF network per action dimension on shared centres, squashed.

    The parameters are the length-scales (A, F), the centres (b, F) and the values (b, A) that the
    network takes near the centres. Deisenroth & Rasmussen 2011, section 2.4.
    """

    def __init__(
        self,
        features: Features,
        ac_low: NDArray[np.float32],
        ac_high: NDArray[np.float32],
        third_harmonic: bool,
        basis: int,
    ) -> None:
        super().__init__(features, ac_low, ac_high, third_harmonic)
        A, F = len(ac_low), len(features.dims)
        self.sizes = (A * F, basis * F, basis * A)
        self.vector = nn.Parameter(torch.zeros(sum(self.sizes)).double(), requires_grad=False)

    def initial_vector(self, starts: Tensor, generator: torch.Generator) -> Tensor:
        """Draw centres among the starts, and small values."""
        features, (_, centres, values) = self.features, self.sizes
        count = centres // len(features.dims)
        chosen = features.of(starts)[torch.randint(len(starts), (count,), generator=generator)]
        plain = len(features.dims) - 2 * len(features.angle_dims)
        scales = torch.full((len(features.dims),), INITIAL_SCALES[1], dtype=torch.float64)
        scales[:plain] = INITIAL_SCALES[0]
        drawn = INITIAL_STD * torch.randn(values, generator=generator, dtype=torch.float64)
        log_scales = scales.log().repeat(len(self.ac_center))
        return torch.cat([log_scales, chosen.flatten(), drawn]).to(self.vector.device)

    def preliminary(self, vector: Tensor) -> RBFNetwork:
        """Return the RBF networks with the parameters `vector` (P,)."""
        A, F = len(self.ac_center), len(self.features.dims)
        log_scales, centres, values = vector.split(self.sizes)
        log_scales, centres = log_scales.view(A, F), centres.view(-1, F)
        one = torch.ones_like(log_scales[:, 0])
        kernels = kernel(centres, centres, log_scales, torch.zeros_like(one))
        ridge = RIDGE * torch.eye(len(centres)).to(kernels)
        beta = torch.linalg.solve(kernels + ridge, values.view(-1, A).mT[..., None])[..., 0]
        return RBFNetwork(KernelSum.of(centres, (-log_scales).exp(), one, beta), log_scales)


class LinearPolicy(SquashedPolicy):
    """A linear function of the features, squashed."""

    def __init__(
        self,
        features: Features,
        ac_low: NDArray[np.float32],
        ac_high: NDArray[np.float32],
        third_harmonic: bool,
    ) -> None:
        super().__init__(features, ac_low, ac_high, third_harmonic)
        size = len(ac_low) * (len(features.dims) + 1)
        self.vector = nn.Parameter(torch.zeros(size).double(), requires_grad=False)

    def initial_vector(self, starts: Tensor, generator: torch.Generator) -> Tensor:
        """Draw small weights and biases."""
        draws = torch.randn(len(self.vector), generator=generator, dtype=torch.float64)
        return (INITIAL_STD * draws).to(self.vector.device)

    def preliminary(self, vector: Tensor) -> Affine:
        """Return the linear function with the parameters `vector` (P,)."""
        matrix = vector.view(len(self.ac_center), -1)
        return Affine(matrix[:, :-1], matrix[:, -1])


class PilcoActor:
    """Acts with a SquashedPolicy on observations with measurement noise of std `noise_std` (O,)."""

    def __init__(
        self, policy: SquashedPolicy, device: torch.device, noise_std: Tensor | None = None
    ) -> None:
        self.policy, self.device, self.noise_std = policy, device, noise_std

    @torch.inference_mode()
    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """Return actions (B, A) in the task's box for obs (B, O)."""
        measured = from_numpy(obs, self.device)
        if self.noise_std is not None:
            draws = [measurement_noise(self.noise_std, memory.generator) for memory in memories]
            measured = measured + torch.stack(draws)
        preliminary = self.policy.preliminary(self.policy.vector)
        acs = self.policy.act(preliminary, measured).float()
        center, half = self.policy.ac_center, self.policy.ac_half_range
        # Rounding to float32 can leave the box by one bit.
        return to_numpy(acs.clamp((center - half).float(), (center + half).float()))


def measurement_noise(std: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the noise (O,) of the next observation of an episode."""
    return std * torch.randn(len(std), generator=generator, device=std.device)
