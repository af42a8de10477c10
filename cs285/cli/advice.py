"""Warnings and hints about a run's flags. Each is printed at most once."""

from __future__ import annotations

from typing import Any

import torch

from cs285.envs.registration import TaskSpec
from cs285.infrastructure.replay_buffer import Path, Transitions, stack_paths
from cs285.models.task_model import TaskModel
from cs285.networks.compilation import can_compile

COMPILING_PAYS_FROM = 10_000  # SAC updates, from results/benchmarks/autograd.json


def describe_compiling(config: Any, device: torch.device) -> str | None:
    """Return a hint if --compile would save time on a CPU, else None."""
    sac = getattr(config, "sac", None)
    if sac is None or config.run.compile or device.type != "cpu" or not can_compile(device):
        return None
    updates = config.run.n_iter * sac.sac_n_iter * sac.sac_num_agent_train_steps_per_iter
    if updates < COMPILING_PAYS_FROM:
        return None
    return (
        f"hint: this run does at least {updates} SAC updates, and --compile saves time from about "
        f"{COMPILING_PAYS_FROM}; pass --compile"
    )


class Advice:
    """Warns about flags that do not fit the data. RL_Trainer calls it after each collection."""

    def __init__(self, config: Any, task: TaskSpec) -> None:
        model: Any = getattr(config, "model", None)
        sac = getattr(config, "sac", None)
        has_model = model is not None and model.num_agent_train_steps_per_iter > 0
        self.misses_termination = has_model and TaskModel.of(task, model).termination_is_unknown
        self.sac_batch = sac.sac_train_batch_size if sac else 0
        pilco = getattr(config, "pilco", None)
        self.most_rows = pilco.pilco_max_rows if pilco else None
        self.rows = 0  # collected so far
        self.get_reward = task.get_reward
        if model is not None and TaskModel.of(task, model).learns_reward:
            self.get_reward = None

    def start(self, rows: int) -> None:
        """Continue a run that has collected `rows` transitions."""
        self.rows = rows
        if self.most_rows is not None and rows > self.most_rows:
            self.most_rows = None  # an earlier session printed the hint

    def __call__(self, paths: list[Path], iteration: int) -> None:
        """Print the warnings for the paths of an iteration."""
        collected = sum(path.length for path in paths)
        if self.misses_termination and any(path.terminated.any() for path in paths):
            print(
                "warning: episodes of this task terminate, but imagined episodes do not, because "
                "the task has no termination function; pass --termination learned",
                flush=True,
            )
            self.misses_termination = False
        if iteration == 0 and self.get_reward is not None:
            self._compare_rewards(stack_paths(paths))
        self.rows += collected
        if self.most_rows is not None and self.rows > self.most_rows:
            print(
                f"hint: from now on the GPs use the newest {self.most_rows} transitions; raise "
                "--pilco_max_rows to use more, which takes more time",
                flush=True,
            )
            self.most_rows = None
        if iteration == 0 and self.sac_batch > collected:
            print(
                f"warning: --sac_train_batch_size {self.sac_batch} exceeds the {collected} "
                "collected env steps, so real transitions repeat within a batch; raise "
                "--batch_size_initial or lower --sac_train_batch_size",
                flush=True,
            )

    def _compare_rewards(self, data: Transitions) -> None:
        """Warn if the task's `get_reward` is not the reward of most steps."""
        assert self.get_reward is not None
        rewards = self.get_reward(data.next_obs, data.acs)[0].float()  # or they are bool or int
        differs = ~torch.isclose(rewards, data.rewards, rtol=0.01, atol=0.01)
        if differs.float().mean() > 0.5:
            print(
                "warning: the task's get_reward(next observation, action) is "
                f"{rewards.mean():.4g} in the mean of iteration 0, but the task's rewards are "
                f"{data.rewards.mean():.4g}; imagined steps use get_reward; fix it, or pass "
                "--learned_reward",
                flush=True,
            )
