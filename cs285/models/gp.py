"""Gaussian processes on the change of the observation: the dynamics model of PILCO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cs285.infrastructure.pytorch_util import CONSTANT, TINY
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.bfgs import Minimum, SearchState, minimise
from cs285.models.moments import KernelSum, Moments, append, augment, kernel_sum_moments

# A length-scale may differ from the std of its input by this factor, and the signal-to-noise ratio
# may be this large, before a steep penalty sets in (hypCurb.m of the authors).
LARGEST_SCALE, LARGEST_SNR, CURB_POWER = 100.0, 1000.0, 30
INITIAL_SNR = 10.0
JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)  # added noise variance, in units of the signal variance


class Features(NamedTuple):
    """The columns that GPs and policies see: each angle is replaced by its sine and cosine.

    The augmented observation is the observation and then sine and cosine of each angle.
    """

    ob_dim: int
    angle_dims: tuple[int, ...]

    @property
    def dims(self) -> list[int]:
        """The indices of the F features in the augmented observation."""
        plain = [dim for dim in range(self.ob_dim) if dim not in self.angle_dims]
        return [*plain, *range(self.ob_dim, self.ob_dim + 2 * len(self.angle_dims))]

    def augmented(self, obs: Tensor) -> Tensor:
        """Return the augmented observations (..., O + 2 angles) of obs (..., O)."""
        angles = obs[..., list(self.angle_dims)]
        return torch.cat([obs, torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)], -1)

    def of(self, obs: Tensor) -> Tensor:
        """Return the features (..., F) of obs (..., O)."""
        return self.augmented(obs)[..., self.dims]

    def augment(self, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (G,) and covariance (G, G) of the augmented observation.

        `mean` (O,) and `cov` (O, O) are of the observation; G is O plus twice the angles.
        """
        return augment(mean, cov, self.angle_dims)


