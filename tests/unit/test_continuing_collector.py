"""Tests of the continuing collector: an episode continues across collections and resumes."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from cs285.collection.continuing_collector import ContinuingCollector
from cs285.envs import make_env
from cs285.infrastructure.errors import DivergedError
from cs285.infrastructure.replay_buffer import Path
from cs285.policies.base_policy import RandomPolicy

EP_LEN = 7
FACTORY = partial(make_env, "cheetah-cs285-v0", EP_LEN)
RANDOM = RandomPolicy(np.full(6, -1, np.float32), np.ones(6, np.float32))


def joined(paths: list[Path]) -> Path:
    return Path(
        *(np.concatenate(column) for column in zip(*(path[:5] for path in paths), strict=True))
    )


def test_collections_return_the_exact_number_of_steps() -> None:
    collector = ContinuingCollector(FACTORY, seed=3)
    pieces, finished = [], []
    for iteration, steps in enumerate([3, 1, 5, 12, 2]):
        collection = collector.collect(RANDOM, steps, "train", iteration)
        assert sum(path.length for path in collection.paths) == steps
        pieces += collection.paths
        finished += collection.finished
    data = joined(pieces)
    assert data.rewards.shape == (23,)
    assert [path.length for path in finished] == [7, 7, 7]
    for column, expected in zip(data[:5], joined(finished)[:5], strict=True):
        np.testing.assert_array_equal(column[:21], expected)
    is_continued = np.ones(22, bool)
    is_continued[[6, 13, 20]] = False  # the last steps of the finished episodes
    np.testing.assert_array_equal((data.next_obs[:-1] == data.obs[1:]).all(1), is_continued)
    assert not data.terminated.any()
    assert [path.is_continuation for path in pieces] == [0, 1, 1, 0, 1, 0, 0]
    collector.close()


def test_resume_within_an_episode_equals_an_uninterrupted_run() -> None:
    whole = ContinuingCollector(FACTORY, seed=3)
    stopped = ContinuingCollector(FACTORY, seed=3)
    for collector in (whole, stopped):
        collector.collect(RANDOM, 11, "train", 0)
    resumed = ContinuingCollector(FACTORY, seed=3)
    resumed.load_state_dict(stopped.state_dict())
    left = whole.collect(RANDOM, 9, "train", 1)
    right = resumed.collect(RANDOM, 9, "train", 1)
    for expected, actual in zip(joined(left.paths), joined(right.paths), strict=True):
        assert np.array_equal(expected, actual)
    assert left.finished[0].total_reward == right.finished[0].total_reward  # of the whole episode


class Counting(RandomPolicy):
    """Its actions count the decisions of the episode; the count is in its memory."""

    def get_action(self, obs: Any, memories: Any) -> Any:
        (memory,) = memories
        memory.kept["count"] = memory.kept.get("count", torch.zeros(6)) + 0.125
        return memory.kept["count"].numpy()[None]


def test_policy_memory_lasts_for_one_episode() -> None:
    policy = Counting(RANDOM.ac_low, RANDOM.ac_high)
    whole, stopped = ContinuingCollector(FACTORY, 3), ContinuingCollector(FACTORY, 3)
    for collector in (whole, stopped):
        collector.collect(policy, 4, "train", 0)
    resumed = ContinuingCollector(FACTORY, 3)
    resumed.load_state_dict(stopped.state_dict())
    for collector in (whole, resumed):
        acs = joined(collector.collect(policy, 5, "train", 1).paths).acs[:, 0]
        np.testing.assert_array_equal(acs, [0.625, 0.75, 0.875, 0.125, 0.25])


def test_resume_between_episodes() -> None:
    collector, resumed = ContinuingCollector(FACTORY, 3), ContinuingCollector(FACTORY, 3)
    collector.collect(RANDOM, EP_LEN, "train", 0)
    resumed.load_state_dict(collector.state_dict())
    left, right = (c.collect(RANDOM, 3, "train", 1).paths[0] for c in (collector, resumed))
    assert np.array_equal(left.obs, right.obs)


class Unrepeatable(gym.Wrapper):
    """An env that is not a function of its seed and actions."""

    draws = np.random.default_rng(0)

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        return obs + self.draws.normal(), *rest


def test_resume_with_a_random_environment_starts_a_new_episode(
    capsys: pytest.CaptureFixture[str],
) -> None:
    collector = ContinuingCollector(lambda: Unrepeatable(FACTORY()), 3)
    collector.collect(RANDOM, 3, "train", 0)
    state = collector.state_dict()
    collector.load_state_dict(state)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "did not reproduce the running episode" in err
    assert collector.collect(RANDOM, EP_LEN, "train", 1).finished


def test_non_finite_action_never_reaches_the_simulator() -> None:
    class NanPolicy(RandomPolicy):
        def get_action(self, obs: Any, memories: Any) -> Any:
            return np.full((len(obs), 6), np.nan, np.float32)

    with pytest.raises(DivergedError):
        ContinuingCollector(FACTORY, 3).collect(NanPolicy(RANDOM.ac_low, RANDOM.ac_high), 3, "t", 0)
