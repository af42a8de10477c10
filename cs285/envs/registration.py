"""Create a task by its id, and describe it for an agent."""

from __future__ import annotations

import ast
import importlib.util
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from cs285.envs.checked_env import FAILURES, CheckedEnv, close_env, judge
from cs285.envs.terminations import TERMINATIONS, TerminationFunction
from cs285.infrastructure.default_dtype import dtype_of_tasks
from cs285.infrastructure.errors import TaskError, UsageError, describe_error, message_of
from cs285.infrastructure.run_folder import FROM_PYTHON

HOMEWORK_EP_LEN = {"cheetah-cs285-v0": 500, "obstacles-cs285-v0": 100, "reacher-cs285-v0": 200}
LARGEST_BOUND = 1e15  # of an action; larger bounds count as infinite
DEFAULT_EP_LEN = 200  # for Gymnasium ids without a registered limit
# Packages that register tasks: name, extra of this package, and the beginnings of their ids.
PLUGINS = (
    ("shimmy", "dmc", ("dm_control/",)),
    ("gymnasium_robotics", "robotics", (
        "Fetch", "Hand", "Adroit", "FrankaKitchen", "PointMaze", "AntMaze",
    )),
)  # fmt: skip
# The MBPO paper's observations: 27 and 45 dimensions, without contact forces and inertias.
_ANT = {"include_cfrc_ext_in_observation": False}
_LEFT_OUT = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
_HUMANOID = {f"include_{name}_in_observation": False for name in _LEFT_OUT}
_ENVS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("cheetah-cs285-v0", "cs285.envs.cheetah:HalfCheetahEnv", 1000, {}),
    ("obstacles-cs285-v0", "cs285.envs.obstacles:Obstacles", 500, {}),
    ("reacher-cs285-v0", "cs285.envs.reacher:Reacher7DOFEnv", 500, {}),
    ("cartpole-swingup-v0", "cs285.envs.swingup:CartPoleSwingUp", 40, {}),
    ("pendulum-swingup-v0", "cs285.envs.swingup:PendulumSwingUp", 40, {}),
    ("HopperFullVelocities-v5", "cs285.envs.full_velocities:HopperFullVelocities", 1000, {}),
    ("Walker2dFullVelocities-v5", "cs285.envs.full_velocities:Walker2dFullVelocities", 1000, {}),
    ("AntTruncatedObs-v5", "gymnasium.envs.mujoco.ant_v5:AntEnv", 1000, _ANT),
    ("HumanoidTruncatedObs-v5", "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv", 1000, _HUMANOID),
)
VALID_TASKS = f"{', '.join(HOMEWORK_EP_LEN)} or any Gymnasium id whose actions are a Box vector"

Array = NDArray[np.floating]
# (obs (..., O), acs (..., A)) -> (rewards (...), terminated (...))
RewardFunction = Callable[[Any, Any], tuple[Any, Any]]
# post-step obs (T, O) of an episode -> {criterion: whether the episode meets it}
SuccessFunction = Callable[[NDArray[np.floating]], dict[str, bool]]


def register_envs() -> None:
    """Register the project's ids with Gymnasium; further calls have no effect."""
    for env_id, entry_point, limit, options in _ENVS:
        if env_id not in gym.registry:
            gym.register(env_id, entry_point, max_episode_steps=limit, kwargs=options)


@dataclass(frozen=True)
class TaskSpec:
    """What an agent knows about its task before the first step."""

    ob_dim: int
    ac_dim: int
    ac_low: NDArray[np.float32]  # (A,)
    ac_high: NDArray[np.float32]  # (A,)
    get_reward: RewardFunction | None
    ep_len: int  # limit of an episode, in env steps: --ep_len, or the task's own limit
    get_termination: TerminationFunction | None = None  # obs (..., O) -> terminated (...)
    get_success: SuccessFunction | None = None


class TaskId(NamedTuple):
    """The flags that say which task to create."""

    env_name: str
    kwargs: str = ""  # --env_kwargs
    wrappers: str = ""  # --env_wrappers

    @staticmethod
    def of(task: str | tuple[str, ...]) -> TaskId:
        """Return a TaskId for an id alone, or for the values of all three flags."""
        return TaskId(task) if isinstance(task, str) else TaskId(*task)


