"""A SAC learner in the style of homework 4 (built on homework 3), for comparison only.

It has two separate critics and a NumPy replay buffer. Every update converts arrays to tensors and
reads the losses back at once.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float32]


def build_mlp(in_dim: int, out_dim: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_dim, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU(),
        nn.Linear(size, out_dim),
    )  # fmt: skip


class HomeworkReplay:
    """A replay buffer that concatenates on every add and permutes all rows to draw a batch."""

    def __init__(self, max_size: int = 1_000_000) -> None:
        self.max_size = max_size
        self.columns: list[Array] | None = None

    def add(self, *columns: Array) -> None:
        if self.columns is not None:
            joined = zip(self.columns, columns, strict=True)
            columns = tuple(np.concatenate(pair)[-self.max_size :] for pair in joined)
        self.columns = list(columns)

    def sample(self, batch_size: int) -> list[Array]:
        assert self.columns is not None
        rows = np.random.permutation(len(self.columns[0]))[:batch_size]  # noqa: NPY002
        return [column[rows] for column in self.columns]


class HomeworkSAC:
    def __init__(
        self, ob_dim: int, ac_dim: int, size: int, discount: float = 0.99, rate: float = 0.005
    ) -> None:
        self.actor = build_mlp(ob_dim, 2 * ac_dim, size)
        self.critics = nn.ModuleList(build_mlp(ob_dim + ac_dim, 1, size) for _ in range(2))
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), 3e-4)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), 3e-4)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], 3e-4)
        self.replay = HomeworkReplay()
        self.discount, self.rate, self.target_entropy = discount, rate, -float(ac_dim)

    def add_path(
        self, obs: Array, acs: Array, rewards: Array, next_obs: Array, terminated: Array
    ) -> None:
        self.replay.add(obs, acs, rewards, next_obs, terminated)

    def sample_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(obs).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        unsquashed = normal.rsample()
        correction = 2 * (math.log(2) - unsquashed - nn.functional.softplus(-2 * unsquashed))
        return unsquashed.tanh(), (normal.log_prob(unsquashed) - correction).sum(-1)

    def get_action(self, obs: Array) -> Array:
        """Sample an action: obs (O,) -> action (A,)."""
        return self.sample_action(torch.from_numpy(obs)[None])[0][0].detach().numpy()

    def values(self, critics: nn.ModuleList, obs: Tensor, acs: Tensor) -> list[Tensor]:
        return [critic(torch.cat([obs, acs], -1))[:, 0] for critic in critics]

    def train(self, batch_size: int) -> dict[str, float]:
        arrays = self.replay.sample(batch_size)
        obs, acs, rewards, next_obs, terminated = (torch.from_numpy(array) for array in arrays)
        with torch.no_grad():
            next_acs, log_probs = self.sample_action(next_obs)
            smaller = torch.min(*self.values(self.targets, next_obs, next_acs))
            soft = smaller - self.log_alpha.exp() * log_probs
            target = rewards + self.discount * (1 - terminated) * soft
        losses = [nn.functional.mse_loss(q, target) for q in self.values(self.critics, obs, acs)]
        critic_loss = losses[0] + losses[1]
        self.step(self.critic_optimizer, critic_loss)
        with torch.no_grad():
            pairs = zip(self.targets.parameters(), self.critics.parameters(), strict=True)
            for target_weight, weight in pairs:
                target_weight.mul_(1 - self.rate).add_(self.rate * weight)
        new_acs, log_probs = self.sample_action(obs)
        smaller = torch.min(*self.values(self.critics, obs, new_acs))
        actor_loss = (self.log_alpha.exp().detach() * log_probs - smaller).mean()
        self.step(self.actor_optimizer, actor_loss)
        alpha_loss = -(self.log_alpha.exp() * (log_probs + self.target_entropy).detach()).mean()
        self.step(self.alpha_optimizer, alpha_loss)
        return {"critic": critic_loss.item(), "actor": actor_loss.item()}

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
