"""Load the logs of runs as arrays: from progress.csv, exported CSVs or event files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX.proto.types_pb2 import DT_FLOAT

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.old_names import current_metric, translate_flags
from cs285.infrastructure.recording.event_file import is_event_file, read_events
from cs285.infrastructure.recording.progress import Notify
from cs285.infrastructure.run_folder import CONFIG, PROGRESS

Array = NDArray[np.float64]
ITERATION, ENV_STEPS, EVAL_RETURN = "Iteration", "Train_EnvstepsSoFar", "Eval_AverageReturn"
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
        if "run" in self.config:
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
        config, columns = _read_json(described), read_csv(path)
        if not any(len(column) for column in columns.values()):
            raise NothingLoggedError(f"{path}: no rows yet; must be a CSV with at least one row")
        return Run(_name(path, config), columns, config, path.parent if is_log else path)
    if path.is_dir() and (path / PROGRESS).exists():
        return load_run(path / PROGRESS)
    files = sorted(filter(is_event_file, path.iterdir())) if path.is_dir() else [path]
    columns = read_event_columns(files)
    if not columns:
        raise NothingLoggedError(
            f"{path}: no scalars were logged there; must be a log folder, an event file or an "
            "exported CSV"
        )
    config = _read_json((path if path.is_dir() else path.parent) / CONFIG)
    return Run(_name(path, config), columns, config, path)


def exported_runs(results: Path, experiment: str) -> list[Run]:
    """Return the exported runs of an experiment in a results folder, sorted by seed."""
    files = results.glob(f"*/{experiment}_seed*.csv")
    return sorted((load_run(file) for file in files), key=lambda run: run.seed or 0)


def find_runs(paths: Iterable[str | Path], notify: Notify = print) -> list[Run]:
    """Load every run at or below the paths once, sorted by name.

    Below a folder, runs without scalars are skipped silently, and unreadable files are skipped and
    reported by `notify`.

    Raises UsageError: there is no run at or below a path.
    """
    runs: dict[Path, Run] = {}
    for path in map(Path, paths):
        found = [load_run(path)] if path.is_file() else _runs_below(path, notify)
        if not found:
            reason = "no run is at or below it" if path.exists() else "no such file or folder"
            raise UsageError(f"{path}: {reason}; must be a log folder or a folder of log folders")
        runs |= {run.path.resolve(): run for run in found}
    return sorted(runs.values(), key=lambda run: (run.setting, run.seed or 0))


def read_csv(file: Path) -> dict[str, Array]:
    """Return the columns of a CSV; an empty cell is NaN.

    An incomplete last line of a progress.csv is dropped, because a run may be writing it.

    Raises UsageError: the file is not a table of numbers.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            whole = (line for line in stream if line.endswith("\n") or file.name != PROGRESS)
            names, *cells = list(csv.reader(whole)) or [[]]
        for number, row in enumerate(cells, start=2):
            if len(row) != len(names):
                raise ValueError(f"line {number} has {len(row)} cells, the header has {len(names)}")
        names = list(map(current_metric, names))
        table = np.array([[float(cell or "nan") for cell in row] for row in cells])
        return dict(zip(names, table.reshape(len(cells), len(names)).T, strict=True))
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{file}: {error}; must be a CSV of numbers with a header") from error


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
    exported = {
        file for file in folder.rglob("*.csv") if "flags" in _read_json(file.with_suffix(".json"))
    }
    runs = []
    for path in sorted(logs | exported):
        try:
            runs.append(load_run(path))
        except NothingLoggedError:
            pass
        except UsageError as error:
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


def _read_json(file: Path) -> dict[str, Any]:
    """Return the description of a run, or {} if the file is missing or has no flags."""
    try:
        content = json.loads(file.read_text())
        return content | {"flags": translate_flags(content["flags"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
