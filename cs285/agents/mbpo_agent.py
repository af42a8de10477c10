"""Model-based policy optimisation (MBPO): SAC on real and on imagined transitions."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from cs285.agents.base_agent import BaseAgent, Diagnosed
from cs285.agents.expanded_sac_agent import ExpandedSACAgent
from cs285.agents.mb_agent import MBAgent
from cs285.agents.sac_agent import SACAgent
from cs285.agents.value_expansion import ValueExpansion
from cs285.config.mbpo import MBPOConfig
from cs285.config.sac import SACConfig
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.model_buffer import ModelBuffer, Recipe
from cs285.infrastructure.pytorch_util import make_generator, reset_moments, send
from cs285.infrastructure.replay_buffer import Path, Transitions
from cs285.models.rollouts import Rollouts, roll_out
from cs285.policies.base_policy import Policy

PLAN_HORIZON, ERROR_HORIZON = 10, 50  # for a diagnosis, in env steps; the first is a minimum


class MBPOAgent(BaseAgent):
    """A SAC agent trained on rollouts of the MB agent's model.

    Janner et al. 2019, arXiv:1906.08253, algorithm 2.

    Each of the two agents has its own replay buffer of real transitions. `model_buffer` holds the
    imagined transitions.
    """

    def __init__(self, task: TaskSpec, config: MBPOConfig, device: torch.device) -> None:
        super().__init__()
        self.config, self.seed, self.device = config.rollouts, config.run.seed, device
        self.has_model = config.model.num_agent_train_steps_per_iter > 0
        compile = config.run.compile
        self.mb_agent = MBAgent(task, config.model, config.planner, self.seed, device, compile)
        self.sac_agent = self._learner(task, config.sac, compile)
        self.acting_parts = self.sac_agent.acting_parts
        self.stopwatch = self.mb_agent.stopwatch  # it already times the fits
        self.env_steps = 0  # collected since the run began
        self.model_buffer = ModelBuffer(self._capacity(), task.ob_dim, task.ac_dim, device)
        self.model_weights: dict[str, Any] | None = None  # a copy, once rollouts need it
        self.block = range(0)  # the SAC iterations that use the last batch of rollouts
        self.next_fit = 0  # first SAC iteration after the next fit
        self.rows_drawn = self.real_rows_drawn = 0  # SAC batch rows of this iteration
        self.metrics: dict[str, Tensor] = {}  # last values of the metrics of fits and rollouts
        self.actor: Policy = self.sac_agent.actor
        self.model = self.mb_agent.model if self.has_model else None

    @property
    def eval_policies(self) -> dict[str, Policy]:
        """The SAC policy; with --mbpo_eval_planner, also the planner."""
        policies = self.sac_agent.eval_policies
        if self.config.mbpo_eval_planner:
            return {**policies, "Planner_Eval": self.mb_agent.actor}
        return policies

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store real paths for the model and for SAC. Only the model's copy gets --add_sl_noise."""
        self.env_steps += sum(path.length for path in paths)
        if self.has_model:
            self.mb_agent.add_to_replay_buffer(paths, iteration)
        self.sac_agent.add_to_replay_buffer(paths, iteration)

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Fit the model if a fit is due, then run the SAC iterations with their model rollouts."""
        fit_metrics: dict[str, Tensor] = {}
        since_fit = iteration % self.config.mbpo_refit_every
        fits = self.has_model and since_fit == 0
        if fits:
            if self.config.mbpo_restart_at_fit and iteration > 0:
                self._restart()
            fit_metrics = self.mb_agent.train(iteration)
            self.metrics |= {name: curve[-1:] for name, curve in fit_metrics.items()}
            self.model_weights = None
        sac, later = self.sac_agent, self.config.mbpo_refit_every - since_fit - 1
        critic_only = self.config.mbpo_critic_iters_after_fit if fits else 0
        iterations = critic_only + sac.config.iterations_at(iteration)
        self.next_fit = sac.iterations_done + iterations + later * sac.config.sac_n_iter
        self.rows_drawn = self.real_rows_drawn = 0
        imagines = self.config.mbpo_rollout_length > 0
        with self.stopwatch.phase("SAC"):
            draw = self.draw_mixed if imagines else sac.draw_real
            sac_metrics = sac.train_on(draw, iterations, critic_only)
        if imagines:
            self._record("Real Ratio", self.real_rows_drawn / self.rows_drawn)
            self._record("Model Buffer Size", len(self.model_buffer))
            self._record("Model Buffer Age", self.model_buffer.mean_age(sac.iterations_done))
        return self.metrics | sac_metrics | fit_metrics

    def draw_mixed(self, first: int, at_most: int) -> Tensor:
        """Draw the mixed batches of `at_most` SAC iterations or fewer, starting with `first`.

        Returns packed rows (updates, B, D) of real and imagined transitions. All batches belong to
        one block. A block is the next `mbpo_rollout_every` SAC iterations, or fewer if a fit comes
        earlier. The model rollouts of a block are done when it begins.
        """
        if first not in self.block:
            self.block = range(first, min(first + self.config.mbpo_rollout_every, self.next_fit))
            with self.stopwatch.phase("rollouts"):
                self._imagine()
        count = min(at_most, self.block.stop - first)
        generator = make_generator(self.seed, "mixed batches", first)
        sac = self.sac_agent.config
        U, B = sac.sac_num_agent_train_steps_per_iter, sac.sac_train_batch_size
        progress = (torch.arange(first, first + count) - self.block.start + 1) / len(self.block)
        shares = self.real_ratio(progress).repeat_interleave(U)
        # Random rounding keeps the mean share of real rows exact.
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

    def real_ratio(self, progress: Tensor) -> Tensor:
        """Return the share of real rows in a batch, (n,), at `progress` (n,) through the block.

        The default is R / (R + M), the share in the homework's single buffer. R counts the real
        transitions. M counts the imagined transitions of the earlier blocks, plus the fraction
        `progress` of the current block's transitions.
        """
        if len(self.model_buffer) == 0:  # no rollout had a finite step
            return torch.ones_like(progress)
        if self.config.mbpo_real_ratio is not None:
            return torch.full_like(progress, self.config.mbpo_real_ratio)
        real, block = len(self.sac_agent.replay_buffer), self.model_buffer.last_block
        earlier = self.model_buffer.total_added - block
        return real / (real + earlier + progress * block)

    def _learner(self, task: TaskSpec, config: SACConfig, compile: bool) -> SACAgent:
        """Return the SAC agent, with training rollouts for --mbpo_value_expansion."""
        arguments = task, config, self.seed, self.device, compile
        horizon = self.config.mbpo_value_expansion
        if horizon == 0:
            return SACAgent(*arguments)
        model, task_model = self.mb_agent.model, self.mb_agent.task_model
        if not task_model.is_differentiable(task.ob_dim, task.ac_dim):
            raise UsageError(
                f"--mbpo_value_expansion {horizon}: must be 0, because autograd cannot "
                "differentiate this task's get_reward; pass --learned_reward to learn a "
                "differentiable reward"
            )
        expansion = ValueExpansion(model, task_model, horizon, self.config.mbpo_propagation)
        return ExpandedSACAgent(expansion, *arguments)

    def _restart(self) -> None:
        """Clear the model buffer, and reset all optimisers."""
        self.model_buffer.clear()
        self.sac_agent.reset_optimizers()
        if self.mb_agent.optimizer:
            reset_moments(self.mb_agent.optimizer)

    def _capacity(self) -> int:
        """Return the capacity of the model buffer in transitions.

        The default holds the full-length rollouts of the last `mbpo_models_kept` models. Older
        transitions come from an outdated model and policy (docs/mbpo.md).
        """
        config = self.config
        if config.mbpo_model_buffer_size:
            return config.mbpo_model_buffer_size
        sac_iterations = self.sac_agent.config.sac_n_iter * config.mbpo_refit_every
        sac_iterations += config.mbpo_critic_iters_after_fit
        rollouts = sac_iterations * config.mbpo_rollouts_per_sac_iter
        if config.mbpo_rollouts_per_block:
            blocks = -(-sac_iterations // config.mbpo_rollout_every)
            rollouts = blocks * config.mbpo_rollouts_per_block
        length = config.length_at(self.env_steps)
        return max(config.mbpo_models_kept * rollouts * length, 1)

    def _imagine(self) -> None:
        """Do the model rollouts of the new block and store them in the model buffer."""
        recipe = {
            "first": self.block.start,
            "rollouts": self.config.mbpo_rollouts_per_block
            or len(self.block) * self.config.mbpo_rollouts_per_sac_iter,
            "length": self.config.length_at(self.env_steps),
            "real": len(self.sac_agent.replay_buffer),
        }
        rollouts = self._follow(recipe)
        self.model_buffer.resize(self._capacity())
        self.model_buffer.add(rollouts.data, self.block.start, self._with_weights(recipe, rollouts))
        dropped = self.metrics.get("Model Rollouts Dropped", torch.zeros(1, device=self.device))
        self.metrics |= {
            "Model Rollout Reward": rollouts.mean_reward[None],
            "Model Rollout Length": rollouts.mean_length[None],
            "Model Rollouts Dropped": dropped + rollouts.dropped,
        }

    def _follow(self, recipe: Recipe) -> Rollouts:
        """Do the model rollouts of a recipe with the current weights."""
        seed, first = self.seed, recipe["first"]
        generator = make_generator(seed, "model rollouts", first, device=self.device)
        shape = (recipe["rollouts"],)
        indices = torch.randint(recipe["real"], shape, generator=generator, device=self.device)
        return roll_out(
            self.mb_agent.model,
            self.sac_agent.policy.draw,
            self.mb_agent.task_model,
            self.sac_agent.replay_buffer.all().obs[indices],
            recipe["length"],
            self.config.mbpo_propagation,
            generator,
        )

    def _with_weights(self, recipe: Recipe, rollouts: Rollouts) -> Recipe | None:
        """Return the recipe with the weights that it needs, or None if the rollouts are smaller."""
        policy, model = self.sac_agent.policy.state_dict(), self.mb_agent.model.state_dict()
        if _bytes([*policy.values(), *model.values()]) >= _bytes(rollouts.data):
            return None
        if self.model_weights is None:  # for the first rollouts after a fit
            self.model_weights = copy.deepcopy(model)
        return {**recipe, "policy": copy.deepcopy(policy), "model": self.model_weights}

    def _follow_again(self, recipe: Recipe) -> Transitions:
        """Do the model rollouts of a recipe with its weights."""
        parts = {"policy": self.sac_agent.policy, "model": self.mb_agent.model}
        current = copy.deepcopy({name: part.state_dict() for name, part in parts.items()})
        for name, part in parts.items():
            part.load_state_dict(recipe[name])
        data = self._follow(recipe).data
        for name, part in parts.items():
            part.load_state_dict(current[name])
        return data

    def _record(self, name: str, value: float) -> None:
        self.metrics[name] = torch.full((1,), value, device=self.device)

    def diagnosed(self) -> Diagnosed | None:
        """Return the model and the SAC policy's mode, or None without a model."""
        if self.model is None:
            return None
        horizon = max(self.config.mbpo_rollout_length, PLAN_HORIZON)
        policy = self.sac_agent.eval_policy
        return Diagnosed(self.model, self.mb_agent.task_model, policy, horizon, ERROR_HORIZON)

    def state_dict(self) -> dict[str, Any]:
        """Return both agents, the model buffer and the counters.

        Large batches of imagined transitions are left out: `load_state_dict` imagines them again
        from the weights of their time, unless SAC's full replay buffer has overwritten their
        starts.
        """
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        replay = self.sac_agent.replay_buffer
        parts["model_buffer"] = self.model_buffer.state_dict(len(replay) < replay.capacity)
        block = [self.block.start, self.block.stop]
        rest = {"metrics": self.metrics, "block": block, "env_steps": self.env_steps}
        return {**parts, **rest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.model_buffer.load_state_dict(state["model_buffer"], self._follow_again)
        self.metrics = state["metrics"]
        self.block = range(*state["block"])
        self.env_steps = state["env_steps"]

    def parameters_dict(self) -> dict[str, Any]:
        """Return the weights of the model, the policy and the Q networks."""
        return {**self.mb_agent.parameters_dict(), **self.sac_agent.parameters_dict()}

    def load_parameters(self, parameters: dict[str, Any]) -> None:
        """Restore the model, the policy and the Q networks, those that `parameters` has."""
        self.mb_agent.load_parameters(parameters)
        self.sac_agent.load_parameters(parameters)


def _bytes(values: Iterable[Any]) -> int:
    """Return the size of the tensors among `values`."""
    return sum(tensor.nbytes for tensor in values if isinstance(tensor, Tensor))


_PARTS = ("mb_agent", "sac_agent")
