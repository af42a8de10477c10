"""Model-based policy optimisation: SAC on real transitions and on those that a model imagines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cs285.agents.base_agent import BaseAgent, Diagnosed
from cs285.agents.mb_agent import MBAgent
from cs285.agents.sac_agent import SACAgent
from cs285.config.mbpo import MBPOConfig
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.model_buffer import ModelBuffer
from cs285.infrastructure.pytorch_util import make_generator, send
from cs285.infrastructure.replay_buffer import Path
from cs285.models.rollouts import roll_out
from cs285.policies.base_policy import Policy

PLAN_HORIZON, ERROR_HORIZON = 10, 50  # env steps, at least, of what a diagnosis looks at


class MBPOAgent(BaseAgent):
    """The MB agent's ensemble feeds the SAC agent: Janner et al. 2019, arXiv:1906.08253.

    Real transitions are the two agents' own; imagined ones are in `model_buffer` only.
    """

    def __init__(self, task: TaskSpec, config: MBPOConfig, device: torch.device) -> None:
        super().__init__()
        self.config, self.seed, self.device = config.rollouts, config.run.seed, device
        self.has_model = config.model.num_agent_train_steps_per_iter > 0
        compile = config.run.compile
        self.mb_agent = MBAgent(task, config.model, config.planner, self.seed, device, compile)
        self.sac_agent = SACAgent(task, config.sac, self.seed, device, compile)
        self.stopwatch = self.mb_agent.stopwatch  # on which the fits are
        self.env_steps = 0  # that were collected
        self.model_buffer = ModelBuffer(self._capacity(), task.ob_dim, task.ac_dim, device)
        self.block = range(0)  # the SAC iterations whose rollouts were done in the last batch
        self.next_fit = 0  # the SAC iteration that will be the first of the next model
        self.rows_drawn = self.real_rows_drawn = 0  # for SAC, in this iteration
        self.metrics: dict[str, Tensor] = {}  # the last value of each of the model's
        self.actor: Policy = self.sac_agent.actor
        self.model = self.mb_agent.model if self.has_model else None

    @property
    def eval_policies(self) -> dict[str, Policy]:
        """SAC's policy, and the planner where it is asked for."""
        policies = self.sac_agent.eval_policies
        if self.config.mbpo_eval_planner:
            return {**policies, "Planner_Eval": self.mb_agent.actor}
        return policies

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store real paths, for the model (with its noise) and for SAC (without)."""
        self.env_steps += sum(path.length for path in paths)
        if self.has_model:
            self.mb_agent.add_to_replay_buffer(paths, iteration)
        self.sac_agent.add_to_replay_buffer(paths, iteration)

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Fit the model where it is due, then do the SAC iterations with their model rollouts."""
        fitted: dict[str, Tensor] = {}
        since_fit = iteration % self.config.mbpo_refit_every
        if self.has_model and since_fit == 0:
            fitted = self.mb_agent.train(iteration)
            self.metrics |= {name: curve[-1:] for name, curve in fitted.items()}
        if self.config.mbpo_rollout_length == 0:
            with self.stopwatch.phase("SAC"):
                return self.metrics | self.sac_agent.train(iteration) | fitted
        sac = self.sac_agent
        self.next_fit = sac.iterations_done + sac.config.sac_n_iter * (
            self.config.mbpo_refit_every - since_fit
        )
        self.rows_drawn = self.real_rows_drawn = 0
        with self.stopwatch.phase("SAC"):
            learned = sac.train_on(self.draw_mixed)
        self._record("Real Ratio", self.real_rows_drawn / self.rows_drawn)
        self._record("Model Buffer Size", len(self.model_buffer))
        self._record("Model Buffer Age", self.model_buffer.mean_age(sac.iterations_done))
        return self.metrics | learned | fitted

    def draw_mixed(self, first: int, at_most: int) -> Tensor:
        """Draw batches of real and imagined transitions (see DrawBatches).

        They are of one block of SAC iterations, whose rollouts are done when it begins: the next
        `mbpo_rollout_every` of them, or as many as there are before the next fit.
        """
        if first not in self.block:
            self.block = range(first, min(first + self.config.mbpo_rollout_every, self.next_fit))
            with self.stopwatch.phase("rollouts"):
                self._imagine()
        count = min(at_most, self.block.stop - first)
        generator = make_generator(self.seed, "mixed batches", first)
        sac = self.sac_agent.config
        U, B = sac.sac_num_agent_train_steps_per_iter, sac.sac_train_batch_size
        done = (torch.arange(first, first + count) - self.block.start + 1) / len(self.block)
        shares = self.real_ratio(done).repeat_interleave(U)
        # Rounded up or down at random, so that the mean is the share exactly.
        real_counts = (shares * B + torch.rand(len(shares), generator=generator)).long()
        is_real = (torch.arange(B) < real_counts[:, None]).flatten()
        self.rows_drawn += len(is_real)
        self.real_rows_drawn += int(is_real.sum())
        real, imagined = self.sac_agent.replay_buffer.rows, self.model_buffer.rows
        rows = real.new_empty(len(is_real), real.shape[1])
        for source, chosen in ((real, is_real), (imagined, ~is_real)):
            places = send(chosen.nonzero()[:, 0], self.device)
            indices = torch.randint(max(len(source), 1), (len(places),), generator=generator)
            rows[places] = source[send(indices, self.device)]
        return rows.view(len(shares), B, -1)

    def real_ratio(self, done: Tensor) -> Tensor:
        """Return the share of real rows in the batches, after `done` of the block's SAC iterations.

        By default that of the homework's single buffer, R / (R + M): R real transitions, and the
        imagined M that it holds by then, those of earlier blocks and `done` of this block's.
        """
        if len(self.model_buffer) == 0:  # no rollout had a finite step
            return torch.ones_like(done)
        if self.config.mbpo_real_ratio is not None:
            return torch.full_like(done, self.config.mbpo_real_ratio)
        real, block = len(self.sac_agent.replay_buffer), self.model_buffer.last_block
        earlier = self.model_buffer.total_added - block
        return real / (real + earlier + done * block)

    def _capacity(self) -> int:
        """Return how many rows to keep: by default what the last models imagine, at full length.

        Older rows are of a worse model and a policy that is no more (docs/algorithms.md).
        """
        config = self.config
        sac_iterations = self.sac_agent.config.sac_n_iter * config.mbpo_refit_every
        length = config.length_at(self.env_steps)
        rows = sac_iterations * config.mbpo_rollouts_per_sac_iter * length
        return config.mbpo_model_buffer_size or max(config.mbpo_models_kept * rows, 1)

    def _imagine(self) -> None:
        """Do the model rollouts of the block that begins."""
        config, first = self.config, self.block.start
        generator = make_generator(self.seed, "model rollouts", first, device=self.device)
        real = self.sac_agent.replay_buffer.all().obs
        count = len(self.block) * config.mbpo_rollouts_per_sac_iter
        indices = torch.randint(len(real), (count,), generator=generator, device=self.device)
        rollouts = roll_out(
            self.mb_agent.model,
            self.sac_agent.policy.draw,
            self.mb_agent.task_model,
            real[indices],
            config.length_at(self.env_steps),
            config.mbpo_propagation,
            generator,
        )
        self.model_buffer.resize(self._capacity())
        self.model_buffer.add(rollouts.data, first)
        dropped = self.metrics.get("Model Rollouts Dropped", torch.zeros(1, device=self.device))
        self.metrics |= {
            "Model Rollout Reward": rollouts.mean_reward[None],
            "Model Rollout Length": rollouts.mean_length[None],
            "Model Rollouts Dropped": dropped + rollouts.dropped,
        }

    def _record(self, name: str, value: float) -> None:
        self.metrics[name] = torch.full((1,), value, device=self.device)

    def diagnosed(self) -> Diagnosed | None:
        """SAC's policy, which acts in the model for a rollout; None where there is no model."""
        if self.model is None:
            return None
        horizon = max(self.config.mbpo_rollout_length, PLAN_HORIZON)
        policy = self.sac_agent.evaluated
        return Diagnosed(self.model, self.mb_agent.task_model, policy, horizon, ERROR_HORIZON)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes, both replays of real data and the model's."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        block = [self.block.start, self.block.stop]
        own = {"metrics": self.metrics, "block": block, "env_steps": self.env_steps}
        return {**parts, **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.metrics, self.block = dict(state["metrics"]), range(*state["block"])
        self.env_steps = state["env_steps"]

    def parameters_dict(self) -> dict[str, Any]:
        """Return the weights of model, policy and twin Q."""
        return {**self.mb_agent.parameters_dict(), **self.sac_agent.parameters_dict()}


_PARTS = ("mb_agent", "sac_agent", "model_buffer")
