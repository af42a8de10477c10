"""A user-defined agent outside the package: hill climbing on a linear policy.

`python -m tests.toy_agent --env_name ...` trains it. Scripts call it tests.toy_agent:toy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cs285.agents.base_agent import BaseAgent, Diagnosed
from cs285.agents.registry import AgentEntry, register
from cs285.cli.launch import launch
from cs285.config.flags import RATE, flag
from cs285.config.run import RunConfig
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Path
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Memory, Policy
from tests.toys import ReachModel


@dataclass(frozen=True)
class HillConfig:
    """the hill climber"""

    toy_step: float = flag(
        1.0, "standard deviation of the noise added to the best weights", check=RATE
    )


@dataclass(frozen=True)
class ToyConfig:
    """Settings of the toy agent."""

    run: RunConfig
    hill: HillConfig


class LinearPolicy:
    """A policy whose actions are linear in the observations, with weights (O, A)."""

    device = torch.device("cpu")

    def __init__(self, task: TaskSpec, weights: torch.Tensor) -> None:
        self.task, self.weights = task, weights

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        return np.clip(obs @ self.weights.numpy(), self.task.ac_low, self.task.ac_high)


class HillClimber(BaseAgent):
    """Tries weights near the best ones and keeps them if their return is higher."""

    def __init__(self, config: ToyConfig, task: TaskSpec, device: torch.device) -> None:
        super().__init__()
        self.config, self.task = config, task
        self.tried = self.best = torch.zeros(task.ob_dim, task.ac_dim)
        self.best_return = self.mean_return = 0.0

    @property
    def actor(self) -> Policy:  # type: ignore[override]
        """The policy with the weights to try."""
        return LinearPolicy(self.task, self.tried)

    @property
    def eval_policies(self) -> dict[str, Policy]:
        return {"Eval": LinearPolicy(self.task, self.best)}

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        self.mean_return = float(np.mean([path.total_reward for path in paths]))

    def train(self, iteration: int) -> dict[str, torch.Tensor]:
        if iteration == 0 or self.mean_return > self.best_return:
            self.best, self.best_return = self.tried, self.mean_return
        generator = make_generator(self.config.run.seed, "toy", iteration)
        step = self.config.hill.toy_step * torch.randn(self.best.shape, generator=generator)
        self.tried = self.best + step
        return {"Best Return": torch.tensor([self.best_return])}

    def diagnosed(self) -> Diagnosed:
        """Return the policy with the best weights and the true model of LinearReach-v0."""
        task, model = TaskModel(self.task.get_reward), ReachModel()
        policy = self.eval_policies["Eval"]
        return Diagnosed(model, task, policy, 5, 8)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "tried": self.tried, "best_return": self.best_return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.tried = state["best"], state["tried"]
        self.best_return = state["best_return"]


register(AgentEntry("toy", "tests.toy_agent", ToyConfig, HillClimber))

if __name__ == "__main__":
    sys.exit(launch("tests.toy_agent:toy", None))