def make_env(
    task: str | tuple[str, ...], ep_len: int | None = None, render_mode: str | None = None
) -> gym.Env:
    """Create a task with episodes truncated at `ep_len` env steps.

    `task` is an id, or a TaskId. `ep_len` counts the steps of the outermost wrapper, that is, the
    agent's steps. None: the task's own limit, which counts its own steps. Dict and Tuple
    observations are flattened to vectors. Raises UsageError: there is no such task or wrapper, or
    this machine cannot create it.
    """
    env_name, kwargs, wrappers = TaskId.of(task)
    options: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
    limit_outside = ep_len if wrappers else None  # a wrapper may take several steps of the task
    try:
        with dtype_of_tasks():
            _import_plugins(env_name)
            # Gymnasium's checker would check every step; tests/ check the project's envs instead.
            env = gym.make(
                env_name,
                max_episode_steps=-1,  # no limit
                disable_env_checker=True,
                **_parse_kwargs(kwargs),
                **options,
            )
            if not limit_outside:
                env = gym.wrappers.TimeLimit(env, ep_len or own_limit(env))
            for wrapper in wrappers.split():
                env = _wrapped(env, wrapper)
            if limit_outside:
                env = gym.wrappers.TimeLimit(env, limit_outside)
    except UsageError:
        raise
    except FAILURES as error:
        if _is_unknown(error):
            raise UsageError(
                f"--env_name {env_name}: cannot find this environment ({message_of(error)}); must "
                f"be {VALID_TASKS}{_hint(env_name)}"
            ) from error
        given = f" --env_kwargs {kwargs}" * bool(kwargs)
        raise UsageError(
            f"--env_name {env_name}{given}: its constructor raised {describe_error(error)}"
        ) from error
    for name in ("observation_space", "action_space"):
        if not isinstance(_attribute(env_name, env, name), gym.Space):
            raise UsageError(f"--env_name {env_name}: its {name} must be a space of Gymnasium")
    if not isinstance(env.observation_space, gym.spaces.Dict | gym.spaces.Tuple):
        return env
    try:
        return gym.wrappers.FlattenObservation(env)
    except (ValueError, NotImplementedError) as error:  # for example, nothing is inside
        raise UsageError(
            f"--env_name {env_name}: its observations are {env.observation_space}, which cannot be "
            "flattened; must be a Dict or Tuple of Boxes"
        ) from error


def _attribute(env_name: str, env: gym.Env, name: str) -> Any:
    """Return an attribute of an environment, or None without it. Raises UsageError: it fails."""
    try:
        return getattr(env, name, None)
    except FAILURES as error:  # it is a property
        raise UsageError(
            f"--env_name {env_name}: its {name} raised {describe_error(error)}"
        ) from error


def own_limit(env: gym.Env) -> int:
    """Return the limit of an episode without --ep_len, in env steps."""
    env_id = env.spec.id if env.spec else ""
    registered = gym.registry[env_id].max_episode_steps if env_id in gym.registry else None
    return HOMEWORK_EP_LEN.get(env_id) or registered or DEFAULT_EP_LEN


