"""Soft actor-critic: twin Q, target networks, squashed Gaussian policy, learned temperature."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from cs285.critics.sac_critic import SACCritic, td_target
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.config import SACConfig
from cs285.infrastructure.episodes import EnvFactory
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import (
    REPLAY_CAPACITY,
    Path,
    ReplayBuffer,
    Transitions,
    stack_paths,
    unpack,
)
from cs285.policies.base_policy import Policy
from cs285.policies.sac_policy import SACActor, SACPolicy

UPDATES_AT_ONCE = 100  # whose batches are drawn and gathered in one go
CRITIC_METRICS = ("Critic Loss", "Q Mean")
ACTOR_METRICS = ("Actor Loss", "Entropy", "Temperature", "Temperature Loss")

# (first SAC iteration, at most how many) -> packed rows (updates, B, D) of as many as it likes
DrawBatches = Callable[[int, int], Tensor]


class SACAgent:
    """SAC by itself on real data, or on the batches that another agent draws for it."""

    def __init__(self, task: TaskSpec, config: SACConfig, seed: int, device: torch.device) -> None:
        self.task, self.config, self.seed, self.device = task, config, seed, device
        O, A = task.ob_dim, task.ac_dim
        generator = make_generator(seed, "sac init")
        self.policy = SACPolicy(O, task.ac_low, task.ac_high, config, generator).to(device)
        self.critic = SACCritic(O, A, config, generator).to(device)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = torch.tensor(config.sac_init_temperature, device=device).log()
        entropy = config.sac_target_entropy
        self.target_entropy = -float(A) if entropy is None else entropy
        self.policy_optimizer = self._adam(self.policy.parameters())
        self.critic_optimizer = self._adam(self.critic.parameters())
        self.temperature_optimizer = self._adam([self.log_temperature])
        self.replay_buffer = ReplayBuffer(REPLAY_CAPACITY, O, A, device)
        self.scaled_rows = 0  # how many transitions the observations' statistics are of
        self.iterations_done = 0  # SAC iterations since the run began
        self.metrics: dict[str, Tensor] = {}  # the last value of each
        self.actor: Policy = SACActor(self.policy, device, deterministic=False)
        evaluated = SACActor(self.policy, device, deterministic=True)
        self.eval_policies: dict[str, Policy] = {"Eval": evaluated}

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store real paths."""
        self.replay_buffer.add(stack_paths(paths))
        wanted, held = self.config.sac_train_batch_size, len(self.replay_buffer)
        if iteration == 0 and wanted > held:
            print(
                f"  --sac_train_batch_size {wanted} is more than the {held} env steps collected: "
                "real transitions repeat within a batch",
                flush=True,
            )

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Learn from real data only."""
        return self.train_on(self.draw_real)

    def train_on(self, draw: DrawBatches) -> dict[str, Tensor]:
        """Do `sac_n_iter` SAC iterations on the batches that `draw` returns.

        Returns the mean of each metric over the phase, (1,).
        """
        self._fit_obs_scaler()
        updates = self.config.sac_num_agent_train_steps_per_iter
        end = self.iterations_done + self.config.sac_n_iter
        at_once = max(1, UPDATES_AT_ONCE // updates)
        records: list[tuple[str, Tensor]] = []
        while self.iterations_done < end:
            first = self.iterations_done
            rows = draw(first, min(end - first, at_once))
            records += self._update_on(rows, first)
            self.iterations_done += len(rows) // updates
        for name in dict(records):
            values = [value for recorded, value in records if recorded == name]
            self.metrics[name] = torch.stack(values).mean(0, keepdim=True)
        weights = [*self.policy.parameters(), *self.critic.parameters()]
        self.metrics["SAC Weight Norm"] = torch.nn.utils.get_total_norm(weights).detach()[None]
        return dict(self.metrics)

    def draw_real(self, first: int, count: int) -> Tensor:
        """Draw batches of real transitions, with replacement (see DrawBatches)."""
        config = self.config
        shape = (count * config.sac_num_agent_train_steps_per_iter, config.sac_train_batch_size)
        generator = make_generator(self.seed, "sac batches", first)
        indices = torch.randint(len(self.replay_buffer), shape, generator=generator)
        return self.replay_buffer.rows[indices.to(self.device)]

    def _fit_obs_scaler(self) -> None:
        """Take the statistics of the real observations anew where there are 10% more of them."""
        rows = len(self.replay_buffer)
        if self.policy.scales_obs and rows >= 1.1 * self.scaled_rows:
            self.policy.obs_scaler.fit(self.replay_buffer.all().obs)
            self.scaled_rows = rows

    def _update_on(self, rows: Tensor, first: int) -> Iterator[tuple[str, Tensor]]:
        """Take an update per batch of packed rows (U, B, D), the first of SAC iteration `first`.

        Yields every metric of every update.
        """
        config = self.config
        critic_steps = config.sac_num_critic_updates_per_agent_update
        actor_steps = config.sac_num_actor_updates_per_agent_update
        U, B = rows.shape[:2]
        generator = make_generator(self.seed, "sac noise", first, device=self.device)
        shape = (U, critic_steps + actor_steps, B, self.task.ac_dim)
        noise = torch.randn(shape, generator=generator, device=self.device)
        data = unpack(rows, self.task.ob_dim, self.task.ac_dim)
        scale_obs, scale_acs = self.policy.scale_obs, self.policy.from_task
        data = Transitions(
            obs=scale_obs(data.obs),
            acs=scale_acs(data.acs),
            rewards=data.rewards,
            next_obs=scale_obs(data.next_obs),
            terminated=data.terminated,
        )
        for index in range(U):
            update = first * config.sac_num_agent_train_steps_per_iter + index
            batch = Transitions(*(column[index] for column in data))
            for step in range(critic_steps):
                values = self._update_critic(batch, noise[index, step])
            yield from zip(CRITIC_METRICS, values, strict=True)
            if update % config.sac_critic_target_update_frequency == 0:
                self._move_target()
            if update % config.sac_actor_update_frequency == 0:
                for step in range(critic_steps, critic_steps + actor_steps):
                    values = self._update_actor(batch.obs, noise[index, step])
                yield from zip(ACTOR_METRICS, values, strict=True)

    @torch.no_grad()
    def _update_critic(self, batch: Transitions, noise: Tensor) -> tuple[Tensor, ...]:
        """Take one gradient step on the twin Q; returns CRITIC_METRICS."""
        drawn = self.policy.sample(batch.next_obs, noise)
        targets = td_target(
            batch.rewards,
            batch.terminated,
            self.target_critic(batch.next_obs, drawn.acs),
            drawn.log_probs,
            self.log_temperature.exp(),
            self.config.sac_discount,
        )
        activations = self.critic.activations(batch.obs, batch.acs)
        values = activations[-1][..., 0]
        errors = values - targets
        loss = errors.square().mean(1).sum()
        gradient = self.critic.gradient(activations, errors * (2 / len(targets)))
        _step(self.critic_optimizer, gradient)
        return loss, values.mean()

    @torch.no_grad()
    def _update_actor(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """Take one gradient step on the policy, and one on the temperature; ACTOR_METRICS."""
        B, temperature = len(obs), self.log_temperature.exp()
        drawn = self.policy.sample(obs, noise)
        activations = self.critic.activations(obs, drawn.acs)
        values = activations[-1][..., 0]
        loss = (temperature * drawn.log_probs - values.amin(0)).mean()
        first_is_less = values[0] < values[1]
        d_values = torch.stack([first_is_less, ~first_is_less]) * (-1 / B)
        d_acs = self.critic.action_gradient(activations, d_values)
        _step(
            self.policy_optimizer,
            self.policy.gradient(drawn, d_acs, (temperature / B).expand(B)),
        )
        # The temperature falls while there is more entropy than asked for.
        entropy = -drawn.log_probs.mean()
        excess = entropy - self.target_entropy
        temperature_loss = self.log_temperature * excess
        _step(self.temperature_optimizer, excess)
        return loss, entropy, temperature, temperature_loss

    @torch.no_grad()
    def _move_target(self) -> None:
        target, source = self.target_critic.network.vector, self.critic.network.vector
        target.lerp_(source, self.config.sac_target_rate)

    def _adam(self, parameters: Iterable[Tensor]) -> torch.optim.Adam:
        return torch.optim.Adam(list(parameters), self.config.sac_learning_rate, fused=True)

    def save_figures(
        self, folder: FilePath, losses: dict[str, Tensor], env_factory: EnvFactory
    ) -> None:
        """Write nothing: SAC has no pictures of iteration 0."""

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, replay and counters; no generator lives on (see MBAgent)."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        counters = {"iterations_done": self.iterations_done, "scaled_rows": self.scaled_rows}
        own = {"log_temperature": self.log_temperature, "metrics": self.metrics}
        return {**parts, **own, **counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.log_temperature.copy_(state["log_temperature"])
        self.metrics = dict(state["metrics"])
        self.iterations_done, self.scaled_rows = state["iterations_done"], state["scaled_rows"]

    def parameters_dict(self) -> dict[str, Any]:
        """Return the policy's and the twin Q's weights."""
        return {"policy": self.policy.state_dict(), "critic": self.critic.state_dict()}


_PARTS = (
    "policy",
    "critic",
    "target_critic",
    "policy_optimizer",
    "critic_optimizer",
    "temperature_optimizer",
    "replay_buffer",
)


def _step(optimizer: torch.optim.Optimizer, gradient: Tensor) -> None:
    """Take one step against the gradient of the optimiser's one tensor."""
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = gradient
    optimizer.step()
