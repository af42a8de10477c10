"""The logger of a run: TensorBoard events, progress.csv, videos, terminal output, a tracker."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from cs285.infrastructure.errors import RunError, UsageError
from cs285.infrastructure.files import read_table, reading
from cs285.infrastructure.old_names import current_metric
from cs285.infrastructure.recording.event_file import EventFile
from cs285.infrastructure.recording.tracking import Tracker
from cs285.infrastructure.recording.video import Frames, encode_gif, small_frames, write_video
from cs285.infrastructure.replacing import replacing
from cs285.infrastructure.run_folder import PROGRESS

ITERATION = "Iteration"
EVENTS = "events"  # the name of the event file's checksum


class Logger:
    """Writes scalars and videos of a run to its log folder; a resumed run appends to them."""

    def __init__(
        self,
        folder: Path,
        first_iteration: int = 0,
        checksums: Mapping[str, int] | None = None,
        track: str | None = None,
    ) -> None:
        """Open the log files in `folder`, and drop their rows from `first_iteration` on.

        `checksums` is the `state_dict` of the logger when it had logged those rows; None: the run
        starts. `track` names an experiment tracker that gets a copy. Raises UsageError: a file is
        damaged, or the tracker cannot start.
        """
        self.folder = folder
        self._csv = folder / PROGRESS
        self._events = EventFile(folder, first_iteration)
        rows = rows_before(self._csv, first_iteration, current_metric)
        is_of_resume = not rows and bool(read_rows(self._csv))  # as for the event file
        for name, file, found, is_new in (
            (PROGRESS, self._csv, progress_checksum(folder, first_iteration), is_of_resume),
            (EVENTS, self._events.path, self._events.checksum, self._events.is_of_resume),
        ):
            if checksums is None or found == checksums[name] or is_new:
                continue
            if file.exists():
                raise UsageError(
                    f"--resume {folder}: its {file.name} is damaged; must be the file that this "
                    "run wrote; restore it, or move it away and the resumed run starts a new one"
                )
            if name == PROGRESS:  # the event file has the same numbers
                print(
                    f"warning: --resume {folder}: its {PROGRESS} is missing, so a new one starts "
                    f"at iteration {first_iteration}; to keep the old rows, stop and restore it",
                    file=sys.stderr,
                )
        self._checksum = _checksum(rows)
        self._columns = list(rows[0]) if rows else []
        if rows:
            write_rows(self._csv, self._columns, rows)
        else:
            self._csv.unlink(missing_ok=True)
        self._tracker: Tracker | None = None
        if track:
            self._tracker = Tracker(track, folder)
            for row in rows:  # the run did not send them if it was killed, or began without --track
                scalars = {name: float(cell) for name, cell in row.items() if cell}
                self._tracker.record(scalars, int(scalars.pop(ITERATION)))
        self._events.open()

    def state_dict(self) -> dict[str, int]:
        """Write the log files to the disk and return their checksums.

        A checkpoint never has more iterations than the log files, even after a power cut.
        """
        for file in (self._csv, self._events.path):
            if file.exists():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        return {PROGRESS: self._checksum, EVENTS: self._events.checksum}

    def record(self, scalars: Mapping[str, float], iteration: int, verbose: bool = False) -> None:
        """Write the scalars of an iteration to all logs; if `verbose`, also print them."""
        self._events.add_scalars(dict(scalars), iteration)
        self._append_row({ITERATION: iteration, **scalars})
        if self._tracker is not None:
            self._tracker.record(scalars, iteration)
        if verbose:
            width = max(map(len, scalars))
            lines = [f"  {name:<{width}}  {value:.6g}" for name, value in scalars.items()]
            print("\n".join(lines), flush=True)

    def record_video(self, tag: str, frames: Frames, fps: float, iteration: int) -> Path:
        """Write frames (height, width, 3) to videos/ and to TensorBoard.

        Return the path of the mp4. Raises OSError: the encoder failed or the disk is full.
        """
        folder = self.folder / "videos"
        folder.mkdir(exist_ok=True)
        file = folder / f"{tag}_itr_{iteration}.mp4"
        write_video(file, frames, fps)
        small = small_frames(frames, fps)
        self._events.add_video(tag, encode_gif(small, fps), small, iteration)
        if self._tracker is not None:
            self._tracker.record_video(tag, file, iteration)
        return file

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(failed=kind is not None)

    def close(self, failed: bool = False) -> None:
        """Close the log; `failed`: an exception ends the run."""
        with contextlib.suppress(OSError):  # each write was flushed, or raised its error
            self._events.close()
        if self._tracker is not None:
            self._tracker.close(failed)

    def _append_row(self, row: dict[str, float]) -> None:
        self._checksum = _checksum([row], self._checksum)
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:  # a metric that starts later has empty cells in the earlier rows
            self._columns += new_columns
            write_rows(self._csv, self._columns, [*read_rows(self._csv), row])
            return
        with self._csv.open("a", newline="") as file:
            _writer(file, self._columns).writerow(row)


def to_floats(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the last value of each curve (steps,) or value (); this waits once for the device.

    Raises RunError: a metric is no tensor of numbers, or an empty one.
    """
    if not metrics:
        return {}
    for name, curve in metrics.items():
        if not isinstance(curve, Tensor) or curve.numel() == 0 or curve.is_complex():
            raise RunError(
                f"the agent returned the metric {name} as {type(curve).__name__} of shape "
                f"{np.shape(curve)}; must be a tensor (steps,) or ()"
            )
    last = torch.stack([curve.reshape(-1)[-1].double() for curve in metrics.values()])
    return dict(zip(metrics, last.tolist(), strict=True))