def _is_unknown(error: BaseException) -> bool:
    """Return whether Gymnasium cannot find the id or its module: nothing of the task has run."""
    if not isinstance(error, gym.error.Error | ModuleNotFoundError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename == gym.envs.registration.__file__


def _import_plugins(env_name: str) -> None:
    """Import the package that registers the id, if it is installed and not yet imported."""
    if env_name in gym.registry or ":" in env_name:
        return
    for package, _, beginnings in PLUGINS:
        if env_name.startswith(beginnings) and importlib.util.find_spec(package) is not None:
            gym.register_envs(importlib.import_module(package))


def _hint(env_name: str) -> str:
    """Return how to make a missing task known, or "" if nothing is known about it."""
    if env_name.startswith(FROM_PYTHON):
        return "; this one was a class or a function; cs285.load(folder, env=...) takes it"
    for _, extra, beginnings in PLUGINS:
        if env_name.startswith(beginnings):
            return f"; this one needs pip install 'cs285[{extra}]' (in the checkout: '.[{extra}]')"
    return ""


def _parse_kwargs(text: str) -> dict[str, Any]:
    """Return the arguments in "key=value key=value". Values are Python literals, or else text."""
    arguments = {}
    for word in text.split():
        key, _, value = word.partition("=")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[key] = value
    return arguments


def _wrapped(env: gym.Env, name: str) -> gym.Env:
    """Return `env` in the wrapper MODULE:NAME. Raises UsageError: that fails."""
    module, _, attribute = name.partition(":")
    try:
        wrapper = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"--env_wrappers {name}: cannot import it ({error}); must be MODULE:NAME of a wrapper"
        ) from error
    except FAILURES as error:
        raise UsageError(
            f"--env_wrappers {name}: its module raised {describe_error(error)}; must be "
            "MODULE:NAME of a wrapper"
        ) from error
    try:
        wrapped = wrapper(env)
    except FAILURES as error:
        raise UsageError(
            f"--env_wrappers {name}: the wrapper raised {describe_error(error)}"
        ) from error
    if not isinstance(wrapped, gym.Env):
        raise UsageError(
            f"--env_wrappers {name}: returned {type(wrapped).__name__}; must return an environment"
        )
    return wrapped


def inspect_task(
    task: str | tuple[str, ...],
    ep_len: int | None = None,
    learned_reward: bool = False,
    termination: str | None = None,
) -> TaskSpec:
    """Create the task once and describe it.

    With `learned_reward`, a `get_reward` that fails on torch tensors is ignored. Raises UsageError:
    observations or actions are not vectors, actions are integers, `reset` or `get_success` fails,
    `get_reward` fails without `learned_reward`, or `termination` is "known" but the task has no
    termination function.
    """
    env, env_name = make_env(task, ep_len), TaskId.of(task).env_name
    try:
        if isinstance(env, gym.wrappers.FlattenObservation):
            kind = type(env.env.observation_space).__name__
            numbers = (env.observation_space.shape or (0,))[0]
            print(f"the {kind} observations of {env_name} are flattened to {numbers} numbers")
        obs_space, ac_space = _vector_spaces(env_name, env)
        get_success = _attribute(env_name, env.unwrapped, "get_success")
        _check_calls(env_name, env, get_success)
        env_id = env.spec.id if env.spec else env_name  # with its version and without its module
        ac_low, ac_high = _finite_bounds(env_name, ac_space)
        get_reward = _attribute(env_name, env.unwrapped, "get_reward")
        problem = get_reward and _reward_error(get_reward, obs_space.shape[0], ac_space.shape[0])
        if problem and not learned_reward:
            raise UsageError(
                f"--env_name {env_name}: its get_reward fails on torch tensors ({problem}); "
                "must be get_reward(observations (..., O), actions (..., A)) -> "
                "(rewards (...), terminated (...)); fix it, or pass --learned_reward"
            )
        get_reward = None if problem else get_reward
        # Arguments and wrappers can change what an observation is and where episodes terminate.
        is_plain = not any(TaskId.of(task)[1:])
        get_termination = TERMINATIONS.get(env_id) if is_plain else None
        if termination == "known" and not (get_termination or get_reward):
            raise UsageError(
                "--termination known: this task has no known termination function; must be "
                "learned, or none if its episodes never terminate"
            )
        return TaskSpec(
            ob_dim=obs_space.shape[0],
            ac_dim=ac_space.shape[0],
            ac_low=ac_low,
            ac_high=ac_high,
            get_reward=get_reward,
            get_termination=get_termination,
            ep_len=ep_len or own_limit(env),
            get_success=get_success,
        )
    finally:
        close_env(env)


