"""The protocol between the trainer and any agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any, Protocol

from torch import Tensor

from cs285.infrastructure.episodes import EnvFactory
from cs285.infrastructure.replay_buffer import Path
from cs285.infrastructure.stopwatch import Stopwatch
from cs285.policies.base_policy import Policy


class BaseAgent(Protocol):
    """What RL_Trainer asks of an agent; it knows nothing else about one."""

    @property
    def actor(self) -> Policy:
        """The policy that collects."""
        ...

    @property
    def eval_policies(self) -> dict[str, Policy]:
        """The policies that are evaluated, by the prefix of their metrics; "Eval" is among them."""
        ...

    @property
    def stopwatch(self) -> Stopwatch:
        """Counts the phases of learning; the trainer has it count its own, too."""
        ...

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store what was collected in this iteration."""
        ...

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Do the whole learning phase of an iteration.

        Returns metrics by name, each a curve over the phase's gradient steps (steps,), or a single
        value (1,), on the device; the trainer logs the last one. A non-finite one stops the run.
        """
        ...

    def save_figures(
        self, folder: FilePath, losses: dict[str, Tensor], env_factory: EnvFactory
    ) -> None:
        """Write the pictures of iteration 0, whose `train` returned `losses`, into `folder`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on bit for bit."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...

    def parameters_dict(self) -> dict[str, Any]:
        """Return what is needed to act, without replay or optimisers: for --save_params."""
        ...
