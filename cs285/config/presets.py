"""Presets: named sets of flags in TOML files. Flags on the command line override them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cs285.config.flags import ABSENT, defaults
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.files import read_toml
from cs285.infrastructure.recording.progress import Notify

FOLDER = Path(__file__).with_name("presets")
LIST = "list"
PROBABILISTIC = "probabilistic"
# If the flag on the left is given, a preset does not set the flags on the right: their values
# belong to the preset's own value of the flag on the left.
DEPENDENT_FLAGS = {
    "ensemble_size": ("num_elites", "mpc_particles"),
    "num_elites": ("mpc_particles",),
    "n_layers": ("weight_decay", "model_layer_norm", "model_dropout"),
    "mbpo_rollout_length": ("mbpo_rollout_schedule",),
    "mbpo_models_kept": ("mbpo_model_buffer_size",),
    "mbpo_rollouts_per_sac_iter": ("mbpo_rollouts_per_block",),
}
# Flags for fits with early stopping, and for fits with a falling learning rate. A fit has one.
EARLY_STOPPING = ("holdout_ratio", "num_elites", "num_agent_train_steps_per_iter")
FALLING_RATE = ("learning_rate_schedule", "learning_rate_peak")


def names(agent: str, folder: Path = FOLDER) -> list[str]:
    """Return the sorted names of an agent's presets."""
    files = sorted(folder.glob("*.toml"))
    return [file.stem for file in files if agent in read(file.stem, folder)["scripts"]]


def read(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return a preset: its description `about`, its agents `scripts` and its `flags`."""
    return read_toml(folder / f"{name}.toml")


def flags_named_in(given: dict[str, Any]) -> dict[str, Any]:
    """Return the flags of the preset that `given` names, or {} if there is no such preset."""
    name = given.get("preset", "")
    return read(name)["flags"] if (FOLDER / f"{name}.toml").exists() else {}


def describe(agent: str, folder: Path = FOLDER) -> str:
    """Return a text with the name and description of each of an agent's presets, one per line."""
    known = names(agent, folder)
    width = max(map(len, known), default=0)
    return "\n".join(f"{name:{width}}  {read(name, folder)['about']}" for name in known)


class _Once(argparse.Action):
    """Stores a flag's value. Raises UsageError: it was given twice, so one value would be lost."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        if hasattr(namespace, self.dest):
            raise UsageError(
                f"--{self.dest} {values}: must be given once, but --{self.dest} "
                f"{getattr(namespace, self.dest)} was given, too"
            )
        setattr(namespace, self.dest, values)


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add --preset to a script's flags."""
    parser.add_argument(
        "--preset",
        action=_Once,
        metavar="NAME",
        default=ABSENT,
        help="take all flags that are not given from this preset; list: print the names of all "
        "presets and exit",
    )


def expand(
    agent: str,
    config_class: type,
    given: dict[str, Any],
    notify: Notify = print,
    folder: Path = FOLDER,
) -> dict[str, Any]:
    """Return the `given` flags and the flags that presets add to them. `notify` reports these.

    `--preset` adds the flags of that preset. `--model probabilistic`, given or from a preset, adds
    the flags of the preset "probabilistic". Raises UsageError: there is no such preset.
    """
    values = dict(given)
    name = values.pop("preset", None)
    if "resume" in given:
        if name is not None:
            raise UsageError(
                f"--preset {name}: must not be given with --resume, because a run keeps its flags"
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
    """Return the flags of a preset for an agent with this config class.

    A preset for several agents may contain flags that this agent does not have. They are skipped.
    """
    preset = read(name, folder)
    known = defaults(config_class)
    is_shared = len(preset["scripts"]) > 1
    return {flag: v for flag, v in preset["flags"].items() if flag in known or not is_shared}


def _with_preset_flags(
    cause: str, flags: dict[str, Any], values: dict[str, Any], notify: Notify
) -> dict[str, Any]:
    """Return `values` and the applicable `flags` of a preset that they lack; report what is set."""
    inapplicable = _inapplicable(flags, values)
    added = {flag: flags[flag] for flag in flags if flag not in values and flag not in inapplicable}
    words = [f"--{flag}" if value is True else f"--{flag} {value}" for flag, value in added.items()]
    notify(f"{cause} sets {' '.join(words)}")
    kept = [
        f"--{flag} {values[flag]}" for flag in flags if values.get(flag, flags[flag]) != flags[flag]
    ]
    if kept:
        notify(f"{cause} does not override {' '.join(kept)}")
    for flag in flags:
        if flag in inapplicable and flag not in values:
            notify(f"{cause} does not set --{flag} because {inapplicable[flag]}")
    return values | added


def _inapplicable(flags: dict[str, Any], values: dict[str, Any]) -> dict[str, str]:
    """Return {flag: reason} for those `flags` of a preset that must not be added to `values`."""
    inapplicable = {
        dependent: f"--{flag} is already set"
        for flag, dependents in DEPENDENT_FLAGS.items()
        if flag in values
        for dependent in dependents
    }
    if flags.get("model_loss") == "nll" and values.get("model") == "deterministic":
        inapplicable["model_loss"] = "--model is deterministic"
    for flag, value in (("holdout_ratio", 0), ("learning_rate_schedule", "falling")):
        if flags.get("holdout_ratio") and values.get(flag) == value:
            inapplicable |= dict.fromkeys(EARLY_STOPPING, f"--{flag} is {value}")
    if ratio := values.get("holdout_ratio"):
        inapplicable |= dict.fromkeys(FALLING_RATE, f"--holdout_ratio is {ratio}")
    return inapplicable
