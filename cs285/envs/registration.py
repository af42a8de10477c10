"""Make a task by its id, and say what an agent must know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.terminations import TERMINATIONS, TerminationFunction
from cs285.infrastructure.errors import UsageError

HOMEWORK_EP_LEN = {"cheetah-cs285-v0": 500, "obstacles-cs285-v0": 100, "reacher-cs285-v0": 200}
LARGEST_BOUND = 1e15  # of an action; a larger one means that there is none
DEFAULT_EP_LEN = 200  # for a Gymnasium id that registers no limit of its own
# With the MBPO paper's observations: 27 and 45 dimensions, without contact forces and inertias.
_ANT = {"include_cfrc_ext_in_observation": False}
_LEFT_OUT = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
_HUMANOID = {f"include_{name}_in_observation": False for name in _LEFT_OUT}
_ENVS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("cheetah-cs285-v0", "cs285.envs.cheetah:HalfCheetahEnv", 1000, {}),
    ("obstacles-cs285-v0", "cs285.envs.obstacles:Obstacles", 500, {}),
    ("reacher-cs285-v0", "cs285.envs.reacher:Reacher7DOFEnv", 500, {}),
    ("AntTruncatedObs-v5", "gymnasium.envs.mujoco.ant_v5:AntEnv", 1000, _ANT),
    ("HumanoidTruncatedObs-v5", "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv", 1000, _HUMANOID),
)
ALLOWED = f"{', '.join(HOMEWORK_EP_LEN)} or any Gymnasium id whose actions are a Box vector"

Array = NDArray[np.floating]
RewardFunction = Callable[[Any, Any], tuple[Any, Any]]


def register_envs() -> None:
    """Register the project's ids with Gymnasium; calling it again changes nothing."""
    for env_id, entry_point, limit, options in _ENVS:
        if env_id not in gym.registry:
            gym.register(env_id, entry_point, max_episode_steps=limit, kwargs=options)


@dataclass(frozen=True)
class TaskSpec:
    """What an agent knows of its task before the first step."""

    ob_dim: int
    ac_dim: int
    ac_low: NDArray[np.float32]  # (A,)
    ac_high: NDArray[np.float32]  # (A,)
    get_reward: RewardFunction | None  # (obs (..., O), acs (..., A)) -> (rewards, dones) (...)
    ep_len: int  # episode cap in env steps where the user gives none
    get_termination: TerminationFunction | None = None  # obs (..., O) -> (...), of Gymnasium's


def make_env(env_name: str, ep_len: int | None = None, render_mode: str | None = None) -> gym.Env:
    """Make the task with episodes cut at `ep_len` env steps (None: the id's own limit).

    Raises UsageError if there is no such task, or it cannot be made on this machine.
    """
    options: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
    try:
        # The checker looks at every step; tests/ hold our envs to it once and for all instead.
        return gym.make(env_name, max_episode_steps=ep_len, disable_env_checker=True, **options)
    except Exception as error:  # whatever a third party's constructor may raise
        reason = " ".join(str(error).split())
        raise UsageError(f"--env_name {env_name}: {reason}; allowed: {ALLOWED}") from error


def inspect_task(
    env_name: str, learned_reward: bool = False, termination: str | None = None
) -> TaskSpec:
    """Make the task once and describe it.

    With a `learned_reward` a `get_reward` that is not of our kind is left out. Raises UsageError
    unless observations and actions are vectors, where it is one that is not of our kind, and where
    the `termination` is to be known and is not.
    """
    env = make_env(env_name)
    try:
        obs_space, ac_space = _vector_spaces(env_name, env)
        _check_first_observation(env_name, env, obs_space)
        env_id = env.spec.id if env.spec else env_name  # with the version, and without a module
        registered_limit = env.spec.max_episode_steps if env.spec else None
        ac_low, ac_high = _finite_bounds(env_name, ac_space)
        get_reward = getattr(env.unwrapped, "get_reward", None)
        fault = get_reward and _reward_error(get_reward, obs_space.shape[0], ac_space.shape[0])
        if fault and not learned_reward:
            raise UsageError(
                f"--env_name {env_name}: its get_reward fails on torch tensors: {fault}; allowed: "
                "get_reward(observations (..., O), actions (..., A)) -> "
                "(rewards (...), dones (...)), or any with --learned_reward"
            )
        get_reward = None if fault else get_reward
        get_termination = TERMINATIONS.get(env_id)
        if termination == "known" and not (get_termination or get_reward):
            raise UsageError(
                "--termination known: there is no function of where this task's episodes end; "
                "allowed: learned, or none if they never do"
            )
        return TaskSpec(
            ob_dim=obs_space.shape[0],
            ac_dim=ac_space.shape[0],
            ac_low=ac_low,
            ac_high=ac_high,
            get_reward=get_reward,
            get_termination=get_termination,
            ep_len=HOMEWORK_EP_LEN.get(env_id) or registered_limit or DEFAULT_EP_LEN,
        )
    finally:
        env.close()


