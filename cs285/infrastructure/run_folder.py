"""The log folder of a run: its creation, its config.json, and the names of its files."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.files import OtherFileError, read_json, reading
from cs285.infrastructure.old_names import translate_flags
from cs285.infrastructure.provenance import PACKAGE, describe_command, is_checkout, provenance
from cs285.infrastructure.replacing import replacing
from cs285.infrastructure.value_types import check_types

CONFIG, CHECKPOINT, PROGRESS = "config.json", "checkpoint.pt", "progress.csv"
PREVIOUS = "checkpoint_previous.pt"  # the checkpoint before the last one
WHICH = {"last": CHECKPOINT, "previous": PREVIOUS}  # the checkpoints that a run resumes from
BEST = "agent_best.pt"  # the weights that the policy needs to act, at the best evaluation
FROM_PYTHON = "python/"  # beginning of --env_name if the task was a class or a function in Python
UNFINISHED = "unfinished.pt"  # see infrastructure/unfinished.py
PREDICTIONS = "itr_0_predictions.npz"
MUST_BE = "the log folder of a run"
MODULE_FLAGS = ("env_name", "env_wrappers")
# The types of the keys that this package uses.
_DESCRIPTION = {
    "flags": dict[str, Any],
    "script": str,
    "agent": str,
    "id": str | None,
    "command": str | list[str],
    "resumed": list[dict[str, Any]],
    "git": dict[str, Any],
    "machine": dict[str, Any],
    "run": dict[str, Any],
}
_RESULT = {
    "iterations": int,
    "seconds": float,
    "seconds_by_phase": dict[str, float],
    "mean_prediction_error": float,
    "ensemble_prediction_error": float,
    "final_evaluation": dict[str, Any],
}


def default_data_dir() -> Path:
    """Return cs285/data in the checkout, or in the working folder for an installed package."""
    return (PACKAGE if is_checkout() else Path.cwd() / "cs285") / "data"


def create_run_folder(
    data_dir: str | None,
    exp_name: str,
    env_name: str,
    script: str,
    agent: str,
    flags: dict[str, Any],
) -> Path:
    """Create the folder `hw4_<exp_name>_<env_name>_<time>/` with its config.json, atomically.

    Raises UsageError: the data folder is not writable.
    """
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    about = {"agent": agent, "id": secrets.token_hex(8), "script": script, "flags": flags}
    about |= describe_command()
    fresh = root / f".new_{os.getpid()}_{time.time_ns()}"
    try:
        if root.is_symlink() and not root.exists():
            raise UsageError(
                f"--data_dir {root}: is a link to {root.readlink()}, which does not exist; must be "
                "a writable folder"
            )
        fresh.mkdir(parents=True)
        (fresh / CONFIG).write_text(config_text(about))
        while True:
            stamp = time.strftime("%d-%m-%Y_%H-%M-%S")
            folder = root / f"hw4_{exp_name}_{re.sub('[/:]', '-', env_name)}_{stamp}"
            try:
                fresh.rename(folder)
                return folder
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            time.sleep(0.2)  # another run with this name started in the same second
    except KeyboardInterrupt:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise UsageError(
            f"--data_dir {root}: cannot write to it ({error.strerror}); must be a writable folder"
        ) from error


def read_description(file: Path) -> dict[str, Any]:
    """Return the description of a run, with the current names of its flags.

    `file` is the config.json of a run, or the JSON file of an exported run.

    Raises OSError: the file cannot be read. Raises ValueError: it does not describe a run.
    """
    content = read_json(file)
    if "checksum" in content and content.pop("checksum") != _checksum(content):
        raise ValueError(f"{file.name} is damaged (its checksum differs)")
    if "flags" not in content:
        raise OtherFileError(f"{file.name} does not describe a run")
    check_types(content, _DESCRIPTION)
    result = content.get("run", {})
    check_types(result, _RESULT)
    check_types(result.get("final_evaluation", {}), {"returns": list[float]})
    flags = translate_flags(content["flags"])
    check_types(flags, {"exp_name": str, "env_name": str, "seed": int, "n_iter": int})
    return content | {"flags": flags}


def config_text(content: dict[str, Any]) -> str:
    """Return the text of a config.json, with a checksum of its content."""
    unsigned = {name: value for name, value in content.items() if name != "checksum"}
    return json.dumps(unsigned | {"checksum": _checksum(unsigned)}, indent=2) + "\n"


def _checksum(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def read_config(folder: Path, argument: str = "LOGDIR") -> dict[str, Any]:
    """Return the content of the config.json of the run in `folder`.

    An error names the folder as the value of `argument`. Raises UsageError: the folder has no run.
    """
    with reading(f"{argument} {folder}", MUST_BE):
        content = read_description(folder / CONFIG)
        if "script" not in content:
            raise ValueError(f"{CONFIG} does not name the script of the run")
        return content


def run_id(folder: Path) -> str | None:
    """Return the random id of the run in `folder`, or None if it has no readable id."""
    try:
        return read_json(folder / CONFIG).get("id")
    except (OSError, ValueError):
        return None


def flags_of(folder: Path) -> dict[str, Any]:
    """Return the flags of the run in `folder`, or nothing if they cannot be read."""
    try:
        return read_description(folder / CONFIG)["flags"]
    except (OSError, ValueError):
        return {}


def modules_in(flags: Mapping[str, Any]) -> list[str]:
    """Return what a run imports, as MODULE:NAME. That runs the code of the modules.

    --env_name is one name, also if it contains spaces; --env_wrappers may have several.
    """
    task, wrappers = (str(flags.get(name, "")) for name in MODULE_FLAGS)
    return [word for word in (task, *wrappers.split()) if ":" in word]


def record_resume(folder: Path, flags: dict[str, Any], iteration: int) -> None:
    """Add to config.json the code and machine that resume the run at `iteration`.

    The new `flags` replace the old ones, because n_iter may differ.
    """
    content = read_config(folder, "--resume")
    sessions = [*content.get("resumed", []), {"first_iteration": iteration, **provenance()}]
    with replacing(folder / CONFIG) as stream:
        stream.write(config_text({**content, "flags": flags, "resumed": sessions}))


def checkpoint_name(which: str) -> str:
    """Return the name of a checkpoint: last, previous, best, or the number of an iteration.

    An iteration has one with --save_params.
    """
    return {**WHICH, "best": BEST}.get(which, f"agent_itr_{which}.pt")


def checkpoints_in(folder: Path) -> list[str]:
    """Return the names of the checkpoints in a log folder (see checkpoint_name)."""
    named = [name for name in (*WHICH, "best") if (folder / checkpoint_name(name)).exists()]
    iterations = [path.stem.rpartition("_")[2] for path in folder.glob(checkpoint_name("*"))]
    return named + sorted(filter(str.isdecimal, iterations), key=int)


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run has a checkpoint to resume from."""
    return any((folder / name).exists() for name in WHICH.values())


def has_results(folder: Path) -> bool:
    """Return whether a run has a checkpoint, a curve, or the predictions of question 1."""
    return any((folder / name).exists() for name in (CHECKPOINT, PROGRESS, PREDICTIONS))
