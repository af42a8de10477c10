"""Soft actor-critic (SAC): Q and target networks, squashed Gaussian policy, learned temperature.

An update takes one batch: gradient steps on the critic, then on the policy and the temperature. A
SAC iteration is `sac_num_agent_train_steps_per_iter` updates.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cs285.agents.base_agent import BaseAgent
from cs285.agents.sac_losses import ActorLoss, CriticLoss, actor_loss, critic_loss
from cs285.config.sac import SACConfig
from cs285.critics.sac_critic import NO_DRAWS, CriticDraws, SACCritic
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.pytorch_util import (
    Normalizer,
    make_adam,
    make_generator,
    reset_moments,
    send,
    take_step,
)
from cs285.infrastructure.replay_buffer import (
    REPLAY_CAPACITY,
    Path,
    ReplayBuffer,
    Transitions,
    stack_paths,
    unpack,
)
from cs285.networks.compilation import compiled
from cs285.networks.ensemble_mlp import EnsembleMLP
from cs285.policies.base_policy import Policy
from cs285.policies.sac_policy import SACActor, SACPolicy

UPDATES_AT_ONCE = 100  # updates whose batches are drawn in one call, for speed

# (first SAC iteration, most SAC iterations) -> packed rows (updates, B, D) of one or more of them
DrawBatches = Callable[[int, int], Tensor]


class SACAgent(BaseAgent):
    """SAC on its own replay buffer, or on the batches that another agent draws."""

    eval_policy: Policy
    parts: tuple[str, ...] = ("policy", "critic")
    acting_parts: tuple[str, ...] = ("policy",)

    def __init__(
        self,
        task: TaskSpec,
        config: SACConfig,
        seed: int,
        device: torch.device,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.task, self.config, self.seed, self.device = task, config, seed, device
        O, A = task.ob_dim, task.ac_dim
        generator = make_generator(seed, "sac init")
        self.policy = SACPolicy(O, task.ac_low, task.ac_high, config, generator).to(device)
        self.acting_policy = self.policy
        if config.sac_policy_averaging > 0:
            self.acting_policy = copy.deepcopy(self.policy).requires_grad_(False)
            self.acting_policy.obs_scaler = self.policy.obs_scaler
            self.parts, self.acting_parts = (*self.parts, "acting_policy"), ("acting_policy",)
        self.critic = SACCritic(O, A, config, generator).to(device)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.target_critic.bounds = self.critic.bounds
        temperature = torch.tensor(config.sac_init_temperature, device=device)
        self.log_temperature = nn.Parameter(temperature.log())
        entropy = config.sac_target_entropy
        self.target_entropy = -float(A) if entropy is None else entropy
        rate = config.sac_learning_rate
        self.actor_optimizer = make_adam([self.policy.network.vector, self.log_temperature], rate)
        self.critic_optimizer = make_adam(self.critic.parameters(), rate)
        self.update: Callable[..., dict[str, Tensor]] = self._update
        if compile:
            self.update = compiled(self._update)
        self.replay_buffer = ReplayBuffer(REPLAY_CAPACITY, O, A, device)
        self.scaled_rows = 0  # transitions behind the current observation statistics
        self.iterations_done = 0  # SAC iterations since the run began
        self.actor_waits_until = 0  # SAC iterations before this one train the critic only
        self.metrics: dict[str, Tensor] = {}  # the last value of each metric
        self.actor: Policy = SACActor(self.acting_policy, device, deterministic=False)
        self.eval_policy = SACActor(self.acting_policy, device, deterministic=True)  # the mode

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store real paths."""
        self.replay_buffer.add(stack_paths(paths), paths)

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Train on real transitions only."""
        return self.train_on(self.draw_real, self.config.iterations_at(iteration))

    def train_on(
        self, draw: DrawBatches, iterations: int, critic_iterations: int = 0
    ) -> dict[str, Tensor]:
        """Run SAC iterations on the batches that `draw` returns.

        The first `critic_iterations` of the `iterations` train only the critic. Returns the mean of
        each metric over all updates, (1,), and the norm of the weights. A metric without an update
        keeps its last value.
        """
        self._fit_obs_scaler()
        updates = self.config.sac_num_agent_train_steps_per_iter
        end = self.iterations_done + iterations
        self.actor_waits_until = self.iterations_done + critic_iterations
        at_once = max(1, UPDATES_AT_ONCE // updates)
        records: dict[str, list[Tensor]] = defaultdict(list)
        while self.iterations_done < end:
            first = self.iterations_done
            rows = draw(first, min(end - first, at_once))
            for metrics in self._updates_on(rows, first):
                for name, value in metrics.items():
                    records[name].append(value)
            self.iterations_done += len(rows) // updates
        for name, values in records.items():
            self.metrics[name] = torch.stack(values).mean(0, keepdim=True)
        weights = torch.cat([self.policy.network.vector, self.critic.network.vector])
        self.metrics["SAC Weight Norm"] = weights.detach().norm()[None]
        return dict(self.metrics)

    def draw_real(self, first: int, count: int) -> Tensor:
        """Draw the batches of `count` SAC iterations with replacement from the replay buffer.

        Returns packed rows (updates, B, D).
        """
        config = self.config
        shape = (count * config.sac_num_agent_train_steps_per_iter, config.sac_train_batch_size)
        generator = make_generator(self.seed, "sac batches", first)
        indices = torch.randint(len(self.replay_buffer), shape, generator=generator)
        return self.replay_buffer.rows[send(indices, self.device)]

    def _fit_obs_scaler(self) -> None:
        """Recompute the observation statistics once the replay buffer has grown by 10%.

        The first layers change with them, so policy and Q values do not jump.
        """
        rows = len(self.replay_buffer)
        if not self.policy.scales_obs or rows < 1.1 * self.scaled_rows:
            return
        scaler = self.policy.obs_scaler
        before = copy.deepcopy(scaler)
        scaler.fit(self.replay_buffer.all().obs)
        if self.scaled_rows > 0:
            parts = (self.policy, self.acting_policy, self.critic, self.target_critic)
            for network in {part.network for part in parts}:
                keep_function(network, before, scaler)
        self.scaled_rows = rows

    def _updates_on(self, rows: Tensor, first: int) -> Iterator[dict[str, Tensor]]:
        """Do one update per batch of packed rows (U, B, D), starting with SAC iteration `first`.

        Yields the metrics of each update, () each.
        """
        config = self.config
        updates = config.sac_num_agent_train_steps_per_iter
        for update, inputs in enumerate(self._batches(rows, first), first * updates):
            trains_actor = update >= self.actor_waits_until * updates
            yield self.update(
                *inputs,
                update % config.sac_critic_target_update_frequency == 0,
                trains_actor and update % config.sac_actor_update_frequency == 0,
            )

    def _batches(self, rows: Tensor, first: int) -> Iterator[tuple[Any, Any, Any]]:
        """Yield the arguments of `_update` for packed rows (U, B, D)."""
        critic_steps = self.config.sac_num_critic_updates_per_agent_update
        steps = critic_steps + self.config.sac_num_actor_updates_per_agent_update
        U, B = rows.shape[:2]
        shape = (U, steps, B, self.task.ac_dim)
        generator = make_generator(self.seed, "sac noise", first, device=self.device)
        noise = torch.randn(shape, generator=generator, device=self.device)
        for batch, draw in zip(self._scaled_batches(rows), noise.unbind(), strict=True):
            yield batch, draw, [self.critic.draw(B, generator) for _ in range(critic_steps)]

    def _update(
        self,
        batch: Transitions,
        noise: Tensor,
        draws: Sequence[CriticDraws],
        moves_target: bool,
        trains_actor: bool,
    ) -> dict[str, Tensor]:
        """Do one update on a scaled batch (B, ...).

        `noise` (steps, B, A) draws the actions of each gradient step, first for the critic steps,
        then for the actor steps. `draws` are the other draws of the critic steps. Returns the
        metrics of the last step of each kind, () each.
        """
        metrics: dict[str, Tensor] = {}
        for number, draw in enumerate(draws):
            metrics |= self._step_critic(batch, noise[number], draw)
        if moves_target:
            self._move_target()
        if trains_actor:
            for actor_noise in noise[len(draws) :]:
                metrics |= self._step_actor(batch.obs, actor_noise)
        return metrics

    @torch.no_grad()
    def _move_target(self) -> None:
        source = self.critic.network.vector
        self.target_critic.network.vector.lerp_(source, self.config.sac_target_rate)

    @torch.no_grad()
    def _average_policy(self) -> None:
        source = self.policy.network.vector
        self.acting_policy.network.vector.lerp_(source, self.config.sac_policy_averaging)

    def reset_optimizers(self) -> None:
        """Reset both optimisers."""
        reset_moments(self.actor_optimizer)
        reset_moments(self.critic_optimizer)

    def _scaled_batches(self, rows: Tensor) -> Iterator[Transitions]:
        """Yield packed rows (U, B, D) as U scaled batches. Scaling all at once is faster."""
        data = unpack(rows, self.task.ob_dim, self.task.ac_dim)
        scaled = data._replace(
            obs=self.policy.scale_obs(data.obs),
            acs=self.policy.from_task(data.acs),
            next_obs=self.policy.scale_obs(data.next_obs),
        )
        return map(Transitions, *(column.unbind() for column in scaled))

    def _step_critic(
        self, batch: Transitions, noise: Tensor, draws: CriticDraws = NO_DRAWS
    ) -> dict[str, Tensor]:
        """Take one gradient step on the Q networks and return its metrics, () each."""
        discount = self.config.sac_discount
        if self.critic.bounds is not None:  # no entropy bonus: the stored actions have no density
            self.critic.bounds.follow(batch.rewards, discount, batch.terminated)
        result = critic_loss(
            self.policy,
            self.critic,
            self.target_critic,
            batch,
            noise,
            self.log_temperature,
            discount,
            draws,
        )
        return self._take_critic_step(result)

    def _take_critic_step(self, result: CriticLoss) -> dict[str, Tensor]:
        take_step(self.critic_optimizer, result.loss)
        return {"Critic Loss": result.loss.detach(), "Q Mean": result.mean_value}

    def _step_actor(self, obs: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Take one gradient step on the policy and the temperature; return its metrics, () each."""
        temperature = self.log_temperature.detach().exp()
        result = actor_loss(
            self.policy, self.critic, obs, noise, self.log_temperature, self.target_entropy
        )
        return self._take_actor_step(result, temperature)

    def _take_actor_step(self, result: ActorLoss, temperature: Tensor) -> dict[str, Tensor]:
        take_step(self.actor_optimizer, result.loss + result.temperature_loss)
        if self.config.sac_policy_averaging > 0:
            self._average_policy()
        return {
            "Actor Loss": result.loss.detach(),
            "Entropy": result.entropy,
            "Temperature": temperature,
            "Temperature Loss": result.temperature_loss.detach(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, replay buffer and counters.

        No generator state is needed (see MBAgent.state_dict).
        """
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        parts["acting_policy"] = self.acting_policy.state_dict()
        counters = {"iterations_done": self.iterations_done, "scaled_rows": self.scaled_rows}
        rest = {"log_temperature": self.log_temperature.detach(), "metrics": self.metrics}
        return {**parts, **rest, **counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        # Older checkpoints lack it.
        self.acting_policy.load_state_dict(state.get("acting_policy", state["policy"]))
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
        self.metrics = dict(state["metrics"])
        self.iterations_done, self.scaled_rows = state["iterations_done"], state["scaled_rows"]


@torch.no_grad()
def keep_function(network: EnsembleMLP, before: Normalizer, after: Normalizer) -> None:
    """Change the first layer so that new statistics of the observation keep its outputs.

    A column that was constant gets zero weights. Inputs that are clipped are not compensated.
    """
    weight, bias = network.layers[0]
    observed = weight[:, : len(after.mean)]  # (E, O, out); actions come after the observation
    shift = (after.mean - before.mean) * before.inverse_std
    bias += torch.einsum("o,eoh->eh", shift, observed)[:, None]
    varies = after.inverse_std > 0
    observed *= torch.where(varies, before.inverse_std * after.std, 1.0)[:, None]


_PARTS = (
    "policy",
    "critic",
    "target_critic",
    "actor_optimizer",
    "critic_optimizer",
    "replay_buffer",
)
