"""The interface of an agent, for the trainer and the scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cs285.infrastructure.recording.stopwatch import Stopwatch
from cs285.infrastructure.replay_buffer import Path
from cs285.infrastructure.unfinished import Unfinished
from cs285.models.base_model import DynamicsModel
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Policy


class Diagnosed(NamedTuple):
    """The parts of an agent that a diagnosis examines: a model and a policy that relies on it."""

    model: DynamicsModel
    task: TaskModel
    policy: Policy
    plan_horizon: int  # length of a plan, in env steps
    error_horizon: int  # length of the open-loop predictions, in env steps


class Forecast(NamedTuple):
    """An episode that an agent predicted before it was collected, and the real episode."""

    mean: NDArray[np.floating]  # (H + 1, O), predicted observations
    std: NDArray[np.floating]  # (H + 1, O)
    real: NDArray[np.floating]  # (T + 1, O)


class BaseAgent:
    """An agent, as RL_Trainer sees it. The defaults suit an agent that learns nothing.

    An agent only computes and returns tensors. It prints and plots nothing.
    """

    actor: Policy  # collects the training data
    model: DynamicsModel | None = None  # the trainer plots its predictions after the first fit
    eval_policy: Policy | None = None  # acts in evaluations; None: the actor
    parts: tuple[str, ...] = ()  # attributes that hold weights
    # The parts that the "Eval" policy needs. The best checkpoint has them.
    acting_parts: tuple[str, ...] = ()
    forecast: Forecast | None = None  # of an episode of this iteration; the trainer plots it
    unfinished: Unfinished | None = None  # keeps the state of `train` while it takes minutes

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()  # times the phases of training; the trainer adds its own

    @property
    def eval_policies(self) -> dict[str, Policy]:
        """The policies to evaluate, by the prefix of their metrics. "Eval" must be one of them."""
        return {"Eval": self.eval_policy or self.actor}

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store the paths that were collected in this iteration."""

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Train for one iteration and return the metrics by name.

        A metric is a curve over the gradient steps (steps,) or a single value (), on the device.
        The trainer logs its last value. A non-finite value stops the run.
        """
        return {}

    def diagnosed(self) -> Diagnosed | None:
        """Return the parts that scripts/diagnose.py examines, or None without a model."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-exact resume needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""

    def parameters_dict(self) -> dict[str, Any]:
        """Return the weights of the `parts`, which --save_params saves."""
        return {name: getattr(self, name).state_dict() for name in self.parts}

    def acting_parameters(self) -> dict[str, Any]:
        """Return the part of `parameters_dict` that the "Eval" policy needs."""
        parameters = self.parameters_dict()
        return {name: parameters[name] for name in self.acting_parts}

    def load_parameters(self, parameters: dict[str, Any]) -> None:
        """Restore the weights in `parameters`: all of `parameters_dict`, or some."""
        for name in self.parts:
            if name in parameters:
                getattr(self, name).load_state_dict(parameters[name])
