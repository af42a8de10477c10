"""Utilities: statistics of returns, success rates, observation noise, action replay."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.envs.checked_env import RETURN_STATISTICS, CheckedEnv, judge
from cs285.envs.registration import SuccessFunction
from cs285.infrastructure.errors import TaskError
from cs285.infrastructure.replay_buffer import Path, Transitions

NOISE_TO_SIGNAL = 0.01


def return_statistics(prefix: str, paths: Sequence[Path]) -> dict[str, float]:
    """Return statistics of the paths' returns and lengths as metrics `prefix`_..."""
    returns = [path.total_reward for path in paths]
    length = float(np.mean([path.length for path in paths]))
    values = float(np.mean(returns)), float(np.std(returns)), max(returns), min(returns), length
    return {
        f"{prefix}_{name}": value for name, value in zip(RETURN_STATISTICS, values, strict=True)
    }


def success_rates(
    prefix: str, paths: Sequence[Path], get_success: SuccessFunction
) -> dict[str, float]:
    """Return the share of paths that meet each of the task's criteria as metrics `prefix`_...

    Raises TaskError: see `judge`; or the criteria of two paths differ.
    """
    judged = [judge(get_success, path.next_obs) for path in paths]
    for each in judged[1:]:
        if each.keys() != judged[0].keys():
            raise TaskError(
                f"the task's get_success returned the names {list(judged[0])} for one episode and "
                f"{list(each)} for another; must be the same names for each"
            )
    return {
        f"{prefix}_{name}": float(np.mean([each[name] for each in judged])) for name in judged[0]
    }


def add_noise(data: Transitions, generator: torch.Generator) -> Transitions:
    """Return B transitions with independent Gaussian noise on obs and next_obs.

    The std of each dimension is 1% of the absolute value of its mean over the B rows.
    """

    def noisy(columns: Tensor) -> Tensor:
        std = NOISE_TO_SIGNAL * columns.mean(0).abs()
        return columns + std * torch.randn(columns.shape, generator=generator)

    return data._replace(obs=noisy(data.obs), next_obs=noisy(data.next_obs))


def perform_actions(env: gym.Env, actions: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Reset `env` and execute `actions` (H, A) until they are used up or the episode finishes.

    Return the observations (T + 1, O): the first one is the reset's, and T is at most H.
    """
    checked = CheckedEnv(env)
    observations = [checked.reset(seed)]
    for number, action in enumerate(actions):
        outcome = checked.step(action, number)
        observations.append(outcome.obs)
        if outcome.terminated or outcome.truncated:
            break
    return np.stack(observations)
