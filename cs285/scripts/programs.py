"""The two programs that train agents, for those that start them."""

from __future__ import annotations

from typing import Any

from cs285.infrastructure import flags as flag_tools
from cs285.infrastructure.effects import NEUTRAL
from cs285.infrastructure.job import Job
from cs285.infrastructure.progress import silent
from cs285.scripts import presets, run_hw4_mb, run_hw4_mbpo

PROGRAMS = {program.name: program for program in (run_hw4_mb.PROGRAM, run_hw4_mbpo.PROGRAM)}


def resolve(script: str, given: dict[str, Any]) -> Any:
    """Return the config that `given` flags come to, presets with them. Raises UsageError."""
    values = presets.expand(script, PROGRAMS[script].settle(given, silent), silent)
    return flag_tools.from_flat(PROGRAMS[script].config_class, values)


def job_of(script: str, given: dict[str, Any], minutes: float = 0.0) -> Job:
    """Return the job of a run; `given` has its exp_name. Raises UsageError: wrong flags."""
    program, config = PROGRAMS[script], resolve(script, given)
    free, flat = flag_tools.free_flags(program.config_class), flag_tools.to_flat(config)
    again = {name: value for name, value in given.items() if name in free}
    return Job(
        name=given["exp_name"],
        module=program.module,
        flags=tuple(words_of(given)),
        resume_flags=tuple(words_of({**again, "n_iter": config.run.n_iter})),
        minutes=minutes,
        n_iter=config.run.n_iter,
        settings={name: flat[name] for name in flat if name not in {*NEUTRAL, *free}},
    )


def words_of(given: dict[str, Any]) -> list[str]:
    """Return flags and their values as the words of a command line."""
    words: list[str] = []
    for name, value in given.items():
        truth = {True: f"--{name}", False: f"--no-{name}"}
        words.append(truth[value] if isinstance(value, bool) else f"--{name}={value}")
    return words
