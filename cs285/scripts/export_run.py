"""Copy what a run measured from its log folder to results/: curve and provenance."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser
from cs285.infrastructure.checkpoint import load_checkpoint
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.run_folder import CHECKPOINT, CONFIG, PROGRESS

SCRIPT = "export_run.py"


def export_run(folder: Path, target: Path) -> None:
    """Write `target`.csv and `target`.json.

    The CSV is the curve; where nothing was logged, as in question 1, it is the losses, and the
    predictions of iteration 0 are copied too. Raises UsageError if the folder's
    description or checkpoint is not readable.
    """
    try:
        content = json.loads((folder / CONFIG).read_text())
        command = content["command"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder}: {CONFIG} cannot be read ({type(error).__name__}); allowed: a log folder"
        ) from error
    counters = load_checkpoint(folder / CHECKPOINT, "cpu", lazily=True)["counters"]
    target.parent.mkdir(parents=True, exist_ok=True)
    if (folder / PROGRESS).exists():
        shutil.copyfile(folder / PROGRESS, f"{target}.csv")
    else:
        losses = np.load(folder / "itr_0_losses.npy").tolist()
        rows = [f"{step},{loss}" for step, loss in enumerate(losses, start=1)]
        Path(f"{target}.csv").write_text("\n".join(["Gradient step,Training Loss", *rows]) + "\n")
        shutil.copyfile(folder / "itr_0_predictions.npz", f"{target}_predictions.npz")
    content["command"] = _published(command)
    content["flags"].pop("data_dir", None)
    content["run"] = {
        "iterations": counters["next_iteration"],
        "env_steps": counters["env_steps"],
        "seconds": round(counters["seconds"], 1),
        "seconds_by_phase": {
            phase: round(seconds, 1)
            for phase, seconds in counters.get("seconds_by_phase", {}).items()
        },
    }
    predictions = folder / "itr_0_predictions.npz"
    if predictions.exists():
        content["run"]["mean_prediction_error"] = float(np.load(predictions)["error"])
    Path(f"{target}.json").write_text(json.dumps(content, indent=2) + "\n")


def _published(command: list[str]) -> str:
    """Return the command less --data_dir and its value: where it was run is nobody's."""
    kept = [word for word in command[2:] if not word.startswith("--data_dir=")]
    if "--data_dir" in kept:
        at = kept.index("--data_dir")
        del kept[at : at + 2]
    return shlex.join([command[0], f"scripts/{Path(command[1]).name}", *kept])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, help="log folder of a run")
    parser.add_argument("target", type=Path, help="results file to write, without its ending")
    given = parser.parse_args(argv)
    for name in (CONFIG, CHECKPOINT):
        if not (given.folder / name).exists():
            raise UsageError(f"{given.folder}: it has no {name}; allowed: a log folder")
    export_run(given.folder, given.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
