"""Calls of an environment. Its failures, and results that are not usable, become TaskErrors."""

from __future__ import annotations

import math
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from cs285.envs.env_watch import RESET, THIS_PROCESS, describe_call
from cs285.infrastructure.errors import NoMemoryError, RunError, TaskError
from cs285.infrastructure.interrupts import UserInterrupt

LONGEST_TEXT = 200  # characters of an environment's own message


class Outcome(NamedTuple):
    """The result of one env step."""

    obs: NDArray[np.float32]  # (O,)
    reward: float
    terminated: bool
    truncated: bool


class CheckedEnv:
    """Steps a third party's environment. Arrays are copied, because it may reuse or change them."""

    def __init__(self, env: gym.Env) -> None:
        self.env = env
        self.name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self.shape = env.observation_space.shape
        THIS_PROCESS.call.name = self.name.encode()[:99]

    def reset(self, seed: int) -> NDArray[np.float32]:
        """Start an episode and return the first observation (O,).

        Raises TaskError: the environment fails, or the observation is not O finite numbers.
        """
        returned = self._call(RESET, self.env.reset, seed=seed)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise self._bad(RESET, _described(returned), "a tuple (observation, info)")
        return self._obs(returned[0], RESET)

    def step(self, action: NDArray[np.float32], number: int) -> Outcome:
        """Take env step `number` of the episode with an action (A,).

        Raises TaskError: as `reset`, or the reward is not a finite number.
        """
        returned = self._call(number, self.env.step, np.array(action))
        if not isinstance(returned, tuple) or len(returned) != 5:
            rule = "a tuple (observation, reward, terminated, truncated, info)"
            raise self._bad(number, _described(returned), rule)
        obs, reward, terminated, truncated, _ = returned
        value = _as_float32(reward)
        if value is None or value.size != 1:
            raise self._bad(number, f"the reward {_short(reward)}", "one number")
        if not math.isfinite(value.item()):
            raise self._bad(number, "a reward that is non-finite in float32", "finite")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not (isinstance(flag, bool | np.bool_) or _is_truth_value(flag)):
                raise self._bad(number, f"{name} {_short(flag)}", "True or False")
        return Outcome(self._obs(obs, number), value.item(), bool(terminated), bool(truncated))

    def _call(self, number: int, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
        running = THIS_PROCESS.call
        running.begin(number)
        try:
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
                f"{describe_call(number)}; fix the environment"
            ) from error
        finally:
            running.end()

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


def describe_error(error: BaseException) -> str:
    """Return the type of an exception, its message, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())[:LONGEST_TEXT]
    return f"{type(error).__name__}{f' ({text})' * bool(text)}{place}"


def _as_float32(value: Any) -> NDArray[np.float32] | None:
    """Return a copy of `value` in float32, or None if it is not numbers."""
    try:
        with np.errstate(over="ignore"):
            return None if value is None else np.array(value, np.float32)
    except (TypeError, ValueError):
        return None


def _is_truth_value(value: Any) -> bool:
    """Return whether `value` is one number, 0 or 1, in whatever container."""
    array = np.asarray(value)
    return array.size == 1 and array.dtype.kind in "biuf" and array.item() in (0, 1)


def _described(returned: Any) -> str:
    if isinstance(returned, tuple):
        return f"{len(returned)} value{'s' * (len(returned) != 1)}"
    return f"one value of type {type(returned).__name__}"


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:LONGEST_TEXT]
