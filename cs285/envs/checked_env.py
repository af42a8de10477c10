"""Calls of an environment. Its failures, and results that are not usable, become TaskErrors."""

from __future__ import annotations

import math
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from cs285.envs.env_watch import RESET, THIS_PROCESS, describe_call
from cs285.infrastructure.default_dtype import dtype_of_tasks
from cs285.infrastructure.errors import (
    LONGEST_TEXT,
    NoMemoryError,
    RunError,
    TaskError,
    describe_error,
    message_of,
)
from cs285.infrastructure.interrupts import UserInterrupt

# What code of a task may raise: sys.exit is not the end of a run.
FAILURES = (Exception, SystemExit, GeneratorExit)
# A run's metrics of the episodes, which no success criterion may have as its name.
RETURN_STATISTICS = ("AverageReturn", "StdReturn", "MaxReturn", "MinReturn", "AverageEpLen")
STEP_RULE = "a tuple (observation, reward, terminated, truncated, info)"
NO_CHILDREN = "daemonic processes are not allowed"  # multiprocessing's error, in a worker process
_not_closed: set[str] = set()  # tasks whose `close` has failed in this process


class EnvStep(NamedTuple):
    """The result of one env step."""

    obs: NDArray[np.float32]  # (O,)
    reward: float
    terminated: bool
    truncated: bool


