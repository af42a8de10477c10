"""Remarks on a run whose flags do not fit what its task turns out to do, each printed once."""

from __future__ import annotations

from typing import Any

import torch

from cs285.envs.registration import TaskSpec
from cs285.infrastructure.replay_buffer import Path
from cs285.models.task_model import TaskModel
from cs285.networks.compilation import can_compile

COMPILING_PAYS_FROM = 10_000  # SAC updates: results/benchmarks/autograd.json


def describe_compiling(config: Any, device: torch.device) -> str | None:
    """Return a hint where --compile would save time on a CPU; None where it would not."""
    sac = getattr(config, "sac", None)
    if sac is None or config.run.compile or device.type != "cpu" or not can_compile(device):
        return None
    updates = config.run.n_iter * sac.sac_n_iter * sac.sac_num_agent_train_steps_per_iter
    if updates < COMPILING_PAYS_FROM:
        return None
    return (
        f"hint: this run does {updates} SAC updates; --compile saves time from about "
        f"{COMPILING_PAYS_FROM} on"
    )


class Advice:
    """Looks at what is collected; see RL_Trainer's `advise`."""

    def __init__(self, config: Any, task: TaskSpec) -> None:
        model: Any = getattr(config, "model", None)
        sac = getattr(config, "sac", None)
        has_model = model is not None and model.num_agent_train_steps_per_iter > 0
        self.misses_ends = has_model and TaskModel.of(task, model).termination_is_unknown
        self.sac_batch = sac.sac_train_batch_size if sac else 0

    def __call__(self, paths: list[Path], iteration: int) -> None:
        """Print what there is to say of the paths of an iteration."""
        held = sum(path.length for path in paths)
        if self.misses_ends and any(path.terminated.any() for path in paths):
            print(
                "  episodes of this task end, and where is not known: imagined ones go on for "
                "ever; --termination learned learns it",
                flush=True,
            )
            self.misses_ends = False
        if iteration == 0 and self.sac_batch > held:
            print(
                f"  --sac_train_batch_size {self.sac_batch} is more than the {held} env steps "
                "collected: real transitions repeat within a batch",
                flush=True,
            )
