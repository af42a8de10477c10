"""What a sweep runs: a grid, or drawn values; each trial is an ordinary run with its own name."""

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
from cs285.config.ineffective import flags_without_effect_on_curve, ineffective_flags, signature
from cs285.config.run import NAME
from cs285.experiments.job import Job, job_of, resolve
from cs285.experiments.sweeps.values import Choice, Range, parse_one, varied_fields, word_of
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.progress import silent

ATTEMPTS = 1000  # to draw values that were not drawn before


@dataclass(frozen=True)
class Sweep:
    """Which flags of which agent are varied, and how."""

    name: str
    script: str  # the agent
    choices: dict[str, Choice]  # by flag, in the order given
    search: int = 0  # trials with values drawn; 0: a grid
    sampler: str = "random"  # or optuna
    sampler_seed: int = 1
    metric: str = "Eval_AverageReturn"
    mode: str = "max"
    asha: bool = False

    @property
    def varied(self) -> list[str]:
        """The flags with more than one value."""
        return [
            name
            for name, choice in self.choices.items()
            if isinstance(choice, Range) or len(choice) > 1
        ]

    @property
    def fixed(self) -> dict[str, Any]:
        """The flags with one value, and that value."""
        return {name: choice[0] for name, choice in self.choices.items() if name not in self.varied}

    @property
    def size(self) -> int:
        """The number of trials."""
        return self.search or len(self.values())

    @property
    def is_adaptive(self) -> bool:
        """Whether the values of a trial depend on the results of earlier ones."""
        return self.search > 0 and self.sampler == "optuna"

    def values(self) -> list[dict[str, Any]]:
        """Return the varied flags of each trial; of an adaptive sweep, those of its corners."""
        choices = {name: self.choices[name] for name in self.varied}
        if self.search and not self.is_adaptive:
            return list(itertools.islice(self._draws(choices), self.search))
        ends = [choice[:2] if isinstance(choice, Range) else choice for choice in choices.values()]
        return [dict(zip(choices, point, strict=True)) for point in itertools.product(*ends)]

    def read_values(self, row: dict[str, str]) -> dict[str, Any]:
        """Return a trial's values from their words."""
        fields = varied_fields(find_agent(self.script).config_class)
        return {name: parse_one(*fields[name], row[name]) for name in self.varied}

    def job(self, values: dict[str, Any]) -> Job:
        """Return the run with these values of the varied flags."""
        given = {**self.fixed, **values, "exp_name": self.name_of(values)}
        return job_of(self.script, given)

    def name_of(self, values: dict[str, Any]) -> str:
        """Return a trial's --exp_name: by its values, or by a hash of them where they are drawn.

        The seed is at the end, so that trials that differ in nothing else are one setting.
        """
        words = [f"{flag}{word_of(value)}" for flag, value in values.items() if flag != "seed"]
        seed = [f"seed{values['seed']}"] if "seed" in values else []
        digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
        plain = [re.sub("[/: ;]", "-", word) for word in words]
        readable = "_".join([self.name, *plain, *([digest] if plain != words else []), *seed])
        if NAME.holds(readable) and not self.search:
            return readable
        return "_".join([self.name, digest, *seed])

    def check(self) -> None:
        """Raise UsageError if a trial is not allowed, or a varied flag makes no difference."""
        if "which_gpu" in self.choices:
            raise UsageError("--which_gpu: allowed in a run by hand; a trial is given its GPU")
        if -1 in self.choices.get("checkpoint_freq", ()):
            raise UsageError(
                "--checkpoint_freq -1: allowed in a sweep are whole numbers from 1, as trials are "
                "resumed"
            )
        entry = find_agent(self.script)
        for flag in self.varied:
            # An without_effect_on_curve flag may still set another one, as --sac_batch_size does.
            if flag in flags_without_effect_on_curve(entry.config_class) and set(
                expand_flags(entry, {flag: self.choices[flag][0]}, silent)
            ) == {flag}:
                raise UsageError(
                    f"--{flag}: allowed is one value in a sweep, as no curve depends on it"
                )
            if isinstance(self.choices[flag], Range) and not self.search:
                raise UsageError(f"--{flag}: ranges are drawn from; allowed with --search")
        if self.search and not self.varied:
            raise UsageError(
                f"--search {self.search}: allowed where a flag has values to draw from"
            )
        combinations = math.prod(map(_count, self.choices.values()))
        if combinations < self.search:
            raise UsageError(
                f"--search {self.search}: the flags have only {combinations:g} combinations"
            )
        self._check_ineffective(self.values())

    def _check_ineffective(self, trials: list[dict[str, Any]]) -> None:
        """Raise UsageError: two trials are the same run, or no trial depends on a varied flag."""
        always_ineffective = set(self.varied)
        seen: dict[tuple[Any, ...], dict[str, Any]] = {}
        for values in trials:
            config = resolve(self.script, {**self.fixed, **values})
            ineffective = ineffective_flags(config)
            always_ineffective &= ineffective.keys()
            counts = signature(config)
            if counts in seen:
                flag = next(name for name in values if values[name] != seen[counts][name])
                reason = f", as {ineffective[flag]}" if flag in ineffective else ""
                raise UsageError(
                    f"--{flag} {word_of(seen[counts][flag])},{word_of(values[flag])}: without "
                    f"effect{reason}; allowed: values that make a difference to each trial"
                )
            seen[counts] = values
        for flag in self.varied:
            if flag in always_ineffective:
                raise UsageError(
                    f"--{flag}: without effect, as {ineffective[flag]}; allowed: one value"
                )

    def _draws(self, choices: dict[str, Choice]) -> Iterator[dict[str, Any]]:
        """Yield values drawn for the flags, no combination twice."""
        generator = random.Random(self.sampler_seed)
        seen: set[tuple[Any, ...]] = set()
        for _ in range(ATTEMPTS * self.search):
            values = {name: _draw(choice, generator) for name, choice in choices.items()}
            if tuple(values.values()) not in seen:
                seen.add(tuple(values.values()))
                yield values


def _count(choice: Choice) -> float:
    """Return how many values there are to draw from."""
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
