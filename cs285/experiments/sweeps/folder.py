"""The folder of a sweep. sweep.json describes the sweep, and sweep.csv lists its trials.

The folder also contains the log folder of each trial, and its output as NAME.log.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs285.agents.registry import find_agent
from cs285.experiments.job import DONE, STOPPED
from cs285.experiments.sweeps.definition import Sweep
from cs285.experiments.sweeps.values import Range, varied_fields, word_of
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.old_names import current_metric
from cs285.infrastructure.run_folder import describe_run

DESCRIPTION, TABLE = "sweep.json", "sweep.csv"
FINISHED = (DONE, STOPPED)  # --resume runs failed trials again
RESULTS = ("iterations", "metric")  # after the last logged iteration
COLUMNS = ("state", *RESULTS, "folder", "error")


class Trial:
    """A run of a sweep: its values of the varied flags, its job and its results."""

    def __init__(self, sweep: Sweep, values: dict[str, Any]) -> None:
        self.values, self.job = values, sweep.job(values)
        self.result: dict[str, Any] = {}
        self.reported = 0  # iterations whose metric has been read
        self.stamp: tuple[Path, int, int] | None = None  # identifies the progress.csv last read


def create(sweep: Sweep, data_dir: Path, script: str) -> Path:
    """Create the folder `sweep_<name>_<time>` with its sweep.json, and return it.

    Raises UsageError: the data folder is not writable.
    """
    choices = {
        name: choice._asdict() if isinstance(choice, Range) else list(choice)
        for name, choice in sweep.choices.items()
    }
    description = {**dataclasses.asdict(sweep), "choices": choices}
    about = {"sweep": description, **describe_run(script, {})}
    del about["flags"]  # describe_run() adds the flags of a run, which a sweep does not have
    while True:
        folder = data_dir / f"sweep_{sweep.name}_{time.strftime('%d-%m-%Y_%H-%M-%S')}"
        try:
            folder.mkdir(parents=True)
            (folder / DESCRIPTION).write_text(json.dumps(about, indent=2) + "\n")
            return folder
        except FileExistsError:
            time.sleep(0.2)
        except OSError as error:
            raise UsageError(
                f"--data_dir {data_dir}: {error.strerror}; must be a writable folder"
            ) from error


def read(folder: Path) -> Sweep:
    """Return the sweep in a folder.

    Raises UsageError: the folder has no valid sweep.json, or this version cannot resume the sweep.
    """
    try:
        content = dict(json.loads((folder / DESCRIPTION).read_text())["sweep"])
        choices = {
            name: Range(**choice) if isinstance(choice, dict) else choice
            for name, choice in content.pop("choices").items()
        }
        metric = current_metric(content.pop("metric", Sweep.metric))
        sweep = Sweep(choices=choices, metric=metric, **content)
    except OSError as error:
        raise UsageError(
            f"--resume {folder}: {error.strerror} ({DESCRIPTION}); must be the folder of a sweep"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--resume {folder}: its {DESCRIPTION} is invalid; must be the folder of a sweep"
        ) from error
    known = varied_fields(find_agent(sweep.script).config_class)
    for name in sweep.choices:
        if name not in known:  # an older version had the flag
            raise UsageError(
                f"--resume {folder}: {sweep.script} no longer has the flag --{name}; start a new "
                "sweep"
            )
    return sweep


def check_same(folder: Path, name: str, there: Any, here: Any) -> None:
    """Raise UsageError if the sweep in `folder` has another value of the flag `name`."""
    if there != here:
        raise UsageError(
            f"--{name} {_typed(here)}: the sweep in {folder} has {_typed(there)}; must be the same "
            "or left out"
        )


def _typed(choice: Any) -> str:
    if choice is None:
        return "none"
    if isinstance(choice, Range):
        return f"{choice.low}:{choice.high}" + ":log" * choice.log
    return ",".join(map(word_of, choice)) if isinstance(choice, list | tuple) else word_of(choice)


def write_table(folder: Path, varied: Sequence[str], trials: Sequence[Trial]) -> None:
    """Write sweep.csv, one line per trial."""
    temporary = folder / f".{TABLE}.tmp"
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["trial", *varied, *COLUMNS], lineterminator="\n")
        writer.writeheader()
        for trial in trials:
            job = trial.job
            row = {name: word_of(value) for name, value in trial.values.items()}
            row |= {"trial": job.name, "state": job.state, "error": job.error}
            row |= {"folder": job.folder.name if job.folder else "", **trial.result}
            writer.writerow(row)
    temporary.replace(folder / TABLE)


def read_trials(folder: Path, sweep: Sweep) -> list[Trial]:
    """Return the trials in sweep.csv, or [] if the file does not exist yet."""
    if not (folder / TABLE).exists():
        return []
    trials = []
    with (folder / TABLE).open(newline="") as stream:
        for row in csv.DictReader(stream):
            trial = Trial(sweep, sweep.read_values(row))
            trial.job.state, trial.job.error = row["state"], row["error"]
            trial.job.folder = folder / row["folder"] if row["folder"] else None
            trial.result = {name: row[name] for name in RESULTS if row[name]}
            trials.append(trial)
    return trials
