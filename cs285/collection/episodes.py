"""Run whole episodes of a policy: the one inner loop behind every way of collecting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from cs285.infrastructure.errors import DivergedError, TaskError
from cs285.infrastructure.pytorch_util import derive_seed, make_generator
from cs285.infrastructure.replay_buffer import Path
from cs285.policies.base_policy import Memory, Policy

EnvFactory = Callable[[], gym.Env]
Progress = Callable[[int], None]  # told how many env steps of a collection are taken so far
MAX_ENV_SEED = 2**31  # some simulators take 32-bit seeds only


class EpisodeKey(NamedTuple):
    """All that an episode's randomness comes from; `seed` is the run's."""

    seed: int
    purpose: str
    iteration: int
    number: int


class Episode:
    """One episode that is being run, and everything it recorded so far."""

    def __init__(self, env: gym.Env, key: EpisodeKey) -> None:
        self.env, self.key = env, key
        env_seed = derive_seed(key.seed, f"{key.purpose} env", key.iteration, key.number)
        obs, _ = env.reset(seed=env_seed % MAX_ENV_SEED)
        self.obs = [np.array(obs, np.float32)]  # copied: an env may reuse its array
        self.acs: list[NDArray[np.float32]] = []
        self.rewards: list[float] = []
        self.terminated: list[bool] = []
        self.running = True

    def step(self, action: NDArray[np.float32]) -> None:
        """Take one env step and record it. Raises TaskError: what it gave is not finite."""
        obs, reward, terminated, truncated, _ = self.env.step(action)
        if not (math.isfinite(reward) and np.isfinite(obs).all()):
            raise TaskError(
                f"the task gave a non-finite reward or observation at env step {len(self.acs)} of "
                "an episode: this is its simulator's to mend"
            )
        self.obs.append(np.array(obs, np.float32))
        self.acs.append(action)
        self.rewards.append(float(reward))
        self.terminated.append(bool(terminated))
        self.running = not (terminated or truncated)

    def path(self, first: int = 0) -> Path:
        """Return the steps from number `first` on; there must be one."""
        obs = np.stack(self.obs[first:])
        return Path(
            obs=obs[:-1],
            acs=np.stack(self.acs[first:]),
            rewards=np.array(self.rewards[first:], np.float32),
            next_obs=obs[1:],
            terminated=np.array(self.terminated[first:]),
            goes_on=first > 0,
        )


def fresh_memory(key: EpisodeKey, device: torch.device) -> Memory:
    """Return the memory that a policy begins the episode of this key with."""
    return Memory(
        make_generator(key.seed, f"{key.purpose} policy", key.iteration, key.number, device=device)
    )


def decide(
    policy: Policy, episodes: Sequence[Episode], memories: Sequence[Memory]
) -> NDArray[np.float32]:
    """Return the policy's next actions in B episodes, (B, A).

    Raises DivergedError if one is not finite: none ever reaches a simulator.
    """
    actions = policy.get_action(np.stack([episode.obs[-1] for episode in episodes]), memories)
    if not np.isfinite(actions).all():
        raise DivergedError(
            "the policy asked for a non-finite action: the model or the policy diverged (a smaller "
            "learning rate or more data may help), or the task's get_reward is not finite on "
            "imagined states"
        )
    return actions


def run_episodes(
    envs: Sequence[gym.Env],
    policy: Policy,
    keys: Sequence[EpisodeKey],
    on_step: Callable[[int], None] = lambda count: None,
) -> list[Path]:
    """Run one episode per key in lockstep, each in an env of its own, deciding for all at once.

    `on_step` is told how many env steps were just taken. Raises DivergedError if the policy asks
    for a non-finite action.
    """
    episodes = [Episode(env, key) for env, key in zip(envs, keys, strict=True)]
    memories = {key: fresh_memory(key, policy.device) for key in keys}
    running = episodes
    while running:
        actions = decide(policy, running, [memories[episode.key] for episode in running])
        for episode, action in zip(running, actions, strict=True):
            episode.step(action)
        on_step(len(running))
        running = [episode for episode in running if episode.running]
    return [episode.path() for episode in episodes]