class GPModel(DynamicsModel):
    """One Gaussian process with its own length-scales per observation dimension, in float64.

    Inputs are the features and the action; targets are the changes of the observation. The prior
    mean is zero, so far from the data an observation keeps its value. As a DynamicsModel it has
    one member, and noise samples from the posterior of the noise-free change.
    """

    log_scales: Tensor  # (O, D), logarithms of the length-scales
    log_signal: Tensor  # (O,), logarithm of the std of the signal
    log_noise: Tensor  # (O,), logarithm of the std of the noise
    inputs: Tensor  # (n, D)
    targets: Tensor  # (n, O)
    obs_std: Tensor  # (O,)

    def __init__(
        self,
        ob_dim: int,
        ac_dim: int,
        angle_dims: Sequence[int],
        is_uncertain: bool = True,
        predicts_noise: bool = False,
    ) -> None:
        """Make an unfitted model.

        Without `is_uncertain`, moments ignore the model's uncertainty. With `predicts_noise`, they
        include the noise of the data.
        """
        super().__init__()
        self.features = Features(ob_dim, tuple(angle_dims))
        self.is_uncertain, self.predicts_noise = is_uncertain, predicts_noise
        self.noise_dim = ob_dim
        columns = len(self.features.dims) + ac_dim
        shapes = {
            "log_scales": (ob_dim, columns),
            "log_signal": (ob_dim,),
            "log_noise": (ob_dim,),
            "inputs": (0, columns),
            "targets": (0, ob_dim),
            "obs_std": (ob_dim,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self._functions: KernelSum | None = None

    @property
    def obs_scale(self) -> Tensor:
        """The std (O,) of the observations in the last fit."""
        return self.obs_std

    @property
    def signal_to_noise(self) -> Tensor:
        """The ratio (O,) of the stds of signal and noise."""
        return (self.log_signal - self.log_noise).exp()

    def relative_scales(self) -> Tensor:
        """Return each input's shortest length-scale over the GPs, in std of the input: (D,).

        The shorter it is, the more the input matters. An input beyond 10 hardly matters.
        """
        return self.log_scales.amin(0).exp() / spread_of(self.inputs)

    @property
    def functions(self) -> KernelSum:
        """The posterior of the last fit."""
        if self._functions is None:
            with torch.inference_mode(False):  # callers with gradients use it later
                self._functions = self._posterior()
        return self._functions

    def inputs_of(self, obs: Tensor, acs: Tensor) -> Tensor:
        """Return the inputs (..., D) for obs (..., O) and acs (..., A) in float64."""
        return torch.cat([self.features.of(obs.double()), acs.double()], -1)

    def fit(self, data: Transitions, line_searches: int) -> dict[str, Tensor]:
        """Fit the hyper-parameters to all rows of `data` by their marginal likelihood.

        BFGS starts from the previous fit and from the statistics of the data; the better result
        is kept. Returns metrics (1,).
        """
        first = len(self.inputs) == 0
        self.inputs = self.inputs_of(data.obs, data.acs)
        self.targets = data.next_obs.double() - data.obs.double()
        self.obs_std = data.obs.double().std(0, correction=0)
        total = 0.0
        for dim, target in enumerate(self.targets.unbind(1)):
            previous = torch.cat(
                [self.log_scales[dim], self.log_signal[dim, None], self.log_noise[dim, None]]
            )
            starts = [initial_hyperparameters(self.inputs, target)]
            best = fit_hyperparameters(
                self.inputs, target, starts if first else [previous, *starts], line_searches
            )
            self.log_scales[dim], self.log_signal[dim] = best.point[:-2], best.point[-2]
            self.log_noise[dim] = best.point[-1]
            total += best.value
        self._functions = None
        metrics = {"GP Loss": total, "GP Rows": float(len(data.obs))}
        return {name: self.inputs.new_tensor([value]) for name, value in metrics.items()}

    def _posterior(self) -> KernelSum:
        """Return the posterior as a sum of kernels."""
        variances, noises = (2 * self.log_signal).exp(), (2 * self.log_noise).exp()
        kernels = kernel(self.inputs, self.inputs, self.log_scales, self.log_signal)
        eye = torch.eye(len(self.inputs), dtype=kernels.dtype, device=kernels.device)
        for jitter in JITTERS:  # 0 is enough unless the curb did not hold
            diagonal = (noises + jitter * variances)[:, None, None] * eye
            factors, failed = torch.linalg.cholesky_ex(kernels + diagonal)
            if not failed.any():
                break
        beta = torch.cholesky_solve(self.targets.mT[..., None], factors)[..., 0]
        inverse = torch.cholesky_inverse(factors) if self.is_uncertain else None
        return KernelSum.of(self.inputs, (-self.log_scales).exp(), variances, beta, inverse)

    def predict(self, obs: Tensor, acs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std (B, O) of the noise-free change for obs (B, O), acs (B, A)."""
        functions = self.functions
        inputs = self.inputs_of(obs, acs)
        kernels = kernel(inputs, self.inputs, self.log_scales, self.log_signal)  # (O, B, n)
        mean = (kernels @ functions.beta[..., None])[..., 0]
        if functions.inverse is None:
            return mean.mT, torch.zeros_like(mean.mT)
        explained = ((kernels @ functions.inverse) * kernels).sum(-1)
        variance = functions.variances[:, None] - explained
        # The lower limit also keeps the gradient of the square root finite.
        return mean.mT, variance.clamp(min=1e-12).sqrt().mT

    def step(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        """Take one step (see Step); computed in float64, returned in the precision of `state`."""
        obs = state[0]
        mean, std = self.predict(obs, acs[0])
        change = mean if noise is None else mean + std * noise[0]
        next_obs = (obs + change.to(obs.dtype))[None]
        return next_obs, Prediction(next_obs, next_obs.new_zeros(next_obs.shape[:-1]), None)

    def propagate(self, mean: Tensor, cov: Tensor, action: Moments) -> tuple[Tensor, Tensor]:
        """Return mean (O,) and covariance (O, O) of the next observation.

        `mean` and `cov` are the moments of the augmented observation, and `action` the moments of
        the action given the features. Deisenroth & Rasmussen 2011, equations 10 to 12.
        """
        O, dims = self.features.ob_dim, self.features.dims
        joint_mean, joint = append(mean, cov, action, cov[:, dims])
        used = torch.tensor([*dims, *range(len(mean), len(joint_mean))], device=mean.device)
        columns = joint.index_select(1, used)
        change = kernel_sum_moments(
            self.functions, joint_mean.index_select(0, used), columns.index_select(0, used)
        )
        between = columns[:O] @ change.cross
        next_cov = cov[:O, :O] + change.cov + between + between.mT
        if self.predicts_noise:
            next_cov = next_cov + torch.diag((2 * self.log_noise).exp())
        return mean[:O] + change.mean, (next_cov + next_cov.mT) / 2

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Restore the state that `state_dict` returned, with its number of rows."""
        self.inputs = torch.empty_like(state_dict["inputs"])
        self.targets = torch.empty_like(state_dict["targets"])
        self._functions = None
        return super().load_state_dict(state_dict, strict, assign)


def kernel(left: Tensor, right: Tensor, log_scales: Tensor, log_signal: Tensor) -> Tensor:
    """Return the kernel matrices (E, B, n) of rows (B, D) and (n, D) for E length-scales (E, D)."""
    scales = (-log_scales).exp()[:, None]
    # Distances are sums over the columns; broadcasting (B, n, D) would need D times the memory.
    centre = right.mean(0)
    left, right = (left - centre) * scales, (right - centre) * scales
    squares = left.square().sum(-1)[..., None] + right.square().sum(-1)[:, None]
    distances = (squares - 2 * left @ right.mT).clamp(min=0)
    return (2 * log_signal[:, None, None] - 0.5 * distances).exp()


def negative_log_likelihood(hyperparameters: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return -log p(targets (n,) | inputs (n, D)) of one Gaussian process.

    `hyperparameters` (D + 2,) are logarithms: length-scales, std of signal, std of noise.
    """
    n, noise = len(inputs), (2 * hyperparameters[-1]).exp()
    matrix = kernel(inputs, inputs, hyperparameters[None, :-2], hyperparameters[-2:-1])[0]
    factor = torch.linalg.cholesky(matrix + noise * torch.eye(n).to(matrix))
    whitened = torch.linalg.solve_triangular(factor, targets[:, None], upper=False)
    log_det = factor.diagonal().log().sum()
    return 0.5 * whitened.square().sum() + log_det + 0.5 * n * math.log(2 * math.pi)


def curb(hyperparameters: Tensor, input_std: Tensor) -> Tensor:
    """Return the penalty () on extreme length-scales and signal-to-noise ratios (hypCurb.m).

    `hyperparameters` (D + 2,) are as in `negative_log_likelihood`; `input_std` is (D,).
    """
    scales = (hyperparameters[:-2] - input_std.log()) / math.log(LARGEST_SCALE)
    ratio = (hyperparameters[-2] - hyperparameters[-1]) / math.log(LARGEST_SNR)
    return (scales**CURB_POWER).sum() + ratio**CURB_POWER


def spread_of(inputs: Tensor) -> Tensor:
    """Return the std (D,) of each input column (n, D), and 1 for a constant column."""
    std, mean = torch.std_mean(inputs, 0, correction=min(1, len(inputs) - 1))
    return torch.where(std > CONSTANT * mean.abs() + TINY, std, 1.0)


def initial_hyperparameters(inputs: Tensor, targets: Tensor) -> Tensor:
    """Return hyper-parameters (D + 2,) for inputs (n, D) and targets (n,).

    Length-scales and signal are the std of the data, and the noise is a tenth of the signal.
    """
    signal = targets.std(correction=min(1, len(targets) - 1))
    if signal <= TINY:  # a constant change; TINY is for a dimension that never changes
        signal = targets.abs().max().clamp(min=TINY)
    rest = torch.stack([signal, signal / INITIAL_SNR])
    return torch.cat([spread_of(inputs), rest]).log()


def fit_hyperparameters(
    inputs: Tensor, targets: Tensor, starts: Sequence[Tensor], line_searches: int
) -> Minimum:
    """Minimise the curbed negative log-likelihood of inputs (n, D) and targets (n,).

    Return the best result over the starts (D + 2,).
    """
    if not targets.any():  # its likelihood has no maximum
        return Minimum(starts[-1], 0.0, 0)
    std = spread_of(inputs)

    def loss(hyperparameters: Tensor) -> Tensor:
        return negative_log_likelihood(hyperparameters, inputs, targets) + curb(
            hyperparameters, std
        )

    found = [minimise(loss, SearchState.at(start, line_searches)) for start in starts]
    return min(found, key=lambda minimum: minimum.value)
