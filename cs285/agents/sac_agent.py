"""Soft actor-critic: twin Q, target networks, squashed Gaussian policy, learned temperature."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from cs285.agents.sac_gradients import (
    ActorRecord,
    CriticRecord,
    actor_gradient,
    critic_gradient,
)
from cs285.critics.sac_critic import SACCritic
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.compilation import compile_if
from cs285.infrastructure.episodes import EnvFactory
from cs285.infrastructure.pytorch_util import make_generator, send, take_step
from cs285.infrastructure.replay_buffer import (
    REPLAY_CAPACITY,
    Path,
    ReplayBuffer,
    Transitions,
    stack_paths,
    unpack,
)
from cs285.infrastructure.sac_config import SACConfig
from cs285.policies.base_policy import Policy
from cs285.policies.sac_policy import SACActor, SACPolicy

UPDATES_AT_ONCE = 100  # whose batches are drawn and gathered in one go

# (first SAC iteration, at most how many) -> packed rows (updates, B, D) of as many as it likes
DrawBatches = Callable[[int, int], Tensor]


class SACAgent:
    """SAC by itself on real data, or on the batches that another agent draws for it."""

    def __init__(
        self,
        task: TaskSpec,
        config: SACConfig,
        seed: int,
        device: torch.device,
        compile: bool = False,
    ) -> None:
        self.task, self.config, self.seed, self.device = task, config, seed, device
        O, A = task.ob_dim, task.ac_dim
        generator = make_generator(seed, "sac init")
        self.policy = SACPolicy(O, task.ac_low, task.ac_high, config, generator).to(device)
        self.critic = SACCritic(O, A, config, generator).to(device)
        self.target_critic = copy.deepcopy(self.critic)
        self.log_temperature = torch.tensor(config.sac_init_temperature, device=device).log()
        entropy = config.sac_target_entropy
        self.target_entropy = -float(A) if entropy is None else entropy
        self.actor_optimizer = self._adam(self.policy.network.vector, self.log_temperature)
        self.critic_optimizer = self._adam(self.critic.network.vector)
        self.critic_gradient = compile_if(compile, critic_gradient)
        self.actor_gradient = compile_if(compile, actor_gradient)
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
        records: dict[str, list[Tensor]] = defaultdict(list)
        while self.iterations_done < end:
            first = self.iterations_done
            rows = draw(first, min(end - first, at_once))
            for name, values in self._update_on(rows, first).items():
                records[name].append(values)
            self.iterations_done += len(rows) // updates
        for name, parts in records.items():
            self.metrics[name] = torch.cat(parts).mean(0, keepdim=True)
        weights = torch.cat([self.policy.network.vector, self.critic.network.vector])
        self.metrics["SAC Weight Norm"] = weights.norm()[None]
        return dict(self.metrics)

    def draw_real(self, first: int, count: int) -> Tensor:
        """Draw batches of real transitions, with replacement (see DrawBatches)."""
        config = self.config
        shape = (count * config.sac_num_agent_train_steps_per_iter, config.sac_train_batch_size)
        generator = make_generator(self.seed, "sac batches", first)
        indices = torch.randint(len(self.replay_buffer), shape, generator=generator)
        return self.replay_buffer.rows[send(indices, self.device)]

    def _fit_obs_scaler(self) -> None:
        """Take the statistics of the real observations anew where there are 10% more of them."""
        rows = len(self.replay_buffer)
        if self.policy.scales_obs and rows >= 1.1 * self.scaled_rows:
            self.policy.obs_scaler.fit(self.replay_buffer.all().obs)
            self.scaled_rows = rows

    def _update_on(self, rows: Tensor, first: int) -> dict[str, Tensor]:
        """Take an update per batch of packed rows (U, B, D), the first of SAC iteration `first`.

        Returns each metric of every update that has it.
        """
        config = self.config
        critic_steps = config.sac_num_critic_updates_per_agent_update
        actor_steps = config.sac_num_actor_updates_per_agent_update
        U, B = rows.shape[:2]
        generator = make_generator(self.seed, "sac noise", first, device=self.device)
        shape = (U, critic_steps + actor_steps, B, self.task.ac_dim)
        noise = torch.randn(shape, generator=generator, device=self.device).unbind()
        critic_records: list[CriticRecord] = []
        actor_records: list[ActorRecord] = []
        first_update = first * config.sac_num_agent_train_steps_per_iter
        for update, batch in enumerate(self._scaled_batches(rows), first_update):
            draws = noise[update - first_update].unbind()
            for draw in draws[:critic_steps]:
                critic_record = self._step_critic(batch, draw)
            critic_records.append(critic_record)
            if update % config.sac_critic_target_update_frequency == 0:
                self._move_target()
            if update % config.sac_actor_update_frequency == 0:
                for draw in draws[critic_steps:]:
                    actor_record = self._step_actor(batch.obs, draw)
                actor_records.append(actor_record)
        return self._critic_metrics(critic_records) | self._actor_metrics(actor_records)

    def _scaled_batches(self, rows: Tensor) -> Iterator[Transitions]:
        """Yield packed rows (U, B, D) as U batches, scaled for the networks all at once."""
        data = unpack(rows, self.task.ob_dim, self.task.ac_dim)
        scaled = data._replace(
            obs=self.policy.scale_obs(data.obs),
            acs=self.policy.from_task(data.acs),
            next_obs=self.policy.scale_obs(data.next_obs),
        )
        return map(Transitions, *(column.unbind() for column in scaled))

    def _step_critic(self, batch: Transitions, noise: Tensor) -> CriticRecord:
        """Take one gradient step on the twin Q."""
        gradient, record = self.critic_gradient(
            self.policy,
            self.critic,
            self.target_critic,
            batch,
            noise,
            self.log_temperature,
            self.config.sac_discount,
        )
        take_step(self.critic_optimizer, gradient)
        return record

    def _step_actor(self, obs: Tensor, noise: Tensor) -> ActorRecord:
        """Take one gradient step on the policy and the temperature."""
        gradient, record = self.actor_gradient(
            self.policy, self.critic, obs, noise, self.log_temperature, self.target_entropy
        )
        take_step(self.actor_optimizer, gradient, record.excess_entropy)
        return record

    def _move_target(self) -> None:
        target, source = self.target_critic.network.vector, self.critic.network.vector
        target.lerp_(source, self.config.sac_target_rate)

    def _critic_metrics(self, records: Sequence[CriticRecord]) -> dict[str, Tensor]:
        """Return metrics (updates,) of U updates."""
        errors = torch.stack([record.errors for record in records])  # (U, 2, B)
        values = torch.stack([record.values for record in records])
        return {"Critic Loss": errors.square().mean(2).sum(1), "Q Mean": values.mean((1, 2))}

    def _actor_metrics(self, records: Sequence[ActorRecord]) -> dict[str, Tensor]:
        if not records:
            return {}
        log_probs = torch.stack([record.log_probs for record in records])  # (U, B)
        values = torch.stack([record.values for record in records])
        temperatures = torch.stack([record.temperature for record in records])  # (U,)
        excess = torch.stack([record.excess_entropy for record in records])
        return {
            "Actor Loss": (temperatures[:, None] * log_probs - values).mean(1),
            "Entropy": -log_probs.mean(1),
            "Temperature": temperatures,
            "Temperature Loss": temperatures.log() * excess,
        }

    def _adam(self, *parameters: Tensor) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, self.config.sac_learning_rate, fused=True)

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
    "actor_optimizer",
    "critic_optimizer",
    "replay_buffer",
)
