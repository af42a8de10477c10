"""The folder of a sweep. sweep.json describes the sweep, and sweep.csv lists its trials.

The folder also contains the log folder of each trial, and its output as NAME.log.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from cs285.agents.registry import check_trust, find_agent
from cs285.experiments.job import DONE, STOPPED
from cs285.experiments.sweeps.definition import Sweep
from cs285.experiments.sweeps.values import Choice, Range, parse, varied_fields, word_of
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.files import read_json, read_table, reading
from cs285.infrastructure.old_names import current_metric
from cs285.infrastructure.provenance import describe_command
from cs285.infrastructure.replacing import replacing
from cs285.infrastructure.run_folder import MODULE_FLAGS, modules_in
from cs285.infrastructure.value_types import check_types, shortened

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
    about = {"sweep": description, "script": script, **describe_command()}
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        while True:
            folder = data_dir / f"sweep_{sweep.name}_{time.strftime('%d-%m-%Y_%H-%M-%S')}"
            try:
                folder.mkdir()
                break
            except FileExistsError:  # another sweep with this name started in the same second
                time.sleep(0.2)
        (folder / DESCRIPTION).write_text(json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise UsageError(
            f"--data_dir {data_dir}: {error.strerror}; must be a writable folder"
        ) from error
    return folder


def read(folder: Path, trusted: bool = False, named: Container[str] = ()) -> Sweep:
    """Return the sweep in a folder.

    Raises UsageError: the folder has no valid sweep.json, this version cannot resume the sweep, or
    it needs to be `trusted` because its modules are not `named` (`check_trust`).
    """
    about = f"--resume {folder}"
    with reading(about, "the folder of a sweep"):
        content = read_json(folder / DESCRIPTION)
        check_types(content, {"sweep": dict[str, Any]})
        settings = dict(content["sweep"])
        types_of = get_type_hints(Sweep) | {"choices": dict[str, Any]}
        check_types(settings, types_of)
        if unknown := settings.keys() - types_of.keys():
            raise ValueError(f"{DESCRIPTION} has the unknown key {shortened(min(unknown))}")
        check_trust(about, settings["script"], trusted, named)
        fields = varied_fields(find_agent(settings["script"]).config_class)
        if older := [name for name in settings["choices"] if name not in fields]:
            script = settings["script"]
            raise ValueError(f"{script} no longer has the flag --{shortened(older[0])}")
        choices = {
            name: _choice(*fields[name], choice) for name, choice in settings["choices"].items()
        }
        for module in modules_of(choices):
            check_trust(about, module, trusted, named)
        metric = current_metric(settings.pop("metric", Sweep.metric))
        name = settings.pop("name")
        sweep = Sweep(name, **{**settings, "choices": choices, "metric": metric})
    try:
        sweep.check_settings()
    except UsageError as error:
        raise UsageError(f"{about}: its {DESCRIPTION}: {error}") from error
    return sweep


def modules_of(choices: Mapping[str, Any]) -> list[str]:
    """Return the words MODULE:NAME in the values of a sweep's flags."""
    flags = [{name: value} for name in MODULE_FLAGS for value in choices.get(name, ())]
    return [word for each in flags for word in modules_in(each)]


def _choice(field: dataclasses.Field, kind: type, there: Any) -> Choice:
    """Return the values of a flag in sweep.json. Raises ValueError or UsageError: one is invalid.

    They are parsed as on the command line.
    """
    is_range = isinstance(there, dict) and there.keys() == set(Range._fields)
    if not (isinstance(there, list) or (is_range and kind in (int, float))):
        raise ValueError(f"--{field.name} {shortened(there)} is not a list or a range")
    separator = ";" if field.metadata["commas"] else ","
    return parse(field, kind, _typed(Range(**there) if is_range else there, separator))


def check_same(folder: Path, name: str, there: Any, here: Any) -> None:
    """Raise UsageError if the sweep in `folder` has another value of the flag `name`."""
    if there != here:
        raise UsageError(
            f"--{name} {_typed(here)}: the sweep in {folder} has {_typed(there)}; must be the same "
            "or left out"
        )


def _typed(choice: Any, separator: str = ",") -> str:
    """Return the values of a flag as text, as on the command line."""
    if choice is None:
        return "none"
    if isinstance(choice, Range):
        return f"{choice.low}:{choice.high}" + ":log" * choice.log
    return (
        separator.join(map(word_of, choice))
        if isinstance(choice, list | tuple)
        else word_of(choice)
    )


def write_table(folder: Path, varied: Sequence[str], trials: Sequence[Trial]) -> None:
    """Write sweep.csv, one line per trial."""
    with replacing(folder / TABLE) as stream:
        writer = csv.DictWriter(stream, ["trial", *varied, *COLUMNS], lineterminator="\n")
        writer.writeheader()
        for trial in trials:
            job = trial.job
            row = {name: word_of(value) for name, value in trial.values.items()}
            row |= {"trial": job.name, "state": job.state, "error": job.error}
            row |= {"folder": job.folder.name if job.folder else "", **trial.result}
            writer.writerow(row)


def read_trials(folder: Path, sweep: Sweep) -> list[Trial]:
    """Return the trials in sweep.csv, or [] if the file does not exist yet.

    Raises UsageError: the file is damaged.
    """
    if not (folder / TABLE).exists():
        return []
    trials = []
    with reading(f"--resume {folder}", f"the folder of a sweep with its {TABLE}"):
        names, *lines = read_table(folder / TABLE) or [[]]
        for number, line in enumerate(lines, start=2):
            row = dict(zip(names, line, strict=False))
            if len(line) != len(names) or row.keys() != {"trial", *sweep.varied, *COLUMNS}:
                raise ValueError(f"{TABLE} is damaged (line {number})")
            trial = Trial(sweep, sweep.read_values(row))
            trial.job.state, trial.job.error = row["state"], row["error"]
            trial.job.folder = folder / Path(row["folder"]).name if row["folder"] else None
            trial.result = {name: row[name] for name in RESULTS if row[name]}
            list(map(float, trial.result.values()))  # raises ValueError
            trials.append(trial)
    return trials
