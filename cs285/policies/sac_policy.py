"""The squashed Gaussian policy of SAC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cs285.config.sac import SACConfig
from cs285.infrastructure.pytorch_util import (
    TINY,
    Normalizer,
    from_numpy,
    to_numpy,
)
from cs285.networks.ensemble_mlp import EnsembleMLP
from cs285.policies.base_policy import Memory, draw_each

OBS_CLIP = 5.0  # limit of scaled observations, in standard deviations
LOG_STD_RANGE = (-20.0, 2.0)
STD_FLOOR = 1e-5  # with --sac_policy_std softplus
_LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


class Sample(NamedTuple):
    """Actions drawn from the policy."""

    acs: Tensor  # (B, A), in [-1, 1]
    log_probs: Tensor  # (B,)


class SACPolicy(nn.Module):
    """The tanh of a Gaussian whose mean and std depend on the observation.

    The network sees scaled observations (`scale_obs`). Its actions are in [-1, 1] in each dimension
    (`from_task` and `to_task` convert them). Log-probabilities are densities of these actions, so
    an entropy means the same in every task. Haarnoja et al. 2018, arXiv:1812.05905, appendix C.
    """

    ac_low: Tensor
    ac_high: Tensor
    ac_center: Tensor
    ac_half_range: Tensor

    def __init__(
        self,
        ob_dim: int,
        ac_low: NDArray[np.float32],
        ac_high: NDArray[np.float32],
        config: SACConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.ac_dim = len(ac_low)
        widths = [ob_dim, *[config.sac_size] * config.sac_n_layers, 2 * self.ac_dim]
        init = config.sac_policy_init
        self.network = EnsembleMLP(1, widths, config.sac_activation, generator, init=init)
        self.std_form = config.sac_policy_std
        self.scales_obs = config.sac_obs_scaling != "none"
        self.clips_obs = config.sac_obs_scaling == "data"
        self.obs_scaler = Normalizer(ob_dim)
        low, high = from_numpy(ac_low), from_numpy(ac_high)
        self.register_buffer("ac_low", low, persistent=False)
        self.register_buffer("ac_high", high, persistent=False)
        self.register_buffer("ac_center", (high + low) / 2, persistent=False)
        self.register_buffer("ac_half_range", (high - low) / 2, persistent=False)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log std (B, A) of the Gaussian before the tanh, for scaled obs (B, O)."""
        mean, raw = self.network(obs[None])[0].chunk(2, -1)
        if self.std_form == "softplus":
            return mean, (nn.functional.softplus(raw) + STD_FLOOR).log()
        return mean, raw.clamp(*LOG_STD_RANGE)

    def sample(self, obs: Tensor, noise: Tensor) -> Sample:
        """Draw a differentiable action for each scaled obs (B, O) from normal noise (B, A).

        log(1 - tanh(u)^2) is computed as 2 (log 2 - u - softplus(-2u)), which stays finite and
        accurate if tanh(u) rounds to 1.
        """
        mean, log_std = self(obs)
        unsquashed = torch.addcmul(mean, log_std.exp(), noise)
        gaussian = -0.5 * noise.square() - log_std - _LOG_SQRT_2_PI
        squash = 2 * (math.log(2) - unsquashed - nn.functional.softplus(-2 * unsquashed))
        return Sample(unsquashed.tanh(), (gaussian - squash).sum(-1))

    def draw(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Draw actions (B, A) in the task's box for unscaled obs (B, O)."""
        noise = torch.randn((len(obs), self.ac_dim), generator=generator, device=obs.device)
        return self.to_task(self.sample(self.scale_obs(obs), noise).acs)

    def scale_obs(self, obs: Tensor) -> Tensor:
        """Return observations (..., O) normalised by the data's mean and std, and clipped.

        With --sac_obs_scaling unclipped, do not clip them. With none, return them unchanged.
        """
        if not self.scales_obs:
            return obs
        scaled = self.obs_scaler.normalize(obs)
        return scaled.clamp(-OBS_CLIP, OBS_CLIP) if self.clips_obs else scaled

    def to_task(self, acs: Tensor) -> Tensor:
        """Map actions (..., A) from [-1, 1] to the task's box."""
        scaled = torch.addcmul(self.ac_center, acs, self.ac_half_range)
        return scaled.clamp(self.ac_low, self.ac_high)  # rounding can leave the box by one bit

    def from_task(self, acs: Tensor) -> Tensor:
        """Map actions (..., A) from the task's box to [-1, 1]."""
        return (acs - self.ac_center) / self.ac_half_range.clamp(min=TINY)


class SACActor:
    """Acts with a SACPolicy: draws from it, or takes its mode if `deterministic`."""

    def __init__(self, policy: SACPolicy, device: torch.device, deterministic: bool) -> None:
        self.policy, self.device, self.deterministic = policy, device, deterministic

    @torch.inference_mode()
    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """Return actions (B, A) in the task's box for unscaled obs (B, O)."""
        mean, log_std = self.policy(self.policy.scale_obs(from_numpy(obs, self.device)))
        if not self.deterministic:
            noise = draw_each(memories, torch.randn, (self.policy.ac_dim,), self.device)
            mean = torch.addcmul(mean, log_std.exp(), noise)
        return to_numpy(self.policy.to_task(mean.tanh()))
