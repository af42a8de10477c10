"""The twin Q function of SAC, stored as a stack of two networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cs285.config.sac import SACConfig
from cs285.networks.ensemble_mlp import EnsembleMLP

TWINS = 2


class SACCritic(nn.Module):
    """Q1 and Q2 as functions of scaled observations and of actions scaled to [-1, 1]."""

    def __init__(
        self, ob_dim: int, ac_dim: int, config: SACConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = [ob_dim + ac_dim, *[config.sac_size] * config.sac_n_layers, 1]
        self.network = EnsembleMLP(TWINS, widths, "relu", generator)

    def forward(self, obs: Tensor, acs: Tensor) -> Tensor:
        """Return the values (2, B) of scaled obs (B, O) and acs (B, A)."""
        return self.network(torch.cat([obs, acs], -1).expand(TWINS, -1, -1))[..., 0]


def td_target(
    rewards: Tensor,
    terminated: Tensor,
    next_values: Tensor,
    next_log_probs: Tensor,
    temperature: Tensor,
    discount: float,
) -> Tensor:
    """Return r + discount * (1 - terminated) * (min Q' - temperature * log pi), (B,).

    `rewards`, `terminated` and `next_log_probs` are (B,), `next_values` (2, B). Terminated
    transitions do not bootstrap. Truncated transitions do, because a time limit does not terminate
    the task. Haarnoja et al. 2018, arXiv:1812.05905, equations 2 and 3.
    """
    soft_values = next_values.amin(0) - temperature * next_log_probs
    return rewards + discount * torch.where(terminated, 0.0, soft_values)
