"""The model-based agent: fit a dynamics model to all real data and plan through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cs285.agents.base_agent import BaseAgent, Diagnosed
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.pytorch_util import make_adam, make_generator, make_rate_a_tensor
from cs285.infrastructure.replay_buffer import REPLAY_CAPACITY, Path, ReplayBuffer, stack_paths
from cs285.infrastructure.utils import add_noise
from cs285.models.base_model import DynamicsModel
from cs285.models.builder import build_model
from cs285.models.task_model import TaskModel
from cs285.models.training import fit, gradient_step
from cs285.networks.compilation import compiled
from cs285.policies.MPC_policy import MPCPolicy


class MBAgent(BaseAgent):
    """A dynamics model and the MPC policy that plans through it."""

    model: DynamicsModel
    actor: MPCPolicy
    parts = acting_parts = ("model",)

    def __init__(
        self,
        task: TaskSpec,
        model: ModelConfig,
        planner: PlannerConfig,
        seed: int,
        device: torch.device,
        compile: bool = False,
        dynamics: DynamicsModel | None = None,
    ) -> None:
        """Build the agent around `dynamics`, by default the ensemble that `model` describes."""
        super().__init__()
        self.task, self.config, self.seed, self.device = task, model, seed, device
        self.task_model = TaskModel.of(task, model)
        if dynamics is None:
            generator = make_generator(seed, "model init")
            dynamics = build_model(task, model, self.task_model.learns_reward, generator)
        self.model = dynamics.to(device)
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = make_adam(weights, model.learning_rate) if weights else None
        if compile and self.optimizer:
            make_rate_a_tensor(self.optimizer)
        self.replay_buffer = ReplayBuffer(REPLAY_CAPACITY, task.ob_dim, task.ac_dim, device)
        self.unseen = 0  # transitions collected since the last fit
        self.update = compiled(gradient_step) if compile else gradient_step
        # On a CPU, worker processes need a picklable policy, which a compiled one is not.
        self.actor = MPCPolicy(
            self.model,
            self.task_model,
            task.ac_low,
            task.ac_high,
            planner,
            device,
            compile and device.type == "cuda",
        )

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store the paths, with observation noise if --add_sl_noise is given."""
        data = stack_paths(paths)
        if self.config.add_sl_noise:
            data = add_noise(data, make_generator(self.seed, "observation noise", iteration))
        self.replay_buffer.add(data, paths)
        self.unseen += len(data.rewards)

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Fit the model to the whole replay buffer and return the metrics.

        From the second fit on, "New Data Loss" measures the previous model on the transitions
        collected since its fit. For a Gaussian ensemble, "Coverage" is measured on the same
        transitions.
        """
        new_data_metrics: dict[str, Tensor] = {}
        with self.stopwatch.phase("fit"):
            if 0 < self.unseen < len(self.replay_buffer):  # not the first fit
                new_data_metrics = self.model.evaluate(self.replay_buffer.newest(self.unseen))
            self.unseen = 0
            if self.optimizer is None:  # the model has no weights
                return new_data_metrics
            generator = make_generator(self.seed, "fit batches", iteration)
            metrics = fit(
                self.model, self.optimizer, self.replay_buffer, self.config, generator, self.update
            )
            return metrics | new_data_metrics

    def diagnosed(self) -> Diagnosed:
        """Return the model and the planner; the plan horizon is --mpc_horizon."""
        horizon = self.actor.config.mpc_horizon
        return Diagnosed(self.model, self.task_model, self.actor, horizon, 2 * horizon)

    def state_dict(self) -> dict[str, Any]:
        """Return the model, the optimiser and the replay buffer.

        No generator state is needed: each draw uses a new generator derived from (seed, purpose,
        iteration), and the trainer saves the iteration.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "replay_buffer": self.replay_buffer.state_dict(),
            "unseen": self.unseen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        self.replay_buffer.load_state_dict(state["replay_buffer"])
        self.unseen = state["unseen"]
