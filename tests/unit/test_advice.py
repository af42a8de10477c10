"""Remarks on what is collected: each is printed once, and only where there is reason for it."""

from typing import Any

import numpy as np
import pytest

from cs285.cli.advice import Advice
from cs285.config.flags import from_flat
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.envs import TaskSpec
from cs285.infrastructure.replay_buffer import Path

LOW, HIGH = np.full(2, -1, np.float32), np.ones(2, np.float32)
ENDS = "episodes of this task end, and where is not known"
BATCH = "--sac_train_batch_size 50 is more than the {held} env steps collected"


def reward(obs: Any, acs: Any) -> tuple[Any, Any]:
    return obs[..., 0], obs[..., 0] > 1


def advise(
    paths: list[Path],
    get_reward: Any = reward,
    first: int = 0,
    config_class: type = MBPOConfig,
    **flags: Any,
) -> None:
    """Look at the same paths in three iterations from number `first` on."""
    task = TaskSpec(3, 2, LOW, HIGH, get_reward=get_reward, ep_len=10)
    advice = Advice(from_flat(config_class, flags), task)
    for iteration in range(first, first + 3):
        advice(paths, iteration)


def path(length: int, ended: bool = False) -> Path:
    obs, ends = np.zeros((length, 3), np.float32), np.zeros(length, bool)
    ends[-1] = ended
    return Path(obs, obs[:, :2], obs[:, 0], obs, ends)


@pytest.mark.parametrize("config_class", [MBConfig, MBPOConfig])
@pytest.mark.parametrize(
    ("get_reward", "flags", "ended", "times"),
    [
        (None, {}, True, 1),
        (None, {}, False, 0),
        (None, {"termination": "learned"}, True, 0),
        (None, {"termination": "none"}, True, 0),
        (reward, {}, True, 0),
    ],
)
def test_ends_that_are_not_known_are_remarked_once(
    get_reward: Any,
    flags: dict[str, Any],
    ended: bool,
    times: int,
    config_class: type,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [path(300), path(1, ended)]
    advise(paths, get_reward, config_class=config_class, **flags)
    assert capsys.readouterr().out.count(ENDS) == times


def test_without_a_model_no_end_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"num_agent_train_steps_per_iter": 0, "mbpo_rollout_length": 0}
    advise([path(300, True)], None, **flags)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("lengths", "first", "times"),
    [([20, 29], 0, 1), ([20, 30], 0, 0), ([20, 29], 1, 0)],
)
def test_batches_that_repeat_rows_are_remarked_at_the_start(
    lengths: list[int], first: int, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    advise([path(n) for n in lengths], first=first, sac_train_batch_size=50)
    assert capsys.readouterr().out.count(BATCH.format(held=sum(lengths))) == times