class CheckedEnv:
    """Steps a third party's environment. Arrays are copied, because it may reuse or change them."""

    def __init__(self, env: gym.Env) -> None:
        self.env = env
        self.name = name_of(env)
        self.shape = env.observation_space.shape
        self.actions = env.action_space
        THIS_PROCESS.call.name = self.name.encode()[:99]

    def reset(self, seed: int) -> NDArray[np.float32]:
        """Start an episode and return the first observation (O,).

        Raises TaskError: the environment fails, or the observation is not O finite numbers.
        """
        returned = self._call(RESET, self.env.reset, seed=seed)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise self._bad(RESET, _described(returned), "a tuple (observation, info)")
        return self._obs(returned[0], RESET)

    def step(self, action: NDArray[np.float32], number: int) -> EnvStep:
        """Take env step `number` of the episode with an action (A,).

        The environment gets the action in the dtype of its action space, and inside its bounds,
        which float32 cannot always hold. Raises TaskError: as `reset`, or the reward is not a
        finite number.
        """
        returned = self._call(number, self.env.step, self._as_declared(action))
        if not isinstance(returned, tuple) or len(returned) != 5:
            raise self._bad(number, _described(returned), STEP_RULE)
        obs, reward, terminated, truncated, _ = returned
        value = _as_float32(reward)
        if value is None or value.size != 1:
            raise self._bad(number, f"the reward {_short(reward)}", "one number")
        if not math.isfinite(value.item()):
            raise self._bad(number, "a reward that is non-finite in float32", "finite")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not (isinstance(flag, bool | np.bool_) or _is_truth_value(flag)):
                raise self._bad(number, f"{name} {_short(flag)}", "True or False")
        return EnvStep(self._obs(obs, number), value.item(), bool(terminated), bool(truncated))

    def _call(self, number: int, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
        running = THIS_PROCESS.call
        running.begin(number)
        try:
            with dtype_of_tasks():
                return function(*given, **options)
        except (RunError, UserInterrupt):
            raise
        except MemoryError as error:
            raise NoMemoryError(
                f"the environment {self.name} ran out of memory, {describe_call(number)}; free "
                "memory, or pass a smaller --num_workers"
            ) from error
        except BaseException as error:
            is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if isinstance(error, KeyboardInterrupt) and is_default:
                raise
            raise TaskError(
                f"the environment {self.name} raised {describe_error(error)}, "
                f"{describe_call(number)}; {_remedy(error)}"
            ) from error
        finally:
            running.end()

    def _as_declared(self, action: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return a copy of an action (A,) for `step`."""
        box = self.actions
        if not isinstance(box, gym.spaces.Box):
            return np.array(action)
        return np.clip(action.astype(box.dtype), box.low, box.high)

    def _obs(self, obs: Any, number: int) -> NDArray[np.float32]:
        copied = _as_float32(obs)
        if copied is None or copied.shape != self.shape:
            what = f"of shape {copied.shape}" if copied is not None else _short(obs)
            rule = f"numbers of shape {self.shape}, as its observation_space says"
            raise self._bad(number, f"an observation {what}", rule)
        if not np.isfinite(copied).all():
            raise self._bad(number, "an observation that is non-finite in float32", "finite")
        return copied

    def _bad(self, number: int, what: str, rule: str) -> TaskError:
        where = describe_call(number)
        return TaskError(f"the environment {self.name} returned {what}, {where}; must be {rule}")


def name_of(env: gym.Env) -> str:
    """Return the id of an environment, or its class if it was not registered."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def judge(
    get_success: Callable[[NDArray[np.floating]], dict[str, bool]], obs: NDArray[np.floating]
) -> dict[str, bool]:
    """Return what a task's `get_success` says about an episode's observations (T, O).

    Raises TaskError: it fails, returns anything but a dict of truth values, or a name is taken.
    """
    try:
        with dtype_of_tasks():
            judged = get_success(obs.copy())
        is_dict = isinstance(judged, dict) and all(map(_is_truth_value, judged.values()))
    except FAILURES as error:
        raise TaskError(f"the task's get_success raised {describe_error(error)}") from error
    if not is_dict:
        raise TaskError(
            f"the task's get_success returned {_short(judged)}; must be a dict of True or False"
        )
    for name in RETURN_STATISTICS:
        if name in judged:
            raise TaskError(
                f"the task's get_success returned the name {name}; must be other names than "
                f"{', '.join(RETURN_STATISTICS)}"
            )
    return {str(name): bool(value) for name, value in judged.items()}


def close_env(env: gym.Env) -> None:
    """Close an environment. If it fails, print a warning, once per task: the data are complete."""
    try:
        with dtype_of_tasks():
            env.close()
    except FAILURES as error:
        name = name_of(env)
        if name not in _not_closed:
            _not_closed.add(name)
            print(
                f"warning: the environment {name} raised {describe_error(error)}, in close; the "
                "run is not affected; fix the environment",
                file=sys.stderr,
            )


def _remedy(error: BaseException) -> str:
    """Return what to do about an exception of an environment."""
    if NO_CHILDREN in message_of(error):  # a killed worker would leave the task's processes behind
        return "it starts processes, so pass --num_workers 1"
    frames = traceback.extract_tb(error.__traceback__)
    if "values to unpack" in message_of(error) and "gymnasium" in Path(frames[-1].filename).parts:
        return f"its step must return {STEP_RULE}"
    return "fix the environment"


def _as_float32(value: Any) -> NDArray[np.float32] | None:
    """Return a copy of `value` in float32, or None if it is not numbers."""
    if isinstance(value, str):
        return None
    try:
        with np.errstate(over="ignore"):
            if hasattr(value, "detach"):  # a tensor, which may have a gradient or be on a GPU
                value = value.detach().cpu().numpy()
            return None if value is None else np.array(value, np.float32)
    except FAILURES:  # of a third party's __array__, too
        return None


def _is_truth_value(value: Any) -> bool:
    """Return whether `value` is one number, 0 or 1, in whatever container."""
    number = _as_float32(value)
    return number is not None and number.size == 1 and number.item() in (0, 1)


def _described(returned: Any) -> str:
    if isinstance(returned, tuple):
        return f"{len(returned)} value{'s' * (len(returned) != 1)}"
    return f"one value of type {type(returned).__name__}"


def _short(value: Any) -> str:
    try:
        return " ".join(repr(value).split())[:LONGEST_TEXT]
    except FAILURES:
        return f"a {type(value).__name__} that cannot be printed"
