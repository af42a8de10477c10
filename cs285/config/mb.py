"""The settings of a run of the MB agent."""

from __future__ import annotations

from dataclasses import dataclass

from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.config.run import RunConfig
from cs285.infrastructure.errors import UsageError


@dataclass(frozen=True)
class MBConfig:
    """Everything that defines one run of the MB agent."""

    run: RunConfig
    model: ModelConfig
    planner: PlannerConfig

    def __post_init__(self) -> None:
        require_model(self.model, "the MB agent plans through it")
        check_particles(self.model, self.planner)


def check_particles(model: ModelConfig, planner: PlannerConfig) -> None:
    """Raise UsageError: the planner's particles cannot be shared out among the model's members."""
    members = model.num_elites or model.ensemble_size
    planner.particles_per_member(members, model.model == "probabilistic")


def require_model(model: ModelConfig, reason: str) -> None:
    """Raise UsageError: there is to be no model, and `reason` needs one."""
    if model.num_agent_train_steps_per_iter == 0:
        raise UsageError(
            f"--num_agent_train_steps_per_iter 0: must be a positive integer: {reason}"
        )
