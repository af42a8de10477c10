"""Episodes of a policy: the inner loop that all collectors share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from cs285.envs.checked_env import CheckedEnv, name_of
from cs285.infrastructure.default_dtype import dtype_of_tasks
from cs285.infrastructure.errors import DivergedError, RunError, VideoError, describe_error
from cs285.infrastructure.pytorch_util import derive_seed, make_generator
from cs285.infrastructure.replay_buffer import Path
from cs285.policies.base_policy import Memory, Policy

EnvFactory = Callable[[], gym.Env]
Progress = Callable[[int], None]  # gets the env steps of a collection so far
MAX_ENV_SEED = 2**31  # some simulators accept only 32-bit seeds


class EpisodeKey(NamedTuple):
    """Determines all random draws of an episode; `seed` is the run's seed."""

    seed: int
    purpose: str
    iteration: int
    number: int


class Episode:
    """A running episode and its recorded steps."""

    def __init__(self, env: gym.Env, key: EpisodeKey) -> None:
        self.env, self.key = CheckedEnv(env), key
        env_seed = derive_seed(key.seed, f"{key.purpose} env", key.iteration, key.number)
        self.obs = [self.env.reset(env_seed % MAX_ENV_SEED)]
        self.acs: list[NDArray[np.float32]] = []
        self.rewards: list[float] = []
        self.terminated: list[bool] = []
        self.running = True

    def step(self, action: NDArray[np.float32]) -> None:
        """Take one env step and record it. Raises TaskError: see CheckedEnv."""
        outcome = self.env.step(action, len(self.acs))
        self.obs.append(outcome.obs)
        self.rewards.append(outcome.reward)
        self.acs.append(np.array(action))
        self.terminated.append(outcome.terminated)
        self.running = not (outcome.terminated or outcome.truncated)

    def execute(self, acs: Iterable[NDArray[np.float32]]) -> None:
        """Take the actions `acs` until they are used up or the episode has ended."""
        for action in acs:
            if self.running:
                self.step(action)

    def path(self, first: int = 0) -> Path:
        """Return the steps from index `first` on; there must be at least one."""
        obs = np.stack(self.obs[first:])
        return Path(
            obs=obs[:-1],
            acs=np.stack(self.acs[first:]),
            rewards=np.array(self.rewards[first:], np.float32),
            next_obs=obs[1:],
            terminated=np.array(self.terminated[first:]),
            is_continuation=first > 0,
        )


def fresh_memory(key: EpisodeKey, device: torch.device) -> Memory:
    """Return an empty policy memory whose random draws depend only on `key`."""
    return Memory(
        make_generator(key.seed, f"{key.purpose} policy", key.iteration, key.number, device=device)
    )


def decide(
    policy: Policy, episodes: Sequence[Episode], memories: Sequence[Memory]
) -> NDArray[np.float32]:
    """Return the policy's next actions (B, A) in B episodes.

    Raises RunError: the actions have another shape. Raises DivergedError: an action is
    non-finite. A simulator never receives such an action.
    """
    actions = policy.get_action(np.stack([episode.obs[-1] for episode in episodes]), memories)
    shape = len(episodes), *(episodes[0].env.actions.shape or ())
    if np.shape(actions) != shape:
        raise RunError(
            f"the policy returned actions of shape {np.shape(actions)}; must be {shape}: one row "
            "per environment"
        )
    if not np.isfinite(actions).all():
        raise DivergedError(
            "the policy returned a non-finite action; if learning diverged, lower the learning "
            "rate or collect more data; if the task's get_reward is non-finite on imagined states, "
            "fix get_reward"
        )
    return actions


def run_episodes(
    envs: Sequence[gym.Env],
    policy: Policy,
    keys: Sequence[EpisodeKey],
    on_step: Callable[[int], None] = lambda count: None,
) -> list[Path]:
    """Run one episode per key in lockstep, each in a separate env, with batched decisions.

    `on_step` gets the number of env steps just taken. Raises DivergedError: an action is
    non-finite. Raises TaskError: an environment fails (see CheckedEnv).
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


def film(env: gym.Env, policy: Policy, key: EpisodeKey) -> tuple[list[NDArray[np.uint8]], float]:
    """Run one episode in an env with render_mode "rgb_array".

    Return one frame (height, width, 3) per env step, and the frames per second. Raises VideoError:
    the environment does not draw such frames.
    """
    frames: list[NDArray[np.uint8]] = []
    fps: Any = env.metadata.get("render_fps", 30)
    is_number = isinstance(fps, Real)
    if not (is_number and 0 < fps < np.inf):
        raise VideoError(f"the render_fps of {name_of(env)} is {fps}; must be a positive number")
    run_episodes([env], policy, [key], lambda _: frames.append(_draw(env, frames)))
    return frames, float(fps)


def _draw(env: gym.Env, earlier: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return a frame (height, width, 3) as large as the `earlier` ones, or raise VideoError."""
    try:
        with dtype_of_tasks():
            frame = np.array(env.render())
    except (Exception, SystemExit, GeneratorExit) as error:
        raise VideoError(f"{name_of(env)} raised {describe_error(error)}, in render") from error
    size = earlier[0].shape if earlier else (*frame.shape[:2], 3)
    if frame.dtype != np.uint8 or frame.shape != size:
        raise VideoError(
            f"{name_of(env)} returned a frame of shape {frame.shape} and type {frame.dtype}, in "
            "render; must be uint8 of shape (height, width, 3), the same for all frames"
        )
    return frame