def _vector_spaces(env_name: str, env: gym.Env) -> tuple[Box, Box]:
    """Return observation and action space. Raises UsageError: a space is not supported."""
    observations, actions = env.observation_space, env.action_space
    if not isinstance(actions, Box) or len(actions.shape) != 1 or actions.shape == (0,):
        raise UsageError(f"--env_name {env_name}: its actions are {actions}; must be {VALID_TASKS}")
    if not np.issubdtype(actions.dtype, np.floating):
        raise UsageError(
            f"--env_name {env_name}: its actions are {actions}, a Box of integers; must be a task "
            "whose actions are a Box of floats"
        )
    if (
        not isinstance(observations, Box)
        or len(observations.shape) != 1
        or observations.shape == (0,)
    ):
        raise UsageError(
            f"--env_name {env_name}: its observations are {observations}; must be a task whose "
            "observations are a Box vector"
        )
    return observations, actions


def _check_calls(env_name: str, env: gym.Env, get_success: SuccessFunction | None) -> None:
    """Raise UsageError if the environment cannot start an episode, or `get_success` fails."""
    try:
        obs = CheckedEnv(env).reset(seed=0)
        if get_success is not None:
            judge(get_success, np.tile(obs, (DEFAULT_EP_LEN, 1)))
    except TaskError as error:
        raise UsageError(f"--env_name {env_name}: {error}") from error


def _finite_bounds(env_name: str, box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return finite action bounds (A,); print a warning if some bounds of the box are infinite.

    Dimensions with an infinite bound get an interval of length 2, or longer if float32 has no such
    interval. Raises UsageError: a bound is NaN, or a lower bound is above the upper one.
    """
    bounds = np.stack([box.low, box.high]).astype(np.float64)
    if not (box.low <= box.high).all():
        raise UsageError(
            f"--env_name {env_name}: its action space is {box}; must have lower bounds that are at "
            "most the upper bounds"
        )
    is_small = np.abs(bounds) < LARGEST_BOUND
    low, high = _inner_float32(*np.where(is_small, bounds, np.copysign(np.inf, bounds)))
    is_bounded = np.isfinite(low) & np.isfinite(high)
    if is_bounded.all():
        return low, high
    known = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0))
    length = np.maximum(2, 2 * np.spacing(np.abs(known)))
    least = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - length, -1))
    most = np.where(np.isfinite(high), high, least + length)
    print(
        f"warning: --env_name {env_name}: its action space is unbounded in {(~is_bounded).sum()} "
        f"of {len(low)} dimensions; actions are limited to the range from {least.tolist()} to "
        f"{most.tolist()}; for another range, give the environment a finite Box",
        flush=True,
    )
    return least.astype(np.float32), most.astype(np.float32)


def _inner_float32(low: Array, high: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Round the bounds (A,) inwards to float32."""
    with np.errstate(over="ignore"):  # of float16
        least, most = low.astype(np.float32), high.astype(np.float32)
    least = np.where(least < low, np.nextafter(least, np.float32(np.inf)), least)
    most = np.where(most > high, np.nextafter(most, np.float32(-np.inf)), most)
    is_empty = least > most  # no float32 number lies between low and high
    return np.where(is_empty, most, least), most


def _reward_error(get_reward: RewardFunction, ob_dim: int, ac_dim: int) -> str:
    """Return why `get_reward` fails on torch tensors (2, 3, ...), or "" if it works."""
    import torch  # here, because the environments themselves need only NumPy

    obs, acs = torch.zeros(2, 3, ob_dim), torch.zeros(2, 3, ac_dim)
    try:
        rewards, terminated = get_reward(obs, acs)
        kinds = {type(part).__name__ for part in (rewards, terminated)}
        if not all(isinstance(part, torch.Tensor) for part in (rewards, terminated)):
            return f"it returns {' and '.join(sorted(kinds))} instead of tensors"
        if obs._version or acs._version:  # torch counts changes; 0 * 2 would leave the values
            return "it changes its arguments"
        shapes = tuple(rewards.shape), tuple(terminated.shape)
        return "" if shapes == ((2, 3), (2, 3)) else f"shapes {shapes} instead of (2, 3)"
    except FAILURES as error:  # a third party's function may raise anything
        return message_of(error) or type(error).__name__
