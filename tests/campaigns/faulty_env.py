"""Run with environments that fail or misbehave at random moments."""

from __future__ import annotations

import functools
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tests.campaigns.common import (
    SHORT,
    campaign,
    check_equal,
    check_one_line,
    described,
    run_child,
    whole_run,
)
from tests.cli.processes import only_folder
from tests.toys import LinearReach


def fails(error: BaseException) -> Callable[..., Any]:
    """Return a fault that raises an error."""

    def fault(outcome: Any, action: Any) -> Any:
        raise error

    return fault


def replaces(index: int, value: Any) -> Callable[..., Any]:
    """Return a fault that replaces one part of what `step` or `reset` returns."""

    def fault(outcome: Any, action: Any) -> Any:
        return (*outcome[:index], value, *outcome[index + 1 :])

    return fault


def hangs(outcome: Any, action: Any) -> Any:
    time.sleep(10_000)


def changes_global_state(outcome: Any, action: Any) -> Any:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    os.chdir("/")
    return outcome


def changes_default_dtype(outcome: Any, action: Any) -> Any:
    torch.set_default_dtype(torch.float64)
    return outcome


def changes_its_input(outcome: Any, action: Any) -> Any:
    if action is not None:
        action[:] = np.nan
    return outcome


def returns_views(outcome: Any, action: Any) -> Any:
    """Return an array that the next call overwrites."""
    KEPT[:] = outcome[0]
    return (KEPT, *outcome[1:])


KEPT = np.zeros(2)
HARMFUL = {
    "an exception": fails(ValueError("out of range")),
    "an exception without text": fails(RuntimeError()),
    "an exception of many lines": fails(RuntimeError("one\ntwo\nthree")),
    "sys.exit(0)": fails(SystemExit(0)),
    "KeyboardInterrupt": fails(KeyboardInterrupt()),
    "GeneratorExit": fails(GeneratorExit()),
    "StopIteration": fails(StopIteration()),
    "MemoryError": fails(MemoryError()),
    "a hang": hangs,
    "a NaN observation": replaces(0, np.array([0.0, np.nan])),
    "an observation beyond float32": replaces(0, np.array([1e39, 0.0])),
    "an observation of another shape": replaces(0, np.zeros(3)),
    "an observation of None": replaces(0, None),
    "an observation of text": replaces(0, "left"),
    "the wrong number of values": lambda outcome, action: outcome[:-1],
    "no value": lambda outcome, action: None,
}
HARMFUL_IN_STEP = {
    "a NaN reward": replaces(1, float("nan")),
    "a reward beyond float32": replaces(1, -1e300),
    "a reward of None": replaces(1, None),
    "a reward of text": replaces(1, "much"),
    "a reward of two numbers": replaces(1, np.zeros(2)),
    "terminated of text": replaces(2, "no"),
    "terminated of None": replaces(2, None),
}
HARMLESS = {
    "new seeds of all generators": changes_global_state,
    "another default dtype": changes_default_dtype,
    "a changed input": changes_its_input,
    "an overwritten observation": returns_views,
}


class Faulty(LinearReach):
    """LinearReach with a fault in one call of `step` or `reset`, or in all of them."""

    fault: Any = None  # from (returned value, action) to the value to return
    place = "step"
    call: int | None = None  # the number of the call; None: every call
    calls = 0  # in this process

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._distort("reset", super().reset(seed=seed), None)

    def step(self, action: Any) -> Any:
        return self._distort("step", super().step(np.array(action)), action)

    @classmethod
    def _distort(cls, place: str, outcome: Any, action: Any) -> Any:
        if cls.fault is None or place != cls.place:
            return outcome
        cls.calls += 1
        return cls.fault(outcome, action) if cls.call in (None, cls.calls) else outcome


gym.register("Faulty-v0", entry_point=Faulty, max_episode_steps=20)


def attack(rng: random.Random, place: Path) -> str:
    """Run a task with one fault, resume it without the fault, and compare with a run without it.

    A harmful fault must end the run with a one-line error. A harmless one must not change it.
    """
    name = rng.choice(list(SHORT))
    short, data = SHORT[name], place / "runs"
    flags = {"env_name": "Faulty-v0", "ep_len": None, "env_timeout": 1}
    whole = whole_run(name, **flags).folder
    where = rng.choice(["step", "reset"])
    harmful = HARMFUL | HARMFUL_IN_STEP if where == "step" else HARMFUL
    kind = rng.choice([*harmful, *HARMLESS])
    call = rng.randint(1, 150 if where == "step" else 8) if kind in harmful else None
    fault = (harmful | HARMLESS)[kind]
    what = f"{kind} in {where} {call or ''}".strip()
    words = short._replace(flags={**short.flags, **flags}).words(data)
    ended = run_child(short.script, words, functools.partial(set_fault, fault, where, call))
    with described(f"{name}, {what}"):
        if ended.code != 0:  # a run may end before the call with the fault
            assert kind not in HARMLESS, ended.err
            # Before a run handles signals, a KeyboardInterrupt of the task looks like Ctrl-C.
            is_ctrl_c = kind == "KeyboardInterrupt" and ended.code == 130
            check_one_line(ended, (130,) if is_ctrl_c else (1, 2))
            assert is_ctrl_c or "Faulty-v0" in ended.err, f"does not name the task: {ended.err}"
            folders = list(data.glob("hw4_*"))
            ended = run_child(short.script, ["--resume", folders[0]] if folders else words)
            assert ended.code == 0, ended.err
        check_equal(only_folder(data), whole)
    return f"{kind} in {where}"


def set_fault(fault: Any, place: str, call: int | None) -> None:
    Faulty.fault, Faulty.place, Faulty.call = staticmethod(fault), place, call


if __name__ == "__main__":
    sys.exit(campaign(attack, 100, "faulty_env"))
