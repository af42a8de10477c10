"""What the trainer and the tools ask of an agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from cs285.infrastructure.recording.stopwatch import Stopwatch
from cs285.infrastructure.replay_buffer import Path
from cs285.models.base_model import DynamicsModel
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Policy


class Diagnosed(NamedTuple):
    """What a diagnosis looks at: a model, and a policy that relies on it."""

    model: DynamicsModel
    task: TaskModel
    policy: Policy
    plan_horizon: int  # env steps of a plan
    error_horizon: int  # env steps over which the model's open-loop error is measured


class BaseAgent:
    """An agent. RL_Trainer knows nothing else about one; the defaults suit one that learns nothing.

    Agents compute: they return tensors, and print and draw nothing.
    """

    actor: Policy  # collects
    model: DynamicsModel | None = None  # whose predictions are drawn after the first fit

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()  # counts the phases of learning; the trainer adds its own

    @property
    def eval_policies(self) -> dict[str, Policy]:
        """The policies that are evaluated, by the prefix of their metrics; "Eval" is among them."""
        return {"Eval": self.actor}

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store what was collected in this iteration."""

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Do the whole learning phase of an iteration.

        Returns metrics by name, each a curve over the phase's gradient steps (steps,), or a single
        value (1,), on the device; the trainer logs the last one. A non-finite one stops the run.
        """
        return {}

    def diagnosed(self) -> Diagnosed | None:
        """Return what scripts/diagnose.py looks at; None where there is no model."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on bit for bit."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def parameters_dict(self) -> dict[str, Any]:
        """Return what is needed to act, without replay or optimisers: for --save_params."""
        return {}
