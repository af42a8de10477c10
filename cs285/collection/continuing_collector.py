"""Collect an exact number of env steps: the next collection continues the running episode."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from cs285.collection.collector import Collection
from cs285.collection.episodes import (
    EnvFactory,
    Episode,
    EpisodeKey,
    Progress,
    decide,
    fresh_memory,
)
from cs285.envs.checked_env import close_env
from cs285.infrastructure.pytorch_util import from_numpy, to_numpy
from cs285.infrastructure.replay_buffer import Path
from cs285.networks.threads import one_thread
from cs285.policies.base_policy import Policy


class ContinuingCollector:
    """Steps one environment, in this process, for exactly the requested number of env steps.

    On a CPU, planning uses `cores` threads. The data do not depend on their number.
    """

    def __init__(self, env_factory: EnvFactory, seed: int, cores: int = 1) -> None:
        self._env_factory, self.seed, self.cores = env_factory, seed, cores
        self._env: gym.Env | None = None
        self._episode: Episode | None = None
        self._kept: dict[str, Tensor] = {}  # what the policy keeps in the running episode

    def collect(
        self,
        policy: Policy,
        min_steps: int,
        purpose: str,
        iteration: int,
        progress: Progress = lambda steps: None,
    ) -> Collection:
        """Take exactly `min_steps` env steps.

        All random draws depend only on seed, purpose, iteration and the index of the piece.
        """
        pieces: list[Path] = []
        finished: list[Path] = []
        taken = 0
        while taken < min_steps:
            key = EpisodeKey(self.seed, purpose, iteration, len(pieces))
            episode = self._episode or Episode(self._environment(), key)
            memory, first = fresh_memory(key, policy.device), len(episode.acs)
            memory.kept |= self._kept
            with one_thread(planning_threads=self.cores):
                while episode.running and taken < min_steps:
                    episode.step(decide(policy, [episode], [memory])[0])
                    taken += 1
                    progress(taken)
            pieces.append(episode.path(first))
            if not episode.running:
                finished.append(episode.path())
            self._episode = episode if episode.running else None
            self._kept = memory.kept if episode.running else {}
        return Collection(pieces, finished)

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            close_env(self._env)

    def state_dict(self) -> dict[str, Any]:
        """Return the running episode: key, actions, last observation, what the policy keeps."""
        episode = self._episode
        if episode is None:
            return {}
        return {
            "key": list(episode.key),
            "acs": from_numpy(np.stack(episode.acs)),
            "obs": from_numpy(episode.obs[-1]),
            "kept": self._kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the running episode by replaying its actions in a new environment.

        If the environment is not a deterministic function of its seed and actions, this fails.
        Then the method prints a warning, and the next collection starts a new episode.
        """
        if not state:
            return
        episode = Episode(self._environment(), EpisodeKey(*state["key"]))
        episode.execute(to_numpy(state["acs"]))
        if np.array_equal(episode.obs[-1], to_numpy(state["obs"])) and episode.running:
            self._episode, self._kept = episode, dict(state["kept"])
        else:
            print(
                "warning: the environment did not reproduce the running episode; starting a new "
                "one; for an exact resume, make the environment a function of its seed and actions",
                file=sys.stderr,
            )

    def _environment(self) -> gym.Env:
        if self._env is None:
            self._env = self._env_factory()
        return self._env
