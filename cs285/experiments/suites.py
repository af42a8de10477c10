"""The lists of experiments: homework.toml, research.toml, or a file of the user's own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs285.agents.registry import find_agent
from cs285.config.toml import read_toml
from cs285.infrastructure.errors import UsageError

EXPERIMENTS_FILE = Path(__file__).with_name("homework.toml")
RESEARCH_FILE = Path(__file__).with_name("research.toml")
BUILT_IN = {"homework": EXPERIMENTS_FILE, "research": RESEARCH_FILE}
FORMER_PATHS = {  # until 2026-11
    "cs285/analysis/experiments.toml": EXPERIMENTS_FILE,
    "cs285/analysis/research.toml": RESEARCH_FILE,
}


@dataclass(frozen=True)
class Result:
    """A value of each run of an experiment that the report shows."""

    column: str
    last: int = 1  # how many last values of the column are averaged
    stated: str = ""  # by the assignment
    at_least: float | None = None  # wanted by this project
    at_most: float | None = None
    at_least_that_of: str = ""  # another experiment; its mean over seeds is the bound

    def is_met(self, value: float) -> bool | None:
        """Return whether `value` meets the target; None if there is no target."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Experiment:
    """One entry of the list; run once per seed."""

    name: str
    script: str  # the agent
    flags: tuple[str, ...]
    minutes: float
    results: tuple[Result, ...] = ()
    seeds: tuple[int, ...] = (1,)
    stated_time: str = ""

    @property
    def question(self) -> str:
        """The group it belongs to, which its name begins with."""
        return self.name.split("_")[0]

    def run_name(self, seed: int) -> str:
        """Return the --exp_name of a run."""
        return f"{self.name}_seed{seed}"

    def command(self, seed: int) -> list[str]:
        """Return the words of a run's command, as typed at the top of the checkout."""
        words = [*find_agent(self.script).words, *self.flags]
        return [*words, "--exp_name", self.run_name(seed), "--seed", str(seed)]


def find_list(name: str | Path) -> Path:
    """Return the file of a list: a built-in one by its name or its former path, or the path."""
    path = Path(name)
    if str(name) in BUILT_IN:
        return BUILT_IN[str(name)]
    if not path.exists():
        for former, file in FORMER_PATHS.items():
            if path.match(former):
                return file
    return path


def read_experiments(which: str | Path = EXPERIMENTS_FILE) -> list[Experiment]:
    """Return the experiments of a built-in list or a file. Raises UsageError: it is no list."""
    file = find_list(which)
    try:
        content = read_toml(file)
        groups = content.get("groups", {})
        experiments = [_experiment(entry, groups) for entry in content["experiment"]]
        if not experiments:
            raise ValueError("no experiment is in it")
    except OSError as error:
        raise UsageError(
            f"--experiments {file}: {error.strerror}; allowed: {', '.join(BUILT_IN)}, or a "
            "file with a list of experiments"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--experiments {file}: {type(error).__name__} {error}; allowed: a list such as "
            f"{EXPERIMENTS_FILE.name}"
        ) from error
    names = [experiment.name for experiment in experiments]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"--experiments {file}: {min(twice)} is in it twice; allowed: once")
    return experiments


def _experiment(entry: dict[str, Any], groups: dict[str, str]) -> Experiment:
    values = dict(entry)
    find_agent(values["script"])
    in_common = groups[values.pop("group")] if "group" in values else ""
    values["flags"] = tuple(shlex.split(f"{in_common} {values['flags']}"))
    values["results"] = tuple(Result(**result) for result in values.get("results", ()))
    values["seeds"] = tuple(values.get("seeds", Experiment.seeds))
    values["minutes"] = float(values["minutes"])
    if not isinstance(values["name"], str):
        raise TypeError(f"name {values['name']}")
    if not values["seeds"]:
        raise ValueError(f"{values['name']} has no seeds")
    if not all(isinstance(seed, int) for seed in values["seeds"]):
        raise TypeError(f"seeds of {values['name']}")
    return Experiment(**values)


def select(
    experiments: list[Experiment], questions: list[str] | None, names: list[str] | None
) -> list[Experiment]:
    """Return the experiments of the `questions` or with one of the `names`; without both, all.

    Raises UsageError for an unknown question or name.
    """
    known = list(dict.fromkeys(experiment.question for experiment in experiments))
    for question in questions or []:
        if question not in known:
            raise UsageError(f"--questions {question}: allowed are {', '.join(known)}")
    all_names = [experiment.name for experiment in experiments]
    for name in names or []:
        if name not in all_names:
            raise UsageError(f"--names {name}: allowed are {', '.join(all_names)}")
    if questions is None and names is None:
        return experiments
    return [e for e in experiments if e.question in (questions or []) or e.name in (names or [])]
