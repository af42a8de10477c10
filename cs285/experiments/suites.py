"""Lists of experiments: homework.toml, quick.toml, research.toml, or a file of the user."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from cs285.agents.registry import find_agent
from cs285.config.run import NAME
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.files import read_toml, reading
from cs285.infrastructure.value_types import check_types, shortened

BUILT_IN = {
    name: Path(__file__).with_name(f"{name}.toml") for name in ("homework", "quick", "research")
}


@dataclass(frozen=True)
class Result:
    """A value that the report shows for each run of an experiment, with its target."""

    column: str
    last: int = 1  # number of final values of the column to average
    at_env_steps: int | None = None  # values up to here only; None: the whole run
    stated: str = ""  # what the assignment (or the paper) states about the value
    stated_at_least: float | None = None  # the value reaches the stated figure within these bounds
    stated_at_most: float | None = None
    at_least: float | None = None  # targets of this project
    at_most: float | None = None
    at_least_that_of: str = ""  # name of an experiment whose mean over seeds is the lower bound

    def is_met(self, value: float) -> bool | None:
        """Return whether `value` meets the target; None if there is no target."""
        return _is_within(value, self.at_least, self.at_most)

    def reaches_stated(self, value: float) -> bool | None:
        """Return whether `value` reaches the stated figure; None if that figure has no bounds."""
        return _is_within(value, self.stated_at_least, self.stated_at_most)


def _is_within(value: float, low: float | None, high: float | None) -> bool | None:
    """Return whether `value` is within the bounds; None if there are no bounds."""
    if low is None and high is None:
        return None
    return (low is None or value >= low) and (high is None or value <= high)


@dataclass(frozen=True)
class Experiment:
    """One entry of a list. It is run once per seed."""

    name: str
    script: str  # the agent
    flags: tuple[str, ...] = ()
    minutes: float = 0.0  # estimated duration of a run on one core; 0: unknown
    results: tuple[Result, ...] = ()
    seeds: tuple[int, ...] = (1,)
    stated_time: str = ""  # what the assignment states about the duration
    presets: tuple[str, ...] = ()  # presets to run the experiment with as well

    @property
    def question(self) -> str:
        """The part of the name before the first underscore, for example q1."""
        return self.name.split("_")[0]

    def run_name(self, seed: int) -> str:
        """Return the --exp_name of a run."""
        return f"{self.name}_seed{seed}"

    def with_preset(self, preset: str) -> Experiment:
        """Return the same experiment with a preset. It has no targets of its own."""
        flags = (*self.flags, "--preset", preset)
        return replace(
            self, name=preset_name(self.name, preset), flags=flags, results=(), presets=()
        )

    def words(self, seed: int) -> list[str]:
        """Return the flags of a run as words."""
        return [*self.flags, "--exp_name", self.run_name(seed), "--seed", str(seed)]

    def command(self, seed: int) -> list[str]:
        """Return the command of a run as words, for the top folder of the checkout."""
        return [*find_agent(self.script).words, *self.words(seed)]


def preset_name(experiment: str, preset: str) -> str:
    """Return the name of an experiment that is run with a preset as well."""
    return f"{experiment}_{preset}"


def read_experiments(which: str | Path = "homework") -> list[Experiment]:
    """Return the experiments of a built-in list or a file.

    An experiment with `presets` is followed by one experiment per preset.

    Raises UsageError: the file is unreadable or not a list, or an entry is invalid.
    """
    with reading(f"--experiments {which}", f"{', '.join(BUILT_IN)}, or a file like the first"):
        content = read_toml(BUILT_IN.get(str(which), Path(which)))
        check_types(content, {"experiment": list[dict[str, Any]], "groups": dict[str, str]})
        if not content.get("experiment"):
            raise ValueError("it has no [[experiment]] entries")
        listed = [
            _experiment(number, entry, content.get("groups", {}))
            for number, entry in enumerate(content["experiment"], start=1)
        ]
        experiments = [
            each for entry in listed for each in (entry, *map(entry.with_preset, entry.presets))
        ]
        counts = Counter(experiment.name for experiment in experiments)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"{twice[0]} is listed twice")
    return experiments


def _experiment(number: int, entry: dict[str, Any], groups: dict[str, str]) -> Experiment:
    """Return the experiment of an entry. Raises ValueError: a key is missing or invalid."""
    try:
        values = dict(entry)
        _check_keys(values, Experiment, flags=str, group=str, results=list[dict[str, Any]])
        group = values.pop("group", None)
        if group is not None and group not in groups:
            raise ValueError(f"group {group}: must be in [groups]")
        _check_script(values["script"])
        values["flags"] = tuple(shlex.split(f"{groups.get(group, '')} {values.get('flags', '')}"))
        for result in (results := values.get("results", ())):
            _check_keys(result, Result)
        values["results"] = tuple(Result(**result) for result in results)
        for key in ("presets", "seeds"):
            values[key] = tuple(values.get(key, getattr(Experiment, key)))
        if not values["seeds"] or min(values["seeds"]) < 0:
            raise ValueError(f"seeds {list(values['seeds'])}: must be one or more integers from 0")
        if values.get("minutes", 0) < 0:
            raise ValueError(f"minutes {values['minutes']}: must be 0 or more")
        experiment = Experiment(**values)
        if not experiment.name or not NAME.holds(experiment.run_name(max(experiment.seeds))):
            raise ValueError(f"name {shortened(experiment.name)!r}: must be {NAME.must_be}")
        return experiment
    except (ValueError, UsageError) as error:
        name = shortened(entry.get("name") or number)
        raise ValueError(f"experiment {name}: {error}") from error


def _check_script(name: str) -> None:
    """Raise ValueError if there is no such agent."""
    try:
        find_agent(name)
    except UsageError as error:
        raise ValueError(f"script {str(error).removeprefix('agent ')}") from error


def _check_keys(table: dict[str, Any], config_class: Any, **types_of: Any) -> None:
    """Raise ValueError if a required field is missing, a key is unknown, or a type is wrong.

    `types_of` has the types of further keys, and of fields that have another type in the file.
    """
    types_of = get_type_hints(config_class) | types_of
    for field in fields(config_class):
        if field.default is MISSING and field.name not in table:
            raise ValueError(f"key {field.name}: must be given")
    for key in table:
        if key not in types_of:
            raise ValueError(f"key {shortened(key)}: must be one of {', '.join(types_of)}")
    check_types(table, types_of)


def select(
    experiments: list[Experiment], questions: list[str] | None, names: list[str] | None
) -> list[Experiment]:
    """Return the experiments that belong to one of the `questions` or have one of the `names`.

    Return all experiments if both are None. Raises UsageError: a question or name is unknown.
    """
    known = list(dict.fromkeys(experiment.question for experiment in experiments))
    for question in questions or []:
        if question not in known:
            raise UsageError(f"--questions {question}: must be one of {', '.join(known)}")
    all_names = [experiment.name for experiment in experiments]
    for name in names or []:
        if name not in all_names:
            raise UsageError(f"--names {name}: must be one of {', '.join(all_names)}")
    if questions is None and names is None:
        return experiments
    return [e for e in experiments if e.question in (questions or []) or e.name in (names or [])]
