"""Copy the curve, the provenance and the agent of a run from its log folder to results/."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs285.agents.registry import add_current_folder_to_path
from cs285.analysis.evaluation import evaluate
from cs285.analysis.rebuild import rebuild
from cs285.cli.outputs import writing
from cs285.cli.script import add_trust_flag, run_script
from cs285.config.flags import OneLineParser, whole_number
from cs285.envs.checked_env import close_env
from cs285.infrastructure.checkpoint import read_checkpoint, save_checkpoint
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.files import read_arrays, read_table, reading
from cs285.infrastructure.logger import progress_checksum, rows_before, write_rows
from cs285.infrastructure.old_names import current_metric
from cs285.infrastructure.rl_trainer import Counters
from cs285.infrastructure.run_folder import (
    BEST,
    CONFIG,
    PREDICTIONS,
    PROGRESS,
    config_text,
    read_config,
)
from cs285.infrastructure.value_types import shortened

SCRIPT = "export_run.py"
# Question 1's prediction errors, and their names in the JSON file. Before 2026-11-29 runs logged
# the ensemble's error as "error".
ERRORS = {"error": "mean_prediction_error", "ensemble_error": "ensemble_prediction_error"}
EVAL_SEED = 1  # of the final policy's episodes; training uses other draws


def export_run(folder: Path, target: Path, eval_episodes: int = 0, trusted: bool = False) -> None:
    """Write the learning curve to `target`.csv and the provenance to `target`.json.

    With `eval_episodes`, the JSON file also has the returns of the final policy in new episodes.
    A run that logged no curve, as in question 1, exports its losses as CSV and the predictions of
    iteration 0 instead. Nothing is written before everything has been read. Raises UsageError: a
    file of the run is unreadable, or the run needs to be `trusted` to evaluate it.
    """
    content = read_config(folder)
    state = read_checkpoint(folder, "cpu", lazily=True, argument="LOGDIR")
    losses, predictions = folder / "itr_0_losses.npy", folder / PREDICTIONS
    with reading(f"LOGDIR {folder}", "the log folder of a run with its results"):
        counters = Counters(**state["counters"])
        _remove_paths(content)
        has_curve, has_predictions = os.path.lexists(folder / PROGRESS), predictions.exists()
        header = (read_table(folder / PROGRESS, is_growing=True) or [[]])[0] if has_curve else []
        # Rows that are newer than the checkpoint are not part of what the JSON file describes.
        rows = rows_before(folder / PROGRESS, counters.next_iteration)
        if state["log"][PROGRESS] != progress_checksum(folder, counters.next_iteration):
            raise ValueError(f"its {PROGRESS} is damaged or missing")
        steps = [] if has_curve else read_arrays(losses)[""].tolist()
        arrays = read_arrays(predictions) if has_predictions or not has_curve else {}
        errors = {name: float(arrays[name]) for name in ERRORS if name in arrays}
    content["run"] = {
        "iterations": counters.next_iteration,
        "env_steps": counters.env_steps,
        "seconds": round(counters.seconds, 1),
        "seconds_by_phase": {
            phase: round(seconds, 1) for phase, seconds in counters.seconds_by_phase.items()
        },
        **{ERRORS[name]: value for name, value in errors.items()},
    }
    if eval_episodes:
        found = evaluate(folder, eval_episodes, EVAL_SEED, trusted=trusted)
        content["run"]["final_evaluation"] = {
            "seed": EVAL_SEED,
            "returns": [round(value, 3) for value in found.returns.tolist()],
            "lengths": found.lengths.tolist(),
        }
    elif kept := _earlier_evaluation(Path(f"{target}.json"), content):
        content["run"]["final_evaluation"] = kept
    with writing(f"TARGET {target}", "a path in a writable folder"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if has_curve:
            write_rows(Path(f"{target}.csv"), list(map(current_metric, header)), rows)
        else:
            losses_by_step = [f"{step},{loss}" for step, loss in enumerate(steps, start=1)]
            lines = ["Gradient step,Training Loss", *losses_by_step]
            Path(f"{target}.csv").write_text("\n".join(lines) + "\n")
            shutil.copyfile(predictions, f"{target}_predictions.npz")
        Path(f"{target}.json").write_text(json.dumps(content, indent=2) + "\n")


def _earlier_evaluation(file: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    """Return the final evaluation in `file` if it is an export of this run at this iteration."""
    try:
        earlier = json.loads(file.read_text())
        same_run = earlier["id"] == content["id"]
        same_time = earlier["run"]["iterations"] == content["run"]["iterations"]
        kept: dict[str, Any] = earlier["run"]["final_evaluation"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if same_run and same_time else None


def export_agent(folder: Path, target: Path, trusted: bool = False) -> None:
    """Write the weights that the policy needs to act to `target`, for evaluate.py and `cs285.load`.

    They are from the best evaluation, or from the last checkpoint of a run from before 2026-11-29.
    Raises UsageError: see `rebuild`; or the agent does not name these weights.
    """
    which = "best" if (folder / BEST).exists() else "last"
    run = rebuild(folder, no_gpu=True, trusted=trusted, checkpoint=which)
    close_env(run.env)
    if not run.agent.acting_parts:
        raise UsageError(f"--agent {target}: must be omitted for an agent without acting_parts")
    content = read_config(folder)
    _remove_paths(content)
    with writing(f"--agent {target}", "a path in a writable folder"):
        target.mkdir(parents=True, exist_ok=True)
        (target / CONFIG).write_text(config_text(content))
        state = {"agent": run.agent.acting_parameters(), "counters": run.counters}
        save_checkpoint(target / BEST, state, content.get("id"))


def _remove_paths(content: dict[str, Any]) -> None:
    """Remove --data_dir from a config.json's content. Raises ValueError: see `_published`."""
    content["command"] = _published(content["command"])
    content["flags"].pop("data_dir", None)


def _published(command: str | list[str]) -> str:
    """Return the command without --data_dir, which would publish a path of the user's machine.

    Raises ValueError: it is not the command of a script.
    """
    if len(command) < 2 or not isinstance(command, list):
        raise ValueError(f"command {shortened(command)} in {CONFIG} is not a list of words")
    kept = [word for word in command[2:] if not word.startswith("--data_dir=")]
    if "--data_dir" in kept:
        at = kept.index("--data_dir")
        del kept[at : at + 2]
    return shlex.join([command[0], f"scripts/{Path(command[1]).name}", *kept])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    add_current_folder_to_path()
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("folder", metavar="LOGDIR", type=Path, help="log folder of the run")
    add("target", metavar="TARGET", type=Path, help="path of the files to write, without extension")
    add_trust_flag(parser)
    add("--eval_episodes", type=whole_number(0), default=0, metavar="N", help="also store the "
        "returns of the final policy in N new episodes (default: 0)")  # fmt: skip
    add("--agent", type=Path, metavar="FOLDER", help="also write the agent of the best evaluation "
        "to this folder, for evaluate.py")  # fmt: skip
    given = parser.parse_args(argv)
    export_run(given.folder, given.target, given.eval_episodes, "trust" in given)
    if given.agent:
        export_agent(given.folder, given.agent, "trust" in given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
