"""The builder of ensembles: MB and MBPO get their model only from here."""

from __future__ import annotations

import torch

from cs285.config.model import ModelConfig
from cs285.envs.registration import TaskSpec
from cs285.models.base_model import DynamicsModel
from cs285.models.ff_model import FFModel


def build_model(
    task: TaskSpec,
    config: ModelConfig,
    learns_reward: bool,
    generator: torch.Generator,
) -> DynamicsModel:
    """Return a new ensemble for `task`; a model of another class is chosen here."""
    return FFModel(task.ob_dim, task.ac_dim, config, learns_reward, generator)
