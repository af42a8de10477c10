"""The settings of the MB agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cs285.config.model import ModelConfig
from cs285.config.planner import ENSEMBLE_RULES, PlannerConfig
from cs285.config.run import RunConfig
from cs285.infrastructure.errors import UsageError


@dataclass(frozen=True)
class MBConfig:
    """Settings of the MB agent, which fits a dynamics model and plans through it."""

    rules: ClassVar = ENSEMBLE_RULES

    run: RunConfig
    model: ModelConfig
    planner: PlannerConfig

    def __post_init__(self) -> None:
        require_model(self.model, "the MB agent plans through the model")
        check_particles(self.model, self.planner)


def check_particles(model: ModelConfig, planner: PlannerConfig) -> None:
    """Check that the members can share the particles evenly. Raises UsageError: they cannot."""
    members = model.num_elites or model.ensemble_size
    planner.particles_per_member(members, model.model != "deterministic")


def require_model(model: ModelConfig, reason: str) -> None:
    """Check that the run has a model; `reason` says why. Raises UsageError: there is none."""
    if model.num_agent_train_steps_per_iter == 0:
        raise UsageError(
            f"--num_agent_train_steps_per_iter 0: must be a positive integer, because {reason}"
        )
