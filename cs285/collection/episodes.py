"""Episodes of a policy: the inner loop that all collectors share."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from cs285.collection import env_watch
from cs285.infrastructure.errors import DivergedError, TaskError
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
        self.env, self.key = env, key
        env_seed = derive_seed(key.seed, f"{key.purpose} env", key.iteration, key.number)
        spec = env.spec
        self._name = spec.id if spec is not None else type(env.unwrapped).__name__
        env_watch.THIS_PROCESS.call.name = self._name.encode()[:99]
        obs, _ = self._ask(-1, env.reset, seed=env_seed % MAX_ENV_SEED)
        self.obs = [self._recorded(-1, obs)[0]]
        self.acs: list[NDArray[np.float32]] = []
        self.rewards: list[float] = []
        self.terminated: list[bool] = []
        self.running = True

    def step(self, action: NDArray[np.float32]) -> None:
        """Take one env step and record it. Raises TaskError: its reward or obs is non-finite."""
        chosen = np.array(action)  # copied, because an environment may change its argument
        number = len(self.acs)
        obs, reward, terminated, truncated, _ = self._ask(number, self.env.step, action)
        obs, reward = self._recorded(number, obs, reward)
        self.obs.append(obs)
        self.rewards.append(reward)
        self.acs.append(chosen)
        self.terminated.append(bool(terminated))
        self.running = not (terminated or truncated)

    def _ask(self, number: int, call: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """Call the environment in env step `number`, or in its reset (-1).

        Raises TaskError: it raises an exception that would end this process.
        """
        running = env_watch.THIS_PROCESS.call
        running.begin(number)
        try:
            return call(*given, **options)
        except (SystemExit, GeneratorExit, KeyboardInterrupt) as error:
            ignores_ctrl_c = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # in a worker
            if isinstance(error, KeyboardInterrupt) and not ignores_ctrl_c:
                raise
            raise TaskError(
                f"the environment {self._name} raised {type(error).__name__}, {_where(number)}; it "
                "must return, or raise an Exception"
            ) from error
        finally:
            running.end()

    def _recorded(
        self, number: int, obs: Any, reward: Any = 0.0
    ) -> tuple[NDArray[np.float32], float]:
        """Return copies in float32: an environment may reuse its array.

        Raises TaskError: a value is non-finite, or is too large for float32.
        """
        with np.errstate(over="ignore"):
            copied, value = np.array(obs, np.float32), float(np.float32(reward))
        obs_is_finite = np.isfinite(copied).all()
        if not (obs_is_finite and math.isfinite(value)):
            what = "a reward" if obs_is_finite else "an observation"
            raise TaskError(
                f"the environment {self._name} returned {what} that is non-finite in float32, "
                f"{_where(number)}; fix the simulator"
            )
        return copied, value

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


def _where(number: int) -> str:
    return "in reset" if number < 0 else f"at env step {number} of an episode"


def fresh_memory(key: EpisodeKey, device: torch.device) -> Memory:
    """Return an empty policy memory whose random draws depend only on `key`."""
    return Memory(
        make_generator(key.seed, f"{key.purpose} policy", key.iteration, key.number, device=device)
    )


def decide(
    policy: Policy, episodes: Sequence[Episode], memories: Sequence[Memory]
) -> NDArray[np.float32]:
    """Return the policy's next actions (B, A) in B episodes.

    Raises DivergedError: an action is non-finite. A simulator never receives such an action.
    """
    actions = policy.get_action(np.stack([episode.obs[-1] for episode in episodes]), memories)
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
    non-finite. Raises TaskError: a reward or observation is non-finite.
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
