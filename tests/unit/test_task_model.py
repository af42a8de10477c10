"""Test the sources of rewards and terminations in imagined steps, by task and flags."""

from typing import Any

import numpy as np
import pytest
import torch

from cs285.config.model import ModelConfig
from cs285.envs import TaskSpec
from cs285.models.base_model import Prediction
from cs285.models.task_model import TaskModel

BOX = np.ones(1, np.float32)
PREDICTED = Prediction(torch.tensor([[1.0], [5.0]]), torch.tensor([7.0, 8.0]), None)
LEARNED = PREDICTED._replace(terminated=torch.tensor([True, False]))
ACS = torch.zeros(2, 1)


def by_reward(obs: Any, acs: Any) -> tuple[Any, Any]:
    return -obs[..., 0], obs[..., 0] > 3


def by_rule(obs: Any) -> Any:
    return obs[..., 0] > 0


def task(reward: bool = True, rule: bool = False, **flags: Any) -> TaskModel:
    spec = TaskSpec(1, 1, -BOX, BOX, by_reward if reward else None, 10, by_rule if rule else None)
    return TaskModel.of(spec, ModelConfig(**flags))


@pytest.mark.parametrize(
    ("options", "rewards", "terminated", "ends_plans"),
    [
        ({}, [-1, -5], [False, True], False),  # the homework's planner ignores termination
        ({"rule": True}, [-1, -5], [True, True], True),
        ({"reward": False, "rule": True}, [7, 8], [True, True], True),
        ({"reward": False}, [7, 8], None, False),
        ({"learned_reward": True}, [7, 8], [False, True], False),
        ({"termination": "known"}, [-1, -5], [False, True], True),
        ({"termination": "none"}, [-1, -5], None, True),
        ({"termination": "none", "rule": True}, [-1, -5], None, True),
        ({"termination": "learned", "rule": True}, [-1, -5], [True, False], True),
    ],
)
def test_outcome_uses_the_selected_functions(
    options: dict[str, Any], rewards: Any, terminated: Any, ends_plans: bool
) -> None:
    found = task(**options)
    is_learned = options.get("termination") == "learned"
    outcome = found.outcome(LEARNED if is_learned else PREDICTED, ACS)
    assert outcome.rewards.tolist() == rewards
    found_terminated = None if outcome.terminated is None else outcome.terminated.tolist()
    assert found_terminated == terminated
    assert found.ends_plans == ends_plans


def test_rewards_have_the_dtype_of_the_prediction() -> None:
    """The task's reward function may return float64 or integers."""
    for kind in (torch.float64, torch.int64):
        found = TaskModel(lambda obs, acs, kind=kind: (obs[..., 0].to(kind), obs[..., 0] > 3))
        assert found.outcome(PREDICTED, ACS).rewards.dtype == torch.float32
