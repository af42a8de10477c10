"""Copy the learning curve and the provenance of a run from its log folder to results/."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cs285.analysis.evaluation import evaluate
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser, whole_number
from cs285.infrastructure.checkpoint import read_checkpoint
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.run_folder import CHECKPOINT, CONFIG, PROGRESS

SCRIPT = "export_run.py"
EVAL_SEED = 1  # of the final policy's episodes; training uses other draws


def export_run(folder: Path, target: Path, eval_episodes: int = 0) -> None:
    """Write the learning curve to `target`.csv and the provenance to `target`.json.

    With `eval_episodes`, the JSON file also has the returns of the final policy in new episodes.
    A run that logged no curve, as in question 1, exports its losses as CSV and the predictions of
    iteration 0 instead. Raises UsageError: config.json or the checkpoint is unreadable.
    """
    try:
        content = json.loads((folder / CONFIG).read_text())
        command = content["command"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"LOGDIR {folder}: cannot read {CONFIG} ({type(error).__name__}); must be the log "
            "folder of a run"
        ) from error
    state = read_checkpoint(folder, "cpu", lazily=True, argument="LOGDIR")
    counters = state["counters"]
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
        arrays = np.load(predictions)
        content["run"]["mean_prediction_error"] = float(arrays["error"])
        if "ensemble_error" in arrays:  # runs before 2026-11-29 logged the ensemble's as "error"
            content["run"]["ensemble_prediction_error"] = float(arrays["ensemble_error"])
    if eval_episodes:
        found = evaluate(folder, eval_episodes, EVAL_SEED)
        content["run"]["final_evaluation"] = {
            "seed": EVAL_SEED,
            "returns": [round(value, 3) for value in found.returns.tolist()],
            "lengths": found.lengths.tolist(),
        }
    Path(f"{target}.json").write_text(json.dumps(content, indent=2) + "\n")


def _published(command: list[str]) -> str:
    """Return the command without --data_dir, which would publish a path of the user's machine."""
    kept = [word for word in command[2:] if not word.startswith("--data_dir=")]
    if "--data_dir" in kept:
        at = kept.index("--data_dir")
        del kept[at : at + 2]
    return shlex.join([command[0], f"scripts/{Path(command[1]).name}", *kept])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("folder", metavar="LOGDIR", type=Path, help="log folder of the run")
    add("target", metavar="TARGET", type=Path, help="path of the files to write, without extension")
    add("--eval_episodes", type=whole_number(0), default=0, metavar="N", help="also store the "
        "returns of the final policy in N new episodes (default: 0)")  # fmt: skip
    given = parser.parse_args(argv)
    for name in (CONFIG, CHECKPOINT):
        if not (given.folder / name).exists():
            raise UsageError(f"LOGDIR {given.folder}: no {name}; must be the log folder of a run")
    export_run(given.folder, given.target, given.eval_episodes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
