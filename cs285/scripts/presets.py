"""Named settings: TOML files of flags, over which those on the command line win."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.flags import ABSENT
from cs285.infrastructure.progress import Say
from cs285.infrastructure.toml import read_toml

FOLDER = Path(__file__).resolve().parents[1] / "presets"
LIST = "list"
PROBABILISTIC = "probabilistic"
OF_MBPO = ("mbpo_", "sac_")  # how flags begin that the other program has not
# Where the first is given, a preset's others do not come with it.
GO_TOGETHER = {
    "ensemble_size": ("num_elites", "mpc_particles"),
    "num_elites": ("mpc_particles",),
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


class _Once(argparse.Action):
    """Stores a flag's value, and refuses a second one: the first would be lost without a word."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        if hasattr(namespace, self.dest):
            raise UsageError(
                f"--{self.dest} {values}: allowed is one, and {getattr(namespace, self.dest)} was "
                "given"
            )
        setattr(namespace, self.dest, values)


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add --preset to a program's flags."""
    parser.add_argument(
        "--preset",
        action=_Once,
        metavar="NAME",
        default=ABSENT,
        help="take the flags that are not given from a named setting; list: print the names",
    )


def expand(script: str, given: dict[str, Any], say: Say = print) -> dict[str, Any]:
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
            raise UsageError(f"--preset {name}: allowed are {', '.join(known)}")
        values = _bring_along(f"--preset {name}", flags_for(script, name), values, say)
    if values.get("model") == PROBABILISTIC and name != PROBABILISTIC:
        flags = flags_for(script, PROBABILISTIC)
        values = _bring_along(f"--model {PROBABILISTIC}", flags, values, say)
    return values


def flags_for(script: str, name: str) -> dict[str, Any]:
    """Return those flags of the preset that the program has."""
    flags = read(name)["flags"]
    return {flag: flags[flag] for flag in flags if script == "mbpo" or not flag.startswith(OF_MBPO)}


def _bring_along(
    cause: str, flags: dict[str, Any], values: dict[str, Any], say: Say
) -> dict[str, Any]:
    """Return `values` and those flags of a preset that go with them, which are said."""
    misfits = _misfits(values)
    added = {flag: flags[flag] for flag in flags if flag not in values and flag not in misfits}
    words = [f"--{flag}" if value is True else f"--{flag} {value}" for flag, value in added.items()]
    say(f"{cause} sets {' '.join(words)}")
    kept = [
        f"--{flag} {values[flag]}" for flag in flags if values.get(flag, flags[flag]) != flags[flag]
    ]
    if kept:
        say(f"{cause} leaves {' '.join(kept)}")
    for flag in flags:
        if flag in misfits and flag not in values:
            say(f"{cause} leaves out --{flag}, which goes with another --{misfits[flag]}")
    return values | added


def _misfits(values: dict[str, Any]) -> dict[str, str]:
    """Return the flags that a preset is not to bring along, and which of `values` each is for."""
    misfits = {
        flag: given for given in GO_TOGETHER if given in values for flag in GO_TOGETHER[given]
    }
    if values.get("holdout_ratio") == 0:
        misfits |= dict.fromkeys(("num_elites", "num_agent_train_steps_per_iter"), "holdout_ratio")
    return misfits
