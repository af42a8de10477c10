"""The two programs that train agents, for those that start them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cs285.infrastructure import flags as flag_tools
from cs285.infrastructure.config import MBConfig, MBPOConfig
from cs285.infrastructure.job import Job
from cs285.scripts import presets, run_hw4_mbpo

Say = Callable[[str], None]


class Program(NamedTuple):
    """How the flags of one of them become a run."""

    module: str
    config_class: Any
    settle: Callable[[dict[str, Any], Say], dict[str, Any]]


PROGRAMS = {
    "mb": Program("cs285.scripts.run_hw4_mb", MBConfig, lambda given, say: given),
    "mbpo": Program("cs285.scripts.run_hw4_mbpo", MBPOConfig, run_hw4_mbpo.settle),
}


def silent(line: str) -> None:
    """Say nothing."""


def complete(script: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that `given` ones come to, presets with them. Raises UsageError."""
    return presets.expand(script, PROGRAMS[script].settle(given, silent), silent)


def resolve(script: str, given: dict[str, Any]) -> Any:
    """Return the config that `given` flags come to. Raises UsageError: they are not allowed."""
    return flag_tools.from_flat(PROGRAMS[script].config_class, complete(script, given))


def job_of(script: str, given: dict[str, Any], minutes: float = 0.0) -> Job:
    """Return the job of a run; `given` has its exp_name. Raises UsageError: wrong flags."""
    program, values = PROGRAMS[script], complete(script, given)
    config = flag_tools.from_flat(program.config_class, values)
    free = flag_tools.free_flags(program.config_class)
    settings = {name: values[name] for name in values.keys() - free}
    words = tuple(words_of(given))
    return Job(given["exp_name"], program.module, words, minutes, config.run.n_iter, settings)


def words_of(given: dict[str, Any]) -> list[str]:
    """Return flags and their values as the words of a command line."""
    words: list[str] = []
    for name, value in given.items():
        truth = {True: f"--{name}", False: f"--no-{name}"}
        words.append(truth[value] if isinstance(value, bool) else f"--{name}={value}")
    return words
