"""Test that each warning about the collected data is printed once, and only if it applies."""

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
UNKNOWN_TERMINATION = "warning: episodes of this task terminate, but imagined episodes do not"
LARGE_BATCH = "warning: --sac_train_batch_size 50 exceeds the {collected} collected env steps"


def reward(obs: Any, acs: Any) -> tuple[Any, Any]:
    return obs[..., 0], obs[..., 0] > 1


def advise(
    paths: list[Path],
    get_reward: Any = reward,
    first: int = 0,
    config_class: type = MBPOConfig,
    **flags: Any,
) -> None:
    """Pass the same paths to Advice in three iterations, starting with iteration `first`."""
    task = TaskSpec(3, 2, LOW, HIGH, get_reward=get_reward, ep_len=10)
    advice = Advice(from_flat(config_class, flags), task)
    for iteration in range(first, first + 3):
        advice(paths, iteration)


def path(length: int, terminates: bool = False) -> Path:
    obs, terminated = np.zeros((length, 3), np.float32), np.zeros(length, bool)
    terminated[-1] = terminates
    return Path(obs, obs[:, :2], obs[:, 0], obs, terminated)


@pytest.mark.parametrize("scale", [1, -1])
@pytest.mark.parametrize("flags", [{}, {"learned_reward": True}])
def test_get_reward_that_is_not_the_tasks_reward(
    scale: int, flags: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    moving = np.ones((8, 3), np.float32)
    paths = [path(2), path(8)._replace(next_obs=moving, rewards=scale * moving[:, 0])]
    advise(paths, **flags)
    out = capsys.readouterr().out
    warning = "get_reward(next observation, action) is 0.8 in the mean of iteration 0, but the task"
    assert out.count(warning) == (scale < 0 and not flags)


@pytest.mark.parametrize("kind", ["bool", "int"])
def test_rewards_of_get_reward_may_be_whole_numbers(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def whole(obs: Any, acs: Any) -> tuple[Any, Any]:
        return getattr(obs[..., 0] >= 0, kind)(), obs[..., 0] > 1

    advise([path(8)], whole)
    assert "get_reward(next observation, action) is 1 in the mean" in capsys.readouterr().out


@pytest.mark.parametrize("config_class", [MBConfig, MBPOConfig])
@pytest.mark.parametrize(
    ("get_reward", "flags", "terminates", "times"),
    [
        (None, {}, True, 1),
        (None, {}, False, 0),
        (None, {"termination": "learned"}, True, 0),
        (None, {"termination": "none"}, True, 0),
        (reward, {}, True, 0),
    ],
)
def test_unknown_terminations_give_one_warning(
    get_reward: Any,
    flags: dict[str, Any],
    terminates: bool,
    times: int,
    config_class: type,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [path(300), path(1, terminates)]
    advise(paths, get_reward, config_class=config_class, **flags)
    assert capsys.readouterr().out.count(UNKNOWN_TERMINATION) == times


def test_without_a_model_there_is_no_termination_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = {"num_agent_train_steps_per_iter": 0, "mbpo_rollout_length": 0}
    advise([path(300, True)], None, **flags)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("lengths", "first", "times"),
    [([20, 29], 0, 1), ([20, 30], 0, 0), ([20, 29], 1, 0)],
)
def test_sac_batch_larger_than_the_data_gives_one_warning_at_the_start(
    lengths: list[int], first: int, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    advise([path(n) for n in lengths], first=first, sac_train_batch_size=50)
    warning = LARGE_BATCH.format(collected=sum(lengths))
    assert capsys.readouterr().out.count(warning) == times
