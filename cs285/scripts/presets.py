"""Named settings: TOML files of flags, over which those on the command line win."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.flags import ABSENT
from cs285.infrastructure.toml import read_toml

FOLDER = Path(__file__).resolve().parents[1] / "presets"
LIST = "list"
PROBABILISTIC = "probabilistic"
# Where the first is given, a preset's others do not come with it.
GO_TOGETHER = {
    "ensemble_size": ("num_elites",),
    "n_layers": ("weight_decay",),
    "mbpo_rollout_length": ("mbpo_rollout_schedule",),
}


def names(script: str) -> list[str]:
    """Return the names of a program's presets, in order."""
    files = sorted(FOLDER.glob("*.toml"))
    return [file.stem for file in files if script in read(file.stem)["scripts"]]


def read(name: str) -> dict[str, Any]:
    """Return a preset: `about`, the `scripts` it is for (mb, mbpo) and its `flags`."""
    return read_toml(FOLDER / f"{name}.toml")


def describe(script: str) -> str:
    """Return the list of a program's presets, one per line."""
    known = names(script)
    width = max(map(len, known))
    return "\n".join(f"{name:{width}}  {read(name)['about']}" for name in known)


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add --preset to a program's flags."""
    parser.add_argument(
        "--preset",
        metavar="NAME",
        default=ABSENT,
        help="take the flags that are not given from a named setting; list: print the names",
    )


def expand(
    script: str, given: dict[str, Any], say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Return the flags to run with: those `given`, and those that they bring along, which are said.

    --preset brings its own; --model probabilistic, also a preset's, the ensemble of the preset of
    that name. Raises UsageError: there is no such preset.
    """
    values = dict(given)
    name = values.pop("preset", None)
    if "resume" in given:
        if name is not None:
            raise UsageError(
                f"--preset {name}: allowed without --resume, as the run has its flags already"
            )
        return values
    if name is not None:
        known = names(script)
        if name not in known:
            raise UsageError(f"--preset {name}: allowed are {LIST}, {', '.join(known)}")
        values = _bring_along(f"--preset {name}", _fitting(name, values), values, say)
    if values.get("model") == PROBABILISTIC and name != PROBABILISTIC:
        ensemble = _fitting(PROBABILISTIC, values)
        values = _bring_along(f"--model {PROBABILISTIC}", ensemble, values, say)
    return values


def _fitting(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a preset's flags without those that only go with what `values` has otherwise."""
    left_out = {flag for given, flags in GO_TOGETHER.items() if given in values for flag in flags}
    if values.get("holdout_ratio") == 0:
        left_out |= {"num_elites", "num_agent_train_steps_per_iter"}
    return {flag: value for flag, value in read(name)["flags"].items() if flag not in left_out}


def _bring_along(
    cause: str, flags: dict[str, Any], values: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Return `values` and those of `flags` that are not among them, which are said."""
    added = {name: value for name, value in flags.items() if name not in values}
    words = [f"--{flag}" if value is True else f"--{flag} {value}" for flag, value in added.items()]
    say(f"{cause} sets {' '.join(words)}")
    kept = [
        f"--{flag} {values[flag]}" for flag in flags if values.get(flag, flags[flag]) != flags[flag]
    ]
    if kept:
        say(f"{cause} leaves {' '.join(kept)}")
    return values | added
