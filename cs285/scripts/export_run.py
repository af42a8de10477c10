"""Copy what a finished run measured from its log folder to results/: curve and provenance."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cs285.infrastructure.checkpoint import load_checkpoint
from cs285.infrastructure.errors import RunError
from cs285.infrastructure.run_folder import CHECKPOINT, CONFIG, PROGRESS


def export_run(folder: Path, target: Path) -> None:
    """Write `target`.csv and `target`.json.

    The CSV is the curve; where nothing was logged, as in question 1, it is the losses, and the
    predictions of iteration 0 are copied too. Raises UsageError if the folder's
    checkpoint is not readable.
    """
    content = json.loads((folder / CONFIG).read_text())
    counters = load_checkpoint(folder / CHECKPOINT, "cpu")["counters"]
    target.parent.mkdir(parents=True, exist_ok=True)
    if (folder / PROGRESS).exists():
        shutil.copyfile(folder / PROGRESS, f"{target}.csv")
    else:
        _losses_to_csv(folder / "itr_0_losses.npy", Path(f"{target}.csv"))
        shutil.copyfile(folder / "itr_0_predictions.npz", f"{target}_predictions.npz")
    command = [content["command"][0], "scripts/" + Path(content["command"][1]).name]
    options = _without_data_dir(content["command"][2:])
    content["command"] = " ".join([*command, *options])
    content["flags"].pop("data_dir", None)
    content["run"] = {
        "iterations": counters["next_iteration"],
        "env_steps": counters["env_steps"],
        "seconds": round(counters["seconds"], 1),
    }
    predictions = folder / "itr_0_predictions.npz"
    if predictions.exists():
        content["run"]["mean_prediction_error"] = float(np.load(predictions)["error"])
    Path(f"{target}.json").write_text(json.dumps(content, indent=2) + "\n")


def _losses_to_csv(losses: Path, target: Path) -> None:
    rows = [f"{step},{loss}" for step, loss in enumerate(np.load(losses).tolist(), start=1)]
    target.write_text("\n".join(["Gradient step,Training Loss", *rows]) + "\n")


def _without_data_dir(options: list[str]) -> list[str]:
    """Return the command's options less --data_dir and its value: where it was run is nobody's."""
    kept = [option for option in options if not option.startswith("--data_dir=")]
    if "--data_dir" in kept:
        at = kept.index("--data_dir")
        del kept[at : at + 2]
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="log folder of a finished run")
    parser.add_argument("target", type=Path, help="results file to write, without its ending")
    arguments = parser.parse_args(argv)
    try:
        export_run(arguments.folder, arguments.target)
    except RunError as error:
        print(f"export_run.py: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