def _vector_spaces(env_name: str, env: gym.Env) -> tuple[Box, Box]:
    """Return the observations' space and the actions'. Raises UsageError: not of vectors."""
    observations, actions = env.observation_space, env.action_space
    if not isinstance(actions, Box) or len(actions.shape) != 1:
        raise UsageError(f"--env_name {env_name}: its actions are {actions}; allowed: {ALLOWED}")
    if not np.issubdtype(actions.dtype, np.floating):
        raise UsageError(
            f"--env_name {env_name}: its actions are {actions}, whole numbers; allowed: a task "
            "whose actions are a Box of floats"
        )
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise UsageError(
            f"--env_name {env_name}: its observations are {type(observations).__name__}"
            f"{observations.shape or ''}; allowed: a task whose observations are a Box vector"
        )
    return observations, actions


def _check_first_observation(env_name: str, env: gym.Env, space: Box) -> None:
    """Raise UsageError: observations are not of the shape that their space has."""
    try:
        observation, _ = env.reset(seed=0)
        shape = np.shape(observation)
    except Exception:  # whatever a third party's environment may raise: the run will show it
        return
    if shape != space.shape:
        raise UsageError(
            f"--env_name {env_name}: it returns observations of shape {shape} where its "
            f"observation_space says {space.shape}; allowed: a task in which the two agree"
        )


def _finite_bounds(env_name: str, box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the bounds (A,) to act in: the box's, with an interval of 2 where one is infinite."""
    bounds = np.stack([box.low, box.high])
    is_small = np.abs(bounds) < LARGEST_BOUND
    low, high = _inner_float32(*np.where(is_small, bounds, np.copysign(np.inf, bounds)))
    is_bounded = np.isfinite(low) & np.isfinite(high)
    if is_bounded.all():
        return low, high
    least = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 2, -1))
    most = np.where(np.isfinite(high), high, least + 2)
    print(
        f"--env_name {env_name}: its action box has no end in {(~is_bounded).sum()} of {len(low)} "
        f"dimensions; actions are kept from {least.tolist()} to {most.tolist()}; "
        "an environment with a finite box acts in another range",
        flush=True,
    )
    return least.astype(np.float32), most.astype(np.float32)


def _inner_float32(low: Array, high: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return bounds (A,) in float32 that are not outside those given, where it has such numbers."""
    least, most = low.astype(np.float32), high.astype(np.float32)
    least = np.where(least < low, np.nextafter(least, np.float32(np.inf)), least)
    most = np.where(most > high, np.nextafter(most, np.float32(-np.inf)), most)
    is_empty = least > most  # a dimension with one value that float32 does not have
    return np.where(is_empty, most, least), most


def _reward_error(get_reward: RewardFunction, ob_dim: int, ac_dim: int) -> str:
    """Return why `get_reward` does not take batches of torch tensors (2, 3, ...); "" if it does."""
    import torch  # not at the top: the environments themselves need only NumPy

    try:
        rewards, dones = get_reward(torch.zeros(2, 3, ob_dim), torch.zeros(2, 3, ac_dim))
        shapes = tuple(rewards.shape), tuple(dones.shape)
        return "" if shapes == ((2, 3), (2, 3)) else f"shapes {shapes} for (2, 3)"
    except Exception as error:  # whatever a third party's function may raise
        return " ".join(str(error).split()) or type(error).__name__
