"""Named settings: TOML files of flags, over which those on the command line win."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cs285.config.flags import ABSENT, defaults
from cs285.config.toml import read_toml
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.progress import Notify

FOLDER = Path(__file__).with_name("presets")
LIST = "list"
PROBABILISTIC = "probabilistic"
# Where the first is given, a preset's others do not come with it.
GO_TOGETHER = {
    "ensemble_size": ("num_elites", "mpc_particles"),
    "num_elites": ("mpc_particles",),
    "n_layers": ("weight_decay",),
    "mbpo_rollout_length": ("mbpo_rollout_schedule",),
}


def names(agent: str, folder: Path = FOLDER) -> list[str]:
    """Return the names of an agent's presets, in order."""
    files = sorted(folder.glob("*.toml"))
    return [file.stem for file in files if agent in read(file.stem, folder)["scripts"]]


def read(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return a preset: `about`, the `scripts` (agents) it is for and its `flags`."""
    return read_toml(folder / f"{name}.toml")


def describe(agent: str, folder: Path = FOLDER) -> str:
    """Return the list of an agent's presets, one per line."""
    known = names(agent, folder)
    width = max(map(len, known), default=0)
    return "\n".join(f"{name:{width}}  {read(name, folder)['about']}" for name in known)


class _Once(argparse.Action):
    """Stores a flag's value, and refuses a second one: the first would be lost without a word."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        if hasattr(namespace, self.dest):
            raise UsageError(
                f"--{self.dest} {values}: must be given once; it was also "
                f"given as {getattr(namespace, self.dest)}"
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


def expand(
    agent: str,
    config_class: type,
    given: dict[str, Any],
    notify: Notify = print,
    folder: Path = FOLDER,
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
                f"--preset {name}: must not be given with --resume; the run keeps its own flags"
            )
        return values
    if name is not None:
        known = names(agent, folder)
        if name not in known:
            raise UsageError(f"--preset {name}: must be one of {', '.join(known)}")
        flags = flags_for(config_class, name, folder)
        values = _with_preset_flags(f"--preset {name}", flags, values, notify)
    if values.get("model") == PROBABILISTIC and name != PROBABILISTIC:
        flags = flags_for(config_class, PROBABILISTIC)
        values = _with_preset_flags(f"--model {PROBABILISTIC}", flags, values, notify)
    return values


def flags_for(config_class: type, name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return those flags of a preset that an agent of this config has; others are of other agents.

    A preset for several agents may have flags that only some of them know.
    """
    preset = read(name, folder)
    known = defaults(config_class)
    is_shared = len(preset["scripts"]) > 1
    return {flag: v for flag, v in preset["flags"].items() if flag in known or not is_shared}


def _with_preset_flags(
    cause: str, flags: dict[str, Any], values: dict[str, Any], notify: Notify
) -> dict[str, Any]:
    """Return `values` and those flags of a preset that go with them, which are said."""
    inapplicable = _inapplicable(values)
    added = {flag: flags[flag] for flag in flags if flag not in values and flag not in inapplicable}
    words = [f"--{flag}" if value is True else f"--{flag} {value}" for flag, value in added.items()]
    notify(f"{cause} sets {' '.join(words)}")
    kept = [
        f"--{flag} {values[flag]}" for flag in flags if values.get(flag, flags[flag]) != flags[flag]
    ]
    if kept:
        notify(f"{cause} leaves {' '.join(kept)}")
    for flag in flags:
        if flag in inapplicable and flag not in values:
            notify(f"{cause} leaves out --{flag}, which goes with another --{inapplicable[flag]}")
    return values | added


def _inapplicable(values: dict[str, Any]) -> dict[str, str]:
    """Return the flags that a preset is not to bring along, and which of `values` each is for."""
    inapplicable = {
        flag: given for given in GO_TOGETHER if given in values for flag in GO_TOGETHER[given]
    }
    if values.get("holdout_ratio") == 0:
        inapplicable |= dict.fromkeys(
            ("num_elites", "num_agent_train_steps_per_iter"), "holdout_ratio"
        )
    return inapplicable
