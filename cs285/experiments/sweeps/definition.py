"""The definition of a sweep: a grid of flag values, or a search that draws them.

Each trial of a sweep is an ordinary run with its own --exp_name.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cs285.agents.registry import expand_flags, find_agent
from cs285.config.flags import INDEX, Check, one_of
from cs285.config.ineffective import flags_without_effect_on_curve, ineffective_flags, signature
from cs285.config.run import NAME
from cs285.experiments.job import MOST_RUNS, Job, job_of, resolve
from cs285.experiments.sweeps.values import Choice, Range, parse_one, varied_fields, word_of
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.progress import silent
from cs285.infrastructure.value_types import shortened

SAMPLER, MODE = one_of("random", "optuna"), one_of("max", "min")
ATTEMPTS = 1000  # draws per trial, because combinations that were drawn before are skipped


@dataclass(frozen=True)
class Sweep:
    """The agent, its flags and their values, and the search settings."""

    name: str
    script: str  # the agent
    choices: dict[str, Choice]  # the values of each flag, in the order of the command line
    search: int = 0  # number of trials of a search; 0: a grid
    sampler: str = "random"  # or "optuna"
    sampler_seed: int = 1
    metric: str = "Eval_AverageReturn"
    mode: str = "max"
    asha: bool = False

    @property
    def varied(self) -> list[str]:
        """The names of the flags with more than one value."""
        return [
            name
            for name, choice in self.choices.items()
            if isinstance(choice, Range) or len(choice) > 1
        ]

    @property
    def fixed(self) -> dict[str, Any]:
        """The flags with a single value, and that value."""
        return {name: choice[0] for name, choice in self.choices.items() if name not in self.varied}

    @property
    def size(self) -> int:
        """The number of trials."""
        return self.search or len(self.values())

    @property
    def is_adaptive(self) -> bool:
        """Whether the values of a trial depend on the results of earlier trials."""
        return self.search > 0 and self.sampler == "optuna"

    def values(self) -> list[dict[str, Any]]:
        """Return the values of the varied flags, one dict per trial.

        The trials of an adaptive sweep are not known in advance. For such a sweep, return every
        combination of the listed values and of the ends of the ranges.
        """
        choices = {name: self.choices[name] for name in self.varied}
        if self.search and not self.is_adaptive:
            return list(itertools.islice(self._draws(choices), self.search))
        ends = [choice[:2] if isinstance(choice, Range) else choice for choice in choices.values()]
        return [dict(zip(choices, point, strict=True)) for point in itertools.product(*ends)]

    def read_values(self, row: dict[str, str]) -> dict[str, Any]:
        """Return the values of a trial from a row of sweep.csv."""
        fields = varied_fields(find_agent(self.script).config_class)
        return {name: parse_one(*fields[name], row[name]) for name in self.varied}

    def job(self, values: dict[str, Any]) -> Job:
        """Return the job of the trial with these values of the varied flags."""
        given = {**self.fixed, **values, "exp_name": self.name_of(values)}
        return job_of(self.script, given)

    def name_of(self, values: dict[str, Any]) -> str:
        """Return the --exp_name of a trial.

        The name contains the values, or a hash of them in a search or if they would make the name
        invalid. The seed comes last, so that the analysis groups trials that differ only in it.
        """
        words = [f"{flag}{word_of(value)}" for flag, value in values.items() if flag != "seed"]
        seed = [f"seed{values['seed']}"] if "seed" in values else []
        digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
        plain = [re.sub("[/: ;]", "-", word) for word in words]
        readable = "_".join([self.name, *plain, *([digest] if plain != words else []), *seed])
        if NAME.holds(readable) and not self.search:
            return readable
        return "_".join([self.name, digest, *seed])

    def check_settings(self) -> None:
        """Raise UsageError if a setting of the sweep is invalid, or if it has too many trials."""
        for name, value, check in (
            ("exp_name", self.name, NAME),
            ("search", self.search, Check(lambda n: 0 <= n <= MOST_RUNS, f"at most {MOST_RUNS}")),
            ("sampler", self.sampler, SAMPLER),
            ("sampler_seed", self.sampler_seed, INDEX),
            ("mode", self.mode, MODE),
        ):
            if not check.holds(value):
                raise UsageError(f"--{name} {shortened(value)}: must be {check.must_be}")
        sizes = [2 if isinstance(each, Range) else len(each) for each in self.choices.values()]
        if (self.is_adaptive or not self.search) and math.prod(sizes) > MOST_RUNS:
            widest = max(zip(sizes, self.choices, strict=True))[1]
            raise UsageError(
                f"--{widest}: must have fewer values; the sweep has {math.prod(sizes)} "
                f"combinations, and at most {MOST_RUNS} can be run"
            )

    def check(self) -> None:
        """Raise UsageError if a trial is invalid, or if a varied flag has no effect."""
        self.check_settings()
        if "which_gpu" in self.choices:
            raise UsageError(
                "--which_gpu: must be left out; a sweep assigns the GPUs to its trials"
            )
        if -1 in self.choices.get("checkpoint_freq", ()):
            raise UsageError(
                "--checkpoint_freq -1: must be a positive integer in a sweep, because trials are "
                "resumed from checkpoints"
            )
        entry = find_agent(self.script)
        for flag in self.varied:
            # Some of these flags set another flag, for example --sac_batch_size sets --batch_size.
            if flag in flags_without_effect_on_curve(entry.config_class) and set(
                expand_flags(entry, {flag: self.choices[flag][0]}, silent)
            ) == {flag}:
                raise UsageError(
                    f"--{flag}: must be a single value in a sweep, because it does not change the "
                    "learning curve"
                )
            if isinstance(self.choices[flag], Range) and not self.search:
                raise UsageError(f"--{flag}: must be a list of values; a range needs --search")
        if self.search and not self.varied:
            raise UsageError(
                f"--search {self.search}: must be given with a flag that has several values or a "
                "range"
            )
        combinations = math.prod(map(_count, self.choices.values()))
        if combinations < self.search:
            raise UsageError(
                f"--search {self.search}: must be at most {combinations:g}, the number of "
                "combinations of the flags' values"
            )
        self._check_ineffective(self.values())

    def _check_ineffective(self, trials: list[dict[str, Any]]) -> None:
        """Raise UsageError if two trials are the same run, or a varied flag never has an effect."""
        always_ineffective = set(self.varied)
        seen: dict[tuple[Any, ...], dict[str, Any]] = {}
        for values in trials:
            config = resolve(self.script, {**self.fixed, **values})
            ineffective = ineffective_flags(config)
            always_ineffective &= ineffective.keys()
            counts = signature(config)
            if counts in seen:
                flag = next(name for name in values if values[name] != seen[counts][name])
                reason = f", because {ineffective[flag]}" if flag in ineffective else ""
                raise UsageError(
                    f"--{flag} {word_of(seen[counts][flag])},{word_of(values[flag])}: must be "
                    "values that make every trial a different run; these values give the same run"
                    f"{reason}"
                )
            seen[counts] = values
        for flag in self.varied:
            if flag in always_ineffective:
                raise UsageError(
                    f"--{flag}: must be a single value, because it has no effect: "
                    f"{ineffective[flag]}"
                )

    def _draws(self, choices: dict[str, Choice]) -> Iterator[dict[str, Any]]:
        """Yield random values of the flags without repeating a combination."""
        generator = random.Random(self.sampler_seed)
        seen: set[tuple[Any, ...]] = set()
        for _ in range(ATTEMPTS * self.search):
            values = {name: _draw(choice, generator) for name, choice in choices.items()}
            if tuple(values.values()) not in seen:
                seen.add(tuple(values.values()))
                yield values


def _count(choice: Choice) -> float:
    """Return the number of possible values."""
    if not isinstance(choice, Range):
        return len(choice)
    return choice.high - choice.low + 1 if choice.whole else math.inf


def _draw(choice: Choice, generator: random.Random) -> Any:
    if not isinstance(choice, Range):
        return generator.choice(choice)
    if choice.whole and not choice.log:
        return generator.randint(int(choice.low), int(choice.high))
    if choice.log:
        value = math.exp(generator.uniform(math.log(choice.low), math.log(choice.high)))
    else:
        value = generator.uniform(choice.low, choice.high)
    value = round(value) if choice.whole else float(f"{value:.6g}")
    return min(max(value, choice.low), choice.high)