def read_rows(file: Path, rename: Callable[[str], str] = current_metric) -> list[dict[str, str]]:
    """Return the complete rows of a progress.csv under current names; [] without such a file.

    Rows that a kill or a power cut left incomplete are skipped. Raises UsageError: the file is
    unreadable or too large.
    """
    with reading(str(file), f"the {PROGRESS} that a run wrote"):
        try:
            header, *lines = read_table(file, is_growing=True) or [[]]
        except FileNotFoundError:  # not written yet, or a resumed run is replacing it
            return []
    names = list(map(rename, header))
    rows = [dict(zip(names, cells, strict=True)) for cells in lines if len(cells) == len(names)]
    return [row for row in rows if _is_row(row)]


def progress_checksum(folder: Path, first_iteration: int) -> int:
    """Return the checksum of a run's rows before `first_iteration` (see Logger.state_dict)."""
    return _checksum(rows_before(folder / PROGRESS, first_iteration, str))


def rows_before(
    file: Path, first_iteration: int, rename: Callable[[str], str] = current_metric
) -> list[dict[str, str]]:
    """Return the rows of the iterations before `first_iteration` (see read_rows)."""
    return [row for row in read_rows(file, rename) if int(row[ITERATION]) < first_iteration]


def last_row(file: Path) -> dict[str, str]:
    """Return the last complete row of a progress.csv, or {} if there is none or it is damaged."""
    try:
        rows = read_rows(file)
    except UsageError:
        return {}
    return {name: cell for row in rows[-1:] for name, cell in row.items() if cell}


def _checksum(rows: Sequence[Mapping[str, object]], before: int = 0) -> int:
    """Return the checksum of rows; `before` is the checksum of the rows before them.

    It does not depend on the order of the columns, nor on columns without a value.
    """
    for row in rows:
        cells = sorted(f"{name}={cell}" for name, cell in row.items() if cell != "")
        before = zlib.crc32("\n".join(cells).encode(), before)
    return before


def _is_row(row: Mapping[str, str]) -> bool:
    """Return whether a row has an iteration, and numbers or nothing in its other cells."""
    iteration = row.get(ITERATION, "")
    if not (iteration.isdecimal() and len(iteration) < 20):
        return False
    try:
        return all(isinstance(float(cell or 0), float) for cell in row.values())
    except ValueError:
        return False


def write_rows(file: Path, columns: list[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file, or replace it, in one step."""
    with replacing(file) as stream:
        writer = _writer(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def _writer(stream: TextIO, columns: list[str]) -> csv.DictWriter:
    return csv.DictWriter(stream, columns, lineterminator="\n")
