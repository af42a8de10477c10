"""The Q functions of SAC, stored as a stack of networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cs285.config.sac import SACConfig
from cs285.critics.value_bounds import ValueBounds
from cs285.networks.ensemble_mlp import EnsembleMLP, LayerNorm, Masks


class CriticDraws(NamedTuple):
    """The random draws of one critic step."""

    members: Tensor | None = None  # (M,), target networks whose minimum is used; None: all
    masks: Masks = ()  # of dropout


NO_DRAWS = CriticDraws()


class SACCritic(nn.Module):
    """E Q functions of scaled observations and of actions scaled to [-1, 1].

    SAC has twins, E = 2. With `bounds`, the networks' outputs are scaled by them, and the last
    layer is zero at first.
    """

    def __init__(
        self, ob_dim: int, ac_dim: int, config: SACConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = [ob_dim + ac_dim, *[config.sac_size] * config.sac_n_layers, 1]
        rate, eps = config.sac_value_bounds, config.sac_critic_layer_norm
        self.bounds = ValueBounds(rate) if rate > 0 else None
        self.drawn, self.actor_value = config.sac_critics_drawn, config.sac_actor_value
        self.network = EnsembleMLP(
            config.sac_critics,
            widths,
            config.sac_activation,
            generator,
            init=config.sac_critic_init,
            output_scale=0.0 if rate > 0 else 1.0,
            layer_norm=LayerNorm(eps) if eps > 0 else None,
            dropout=config.sac_critic_dropout,
        )

    def forward(
        self, obs: Tensor, acs: Tensor, members: Tensor | None = None, masks: Masks = ()
    ) -> Tensor:
        """Return the values (E, B) of scaled obs (B, O) and acs (B, A).

        With `members` (M,), return only the values (M, B) of these networks.
        """
        tensors = self.network.of_members(members)
        inputs = torch.cat([obs, acs], -1).expand(len(tensors[0]), -1, -1)
        outputs = self.network.apply_tensors(tensors, inputs, masks)[..., 0]
        return outputs if self.bounds is None else self.bounds.scale(outputs)

    def draw(self, rows: int, generator: torch.Generator) -> CriticDraws:
        """Draw the target networks and the dropout masks of a critic step on B `rows`."""
        members, E = None, self.network.ensemble_size
        if self.drawn is not None and self.drawn < E:
            order = torch.randperm(E, generator=generator, device=generator.device)
            members = order[: self.drawn]
        return CriticDraws(members, self.network.draw_masks(rows, generator))

    def target_value(self, obs: Tensor, acs: Tensor, members: Tensor | None) -> Tensor:
        """Return the least value (B,) of the networks `members` (None: all), within the bounds.

        The minimum of a random subset is from Chen et al. 2021 (REDQ), arXiv:2101.05982.
        """
        least = self(obs, acs, members).amin(0)
        return least if self.bounds is None else self.bounds.clip(least)

    def value_for_actor(self, obs: Tensor, acs: Tensor) -> Tensor:
        """Return the value (B,) that the policy maximises: the minimum or the mean over E."""
        values = self(obs, acs)
        return values.mean(0) if self.actor_value == "mean" else values.amin(0)


def td_target(
    rewards: Tensor,
    terminated: Tensor,
    next_values: Tensor,
    next_log_probs: Tensor,
    temperature: Tensor,
    discount: float,
) -> Tensor:
    """Return r + discount * (1 - terminated) * (Q' - temperature * log pi), (B,).

    All arguments are (B,), except the temperature. Terminated transitions do not bootstrap.
    Truncated transitions do, because a time limit does not terminate the task. Haarnoja et al.
    2018, arXiv:1812.05905, equations 2 and 3.
    """
    soft_values = next_values - temperature * next_log_probs
    return rewards + discount * torch.where(terminated, 0.0, soft_values)
