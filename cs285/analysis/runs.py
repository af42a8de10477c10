"""Load the logs of runs as arrays: from progress.csv, exported CSVs or event files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX.proto.types_pb2 import DT_FLOAT

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.files import OtherFileError, read_table, reading
from cs285.infrastructure.logger import ITERATION
from cs285.infrastructure.old_names import current_metric
from cs285.infrastructure.recording.event_file import is_event_file, read_events
from cs285.infrastructure.recording.progress import Notify
from cs285.infrastructure.run_folder import CONFIG, PROGRESS, read_description

Array = NDArray[np.float64]
ENV_STEPS, EVAL_RETURN = "Train_EnvstepsSoFar", "Eval_AverageReturn"
_STAMP = re.compile(r"_\d\d-\d\d-\d{4}_\d\d-\d\d-\d\d$")
_SEED = re.compile(r"_?seed_?(\d+)$")


class NothingLoggedError(UsageError):
    """A path holds no logged scalars (yet)."""


@dataclass(frozen=True)
class Run:
    """One run: its columns (T,), one value per logged iteration, NaN if the value is missing."""

    name: str  # --exp_name; for the original homework's logs, the folder name
    columns: dict[str, Array]
    config: dict[str, Any]  # config.json or the exported JSON; {} for the original homework's logs
    path: Path = Path()  # the log folder or file that was loaded

    def __len__(self) -> int:
        """Return the number of logged iterations."""
        return max(map(len, self.columns.values()), default=0)

    @property
    def setting(self) -> str:
        """The name without the seed at its end, shared by runs that differ only in the seed."""
        return _SEED.sub("", self.name)

    @property
    def seed(self) -> int | None:
        """The value of --seed, or the number after "seed" at the end of the name."""
        found, flag = _SEED.search(self.name), self.config.get("flags", {}).get("seed")
        return flag if isinstance(flag, int) else int(found[1]) if found else None

    @property
    def seconds(self) -> float | None:
        """Wall-clock time since the first iteration, in seconds, summed over all resumes."""
        if "seconds" in self.config.get("run", {}):
            return float(self.config["run"]["seconds"])
        times = self.columns.get("TimeSinceStart", np.empty(0))
        return float(times[-1]) if len(times) else None

    def column(self, name: str) -> Array:
        """Return a column (T,). Raises UsageError: the run has no such column."""
        if name not in self.columns:
            known = ", ".join(sorted(self.columns))
            raise UsageError(f"column {name}: {self.name} does not have it; must be one of {known}")
        return self.columns[name]


def load_run(path: str | Path) -> Run:
    """Load a log folder, an exported CSV with its JSON, or an event file.

    If a folder has both a progress.csv and event files, progress.csv is loaded. Event files may
    come from any program that writes scalars, such as the original homework.

    Raises UsageError: the path has no logged scalars, or cannot be read.
    """
    path = Path(path)
    if path.suffix == ".csv":
        is_log = path.name == PROGRESS
        described = path.parent / CONFIG if is_log else path.with_suffix(".json")
        config, columns = _description(described), read_csv(path)
        if not any(len(column) for column in columns.values()):
            raise NothingLoggedError(f"{path}: no rows yet; must be a CSV with at least one row")
        return Run(_name(path, config), columns, config, path.parent if is_log else path)
    if path.is_dir() and os.path.lexists(path / PROGRESS):  # a broken link is an error
        return load_run(path / PROGRESS)
    files = sorted(filter(is_event_file, path.iterdir())) if path.is_dir() else [path]
    columns = read_event_columns(files)
    if not columns:
        raise NothingLoggedError(
            f"{path}: no scalars were logged there; must be a log folder, an event file or an "
            "exported CSV"
        )
    config = _description((path if path.is_dir() else path.parent) / CONFIG)
    return Run(_name(path, config), columns, config, path)


def exported_runs(results: Path, experiment: str) -> list[Run]:
    """Return the exported runs of an experiment in a results folder, sorted by seed.

    Raises UsageError: a file is damaged, or a run lacks its CSV or its JSON file.
    """
    files = {file.with_suffix(".csv") for file in results.glob(f"*/{experiment}_seed*.csv")}
    files |= {
        file.with_suffix(".csv")
        for file in results.glob(f"*/{experiment}_seed*.json")
        if not file.stem.endswith("_perfect")
    }
    runs = [load_run(file) for file in sorted(files)]
    for run in runs:
        if "run" not in run.config:
            raise UsageError(
                f"{run.path.with_suffix('.json')}: must be the JSON file of an exported run; "
                "export the run again"
            )
    return sorted(runs, key=lambda run: run.seed or 0)


def find_runs(paths: Iterable[str | Path], notify: Notify = print) -> list[Run]:
    """Load every run at or below the paths once, sorted by name.

    Runs below a folder without scalars are skipped silently, and unreadable files are skipped and
    reported by `notify`.

    Raises UsageError: there is no run at or below a path.
    """
    runs: dict[Path, Run] = {}
    for path in map(Path, paths):
        found = [load_run(path)] if path.is_file() else _runs_below(path, notify)
        if not found:
            reason = "no run is at or below it" if path.exists() else "no such file or folder"
            raise UsageError(f"{path}: {reason}; must be a log folder or a folder of log folders")
        runs |= {Path(os.path.realpath(run.path)): run for run in found}
    return sorted(runs.values(), key=lambda run: (run.setting, run.seed or 0))


def read_csv(file: Path) -> dict[str, Array]:
    """Return the columns of a CSV; an empty cell is NaN.

    An incomplete last line of a progress.csv is dropped, because a run may be writing it.

    Raises UsageError: the file is not a table of numbers.
    """
    with reading(str(file), "a CSV of numbers with a header"):
        names, *cells = read_table(file, is_growing=file.name == PROGRESS) or [[]]
        for number, row in enumerate(cells, start=2):
            if len(row) != len(names):
                raise ValueError(f"line {number} has {len(row)} cells, the header has {len(names)}")
        names = list(map(current_metric, names))
        table = np.array([[float(cell or "nan") for cell in row] for row in cells])
        return dict(zip(names, table.reshape(len(cells), len(names)).T, strict=True))


def read_event_columns(files: Sequence[Path]) -> dict[str, Array]:
    """Return the scalars of event files as columns (T,) over the logged steps.

    If a run was restarted in its folder, the restart's values replace the earlier values from the
    restart's first step on, as in TensorBoard.
    """
    by_tag: dict[str, dict[int, float]] = {}
    for file in files:
        own: dict[str, dict[int, float]] = {}
        for step, tag, value in read_scalars(file):
            own.setdefault(current_metric(tag), {})[step] = value
        for tag, values in own.items():
            earlier = by_tag.get(tag, {}).items()
            kept = {step: value for step, value in earlier if step < min(values)}
            by_tag[tag] = kept | values
    steps = sorted({step for values in by_tag.values() for step in values})
    columns = {
        tag: np.array([values.get(step, np.nan) for step in steps])
        for tag, values in by_tag.items()
    }
    return {ITERATION: np.array(steps, float), **columns} if columns else {}


def read_scalars(file: Path) -> Iterator[tuple[int, str, float]]:
    """Yield (step, tag, value) from an event file, up to its end or the first broken record.

    A scalar is stored as a simple_value or, by newer writers, as a tensor of one float.
    """
    for event in read_events(file, media=False):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield event.step, value.tag, value.simple_value
            elif value.HasField("tensor") and value.tensor.dtype == DT_FLOAT:
                tensor = value.tensor
                numbers = tensor.float_val or np.frombuffer(tensor.tensor_content, "<f4")
                if len(numbers) == 1:
                    yield event.step, value.tag, float(numbers[0])


def _runs_below(folder: Path, notify: Notify) -> list[Run]:
    """Load the runs that have scalars; question 1 and runs that have just begun have none."""
    logs = {file.parent for file in folder.rglob(PROGRESS)}
    logs |= {file.parent for file in folder.rglob("*tfevents*") if is_event_file(file)}
    runs = []
    for path in sorted(logs | {file for file in folder.rglob("*.csv") if file.name != PROGRESS}):
        try:
            if path.suffix == ".csv" and not _description(path.with_suffix(".json")):
                continue  # the table of a sweep or of a study
            runs.append(load_run(path))
        except NothingLoggedError:
            if path == folder and (path / PROGRESS).exists():  # the user named this run
                raise
        except UsageError as error:
            if path == folder:
                raise
            notify(f"skipped {error}; repair or remove it")
    return runs


def _name(path: Path, config: dict[str, Any]) -> str:
    name = config.get("flags", {}).get("exp_name")
    if name is not None:
        return str(name)
    if path.suffix == ".csv" and path.name != PROGRESS:
        return path.stem
    folder = path if path.is_dir() else path.parent
    return _STAMP.sub("", folder.name).removeprefix("hw4_")


def _description(file: Path) -> dict[str, Any]:
    """Return the description of a run, or {} if the file is missing or describes something else.

    Raises UsageError: the file is damaged.
    """
    with reading(str(file), "the description of a run; repair it, or move it away"):
        try:
            return read_description(file)
        except (FileNotFoundError, OtherFileError):
            return {}
