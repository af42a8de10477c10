"""Checks of the warm-up: which episodes count, and the loops over env steps and iterations."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from cs285.assignment.blanks import WrongError
from cs285.assignment.checks.support import expect, require, returned
from cs285.collection.collector import _shortest_prefix
from cs285.collection.episodes import Episode, EpisodeKey, fresh_memory, run_episodes
from cs285.infrastructure.errors import RunError
from cs285.infrastructure.recording.stopwatch import Stopwatch
from cs285.infrastructure.replay_buffer import Path
from cs285.infrastructure.rl_trainer import RL_Trainer
from cs285.policies.base_policy import Memory


def enough() -> None:
    """Check the shortest prefix of episodes with enough env steps."""
    paths = {number: _path(3) for number in (3, 1, 0, 2)}  # they finished in this order

    def count(steps: int, episodes: int = 0) -> int:
        found = _shortest_prefix(dict(paths), steps, episodes)
        return -1 if found is None else len(found)

    lengths = "episodes of 3 env steps each"
    expect(f"number of {lengths} for min_steps 7", count(7), 3)
    more = [("it takes one episode too many: 6 steps are enough", 3)]
    expect(f"number of {lengths} for min_steps 6", count(6), 2, more)
    ignored = [("min_episodes is ignored", 1)]
    expect(f"number of {lengths} for min_steps 1, min_episodes 2", count(1, 2), 2, ignored)
    found = _shortest_prefix(dict(paths), 6) or []
    same = all(path is paths[number] for number, path in enumerate(found))
    require(same, "the paths must be in the order of the numbers 0, 1, 2, ...")
    hole = {1: _path(9), 2: _path(9)}
    require(
        _shortest_prefix(dict(hole), 3) is None,
        "episode 0 has not finished: expected None; a later episode must not replace it",
    )
    failed: dict[int, Path | RunError] = {0: _path(3), 1: _path(3), 2: RunError("broken")}
    try:
        found = _shortest_prefix(failed, 6) or []
    except RunError as error:
        raise WrongError("episode 2 failed, but is not needed: it must be ignored") from error
    expect("number of episodes for min_steps 6 if episode 2 failed", len(found), 2)
    try:
        _shortest_prefix(failed, 7)
    except RunError:
        return
    raise WrongError("episode 2 failed and is needed for min_steps 7: its error must be raised")


def episodes() -> None:
    """Check the lockstep loop with episodes of different lengths."""
    envs = [_Counting(0, 2), _Counting(1, 9), _Counting(2, 3)]
    keys = [EpisodeKey(1, "check", 0, number) for number in range(3)]
    counts: list[int] = []
    policy = _Echo()
    paths = returned("run_episodes", run_episodes(envs, policy, keys, counts.append))
    require(len(paths) == 3, f"expected 3 paths, got {len(paths)}")
    expect("lengths of the paths", [path.length for path in paths], [2, 4, 3])
    ended = [bool(path.terminated[-1]) for path in paths]
    expect("`terminated` at the end of the paths", ended, [True, False, True])
    expect("rewards of the second path", paths[1].rewards, [1, 2, 3, 4])
    every = [("on_step must get the number of episodes that took a step", [1, 1, 1, 1])]
    late = [("count the running episodes before those that finished are removed", [3, 2, 1, 0])]
    expect("what on_step got", counts, [3, 3, 2, 1], every + late)
    expect("observations in the policy's batches", policy.sizes, [3, 3, 2, 1])
    others = [_Counting(0, 9) for _ in keys]
    for env, key in zip(others, keys, strict=True):
        Episode(env, key)
    seeds = [[env.seed for env in each] for each in (envs, others)]
    require(seeds[0] == seeds[1], "every environment needs an Episode with its own key")
    require(policy.keeps_memories, "an episode must keep its own memory over all of its decisions")
    fresh = [fresh_memory(key, policy.device).generator.initial_seed() for key in keys]
    require(policy.seeds == fresh, "every episode needs the fresh memory of its own key")


def iterate() -> None:
    """Check the order of the phases of an iteration, by a diary that fakes write."""
    steps = ["collect 3", "advise", "add", "train", "log", "video 3"]
    diary, scalars = _run_iteration(3, is_logged=True)
    require(sorted(diary) == sorted(steps), f"phases: expected {steps}, got {diary}")
    early = "; likely mistake: the model must see the newest data before it is fitted"
    likely = early if diary.index("train") < diary.index("add") else ""
    require(diary == steps, f"order of the phases: expected {steps}, got {diary}{likely}")
    require(scalars == {"logged": 5.0}, f"scalars of a logged iteration: got {scalars}")
    diary, scalars = _run_iteration(4, is_logged=False)
    expected = ["collect 4", "advise", "add", "train"]
    require(diary == expected, f"without logging and video: expected {expected}, got {diary}")
    require(
        scalars == {"loss": 1.0}, f"not logged: expected the metrics of training, got {scalars}"
    )


def _path(length: int) -> Path:
    obs, terminated = np.zeros((length, 1), np.float32), np.zeros(length, bool)
    return Path(obs, obs, np.zeros(length, np.float32), obs, terminated)


def _run_iteration(number: int, is_logged: bool) -> tuple[list[str], dict[str, float]]:
    """Run an iteration with fakes, and return the diary and the scalars."""
    diary: list[str] = []
    columns = np.zeros((2, 1), np.float32), np.zeros((3, 1), np.float32)
    paths = [Path(c, c, c[:, 0], c, np.zeros(len(c), bool)) for c in columns]
    trainer: Any = RL_Trainer.__new__(RL_Trainer)
    trainer.config = SimpleNamespace(video_log_freq=3)
    trainer.counters = SimpleNamespace(env_steps=10)
    trainer.stopwatch = Stopwatch()

    def note(word: str, returned: Any = None) -> Any:
        diary.append(word)
        return returned

    given = paths  # below, parameters have their real names, because a call may use keywords

    def collect(iteration: int) -> list[Path]:
        return note(f"collect {iteration}", given)

    def advise(paths: Any, iteration: int) -> None:
        note("advise")

    def add(paths: Any, iteration: int) -> None:
        require(paths is given and iteration == number, "the agent must get the new paths")
        note("add")

    def train(iteration: int) -> dict[str, float]:
        counted = trainer.counters.env_steps
        require(
            counted == 15,
            f"env steps at training: expected 10 + 2 + 3 = 15, got {counted}; "
            "count the env steps of the paths, not the paths",
        )
        return note("train", {"loss": 1.0})

    def log(iteration: int, metrics: dict[str, float]) -> dict[str, float]:
        require(metrics == {"loss": 1.0}, "the log must get the metrics of training")
        return note("log", {"logged": 5.0})

    trainer.agent = SimpleNamespace(add_to_replay_buffer=add)
    trainer.advise, trainer._collect, trainer._train, trainer._log = advise, collect, train, log
    trainer._log_video = lambda iteration: note(f"video {iteration}")
    scalars = trainer._iterate(number, is_logged)
    is_timed = f"video {number}" not in diary or "videos" in trainer.stopwatch.seconds
    require(is_timed, 'the stopwatch must time the video: with self.stopwatch.phase("videos")')
    return diary, scalars


class _Counting(gym.Env):
    """Terminates after `length` steps and is truncated after 4; the reward is the step's number."""

    def __init__(self, number: int, length: int) -> None:
        self.observation_space = gym.spaces.Box(-100, 100, (2,), np.float32)
        self.action_space = gym.spaces.Box(-100, 100, (1,), np.float32)
        self.number, self.length, self.steps = number, length, 0
        self.seed: int | None = None

    def reset(self, *, seed: int | None = None, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self.steps, self.seed = 0, seed
        return np.array([self.number, 0], np.float32), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take a step; it must be this environment's turn."""
        require(self.steps < min(self.length, 4), "an episode was stepped after its end")
        require(
            int(action[0]) == self.number,
            f"env {self.number} got the action for env {int(action[0])}",
        )
        self.steps += 1
        obs = np.array([self.number, self.steps], np.float32)
        return obs, float(self.steps), self.steps >= self.length, self.steps >= 4, {}


class _Echo:
    """Acts with the number of the environment, and looks at the memories."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.owners: dict[int, float] = {}
        self.keeps_memories = True
        self.seeds: list[int] = []  # of the memories in the first batch

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """Return the first column of the observations."""
        require(len(obs) == len(memories), "the policy needs one memory per running episode")
        self.sizes.append(len(obs))
        self.seeds = self.seeds or [memory.generator.initial_seed() for memory in memories]
        for number, memory in zip(obs[:, 0], memories, strict=True):
            owner = self.owners.setdefault(id(memory), float(number))
            known = float(memory.kept.setdefault("owner", torch.tensor(float(number))))
            self.keeps_memories &= owner == known == float(number)
        self.keeps_memories &= len(self.owners) <= 3
        return obs[:, :1]
