"""Model-predictive control (MPC): plan an action sequence, execute its first action, replan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.config.planner import PlannerConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import from_numpy, to_numpy
from cs285.models.base_model import DynamicsModel
from cs285.models.propagation import step_with_mean, swap_members
from cs285.models.task_model import TaskModel
from cs285.networks.compilation import compiled
from cs285.policies.base_policy import Memory, draw_each
from cs285.policies.planners import PLANNERS
from cs285.policies.planners.sampling import Planner, SamplingContext

TerminalValue = Callable[[Tensor], Tensor]  # obs (M, R, O) -> values (M, R)
# (obs (B, O), memory of each row's episode) -> candidates to add (B, any number, H, A)
PolicyPrior = Callable[[Tensor, Sequence[Memory]], Tensor]
MODEL_STATE = "model state"  # the state (M, S) that a model with memory predicts for the next step


class Draws(NamedTuple):
    """The random numbers that evaluate candidates in B environments.

    Each of M elites has K particles. All candidates of a population use the same random numbers
    (common random numbers). Differences between returns are then caused by the actions only.
    """

    noise: Tensor | None = None  # (H, M, K, B, D), standard normal, for a Gaussian model
    orders: Tensor | None = None  # (H, M K, B), permutations of the particles, for TS1


class MPCPolicy:
    """Plans through the model for B environments, M elites and N candidates at once.

    The default planner is the one that `config` names. A planner with the attribute
    `uses_gradients` may differentiate returns, inside `torch.enable_grad()`. A `terminal_value` is
    added to the return of a candidate whose imagined episode has not terminated. A `policy_prior`
    proposes additional candidates. To act in worker processes, all of these must be picklable.
    """

    def __init__(
        self,
        model: DynamicsModel,
        task: TaskModel,
        ac_low: NDArray[np.float32],
        ac_high: NDArray[np.float32],
        config: PlannerConfig,
        device: torch.device,
        compile: bool = False,
        *,
        planner: Planner | None = None,
        terminal_value: TerminalValue | None = None,
        policy_prior: PolicyPrior | None = None,
    ) -> None:
        if model.has_memory and config.mpc_propagation == "ts1":
            raise UsageError(
                "--mpc_propagation ts1: must be tsinf or mean, because the members of this model "
                "do not share their memories"
            )
        self.model, self.task, self.config, self.device = model, task, config, device
        self.planner = planner or PLANNERS[config.mpc_action_sampling_strategy]
        self.terminal_value, self.policy_prior = terminal_value, policy_prior
        self.particles = config.particles_per_member(model.members, model.noise_dim > 0)
        self.ac_low, self.ac_high = from_numpy(ac_low, device), from_numpy(ac_high, device)
        self.evaluate = compiled(self.evaluate_sequences) if compile else self.evaluate_sequences

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """Return the first actions (B, A) of the best plans for obs (B, O).

        If no candidate has a finite return in an environment, its action is NaN.
        """
        return to_numpy(self.plan(obs, memories)[:, 0])

    def plan(self, obs: NDArray[np.float32], memories: Sequence[Memory]) -> Tensor:
        """Return the best plans (B, H, A) for obs (B, O).

        If no candidate has a finite return in an environment, its plan is NaN.
        """
        uses_gradients = getattr(self.planner, "uses_gradients", False)
        with torch.no_grad() if uses_gradients else torch.inference_mode():  # the latter is faster
            obs_tensor = from_numpy(obs, self.device)
            states = self._recall_states(obs_tensor, memories)
            proposals = self.policy_prior(obs_tensor, memories) if self.policy_prior else None
            context = SamplingContext(self.ac_low, self.ac_high, self.config, memories, proposals)

            def returns_of(sequences: Tensor) -> Tensor:
                return self.evaluate(states, sequences, self.draw(memories))

            plans = self.planner(returns_of, context)
            self._keep_states(states, plans[:, 0], memories)
            return plans

    def draw(self, memories: Sequence[Memory]) -> Draws:
        """Draw the random numbers of one evaluation in B environments."""
        M, D = self.model.members, self.model.noise_dim
        K, H = self.particles, self.config.mpc_horizon
        noise = orders = None
        if D and self.config.mpc_propagation != "mean":
            noise = draw_each(memories, torch.randn, (H, M, K, D), self.device, dim=3)
        if self.config.mpc_propagation == "ts1":
            orders = draw_each(memories, torch.rand, (H, M * K), self.device, dim=2).argsort(1)
        return Draws(noise, orders)

    def evaluate_sequences(self, states: Tensor, sequences: Tensor, draws: Draws) -> Tensor:
        """Return the imagined returns (B, N) of sequences (B, N, H, A).

        `states` (M, B, S) are the model's states. A return is the sum of the rewards of the H
        post-step observations, plus the terminal value. If `task.ends_plans`, nothing counts after
        a termination. A return is averaged over K particles for each of M elites. A particle stays
        with one elite (tsinf), switches elites at each step (ts1), or follows the mean over the
        elites (mean). Chua et al. 2018, arXiv:1805.12114, section 5.1.
        """
        B, N, H, A = sequences.shape
        M, K = self.model.members, self.particles
        states = states[:, None, :, None].expand(M, K, B, N, -1).reshape(M, K * B * N, -1)
        returns = torch.zeros(M, K * B * N, device=states.device)
        alive = torch.ones_like(returns, dtype=torch.bool)
        model = self.model
        predict = model.frozen_step() if torch.is_grad_enabled() else model.planning_step()
        for step in range(H):
            acs = _repeated(sequences[:, :, step].reshape(B * N, A), K)
            if self.config.mpc_propagation == "mean":  # one prediction for all elites
                states, prediction = step_with_mean(model, predict, states, acs)
            else:
                acs, noise = acs.expand(M, -1, -1), None
                if draws.noise is not None:
                    noise = draws.noise[step].repeat_interleave(N, 2).flatten(1, 2)
                states, prediction = predict(states, acs, noise)
            rewards, terminated = self.task.outcome(prediction, acs)
            if terminated is None or not self.task.ends_plans:
                returns += rewards
            else:
                # Some tasks terminate at non-finite states. Such a candidate must rank last.
                finite = prediction.next_obs.isfinite().all(-1)
                rewards = torch.where(finite, rewards, -torch.inf)
                returns += torch.where(alive, rewards, 0.0)
                alive = alive & ~terminated
            if self.terminal_value is not None and step + 1 == H:
                returns += torch.where(alive, self.terminal_value(prediction.next_obs), 0.0)
            if draws.orders is not None:
                order = draws.orders[step].repeat_interleave(N, 1)
                states, alive = _swap(states, K, order), _swap(alive, K, order)
        return returns.mean(0).view(K, B, N).mean(0)

    def _recall_states(self, obs: Tensor, memories: Sequence[Memory]) -> Tensor:
        """Return the model's states (M, B, S) at obs (B, O), with the memory of each episode."""
        if not self.model.has_memory:
            return self.model.initial_state(obs)
        states = []
        for row, memory in zip(obs[:, None], memories, strict=True):
            kept = memory.kept.get(MODEL_STATE)  # None at the start of an episode
            states.append(self.model.initial_state(row, None if kept is None else kept[:, None]))
        return torch.cat(states, 1)

    def _keep_states(self, states: Tensor, acs: Tensor, memories: Sequence[Memory]) -> None:
        """Keep the states that a model with memory predicts after the actions (B, A)."""
        if not self.model.has_memory:
            return
        predicted, _ = self.model.planning_step()(states, acs.expand(len(states), -1, -1))
        for memory, state in zip(memories, predicted.unbind(1), strict=True):
            memory.kept[MODEL_STATE] = state.clone()


def _repeated(rows: Tensor, K: int) -> Tensor:
    return rows if K == 1 else rows.repeat(K, 1)


def _swap(particles: Tensor, K: int, order: Tensor) -> Tensor:
    """Reassign the particles (M, K R, ...) to elites by `order` (M K, R)."""
    return swap_members(particles.unflatten(1, (K, -1)), order).flatten(1, 2)
