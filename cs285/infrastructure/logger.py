"""What a run leaves behind: TensorBoard events, progress.csv, videos, and lines on the terminal."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import imageio.v2 as imageio
import imageio.v3 as iio
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.event_file import EventFile
from cs285.infrastructure.run_folder import PROGRESS

ITERATION = "Iteration"
GIF_STRIDE = 4  # TensorBoard's GIF shows every fourth frame; the mp4 shows all


class Logger:
    """Records scalars and videos of a run in its log folder, now and after a resume alike."""

    def __init__(self, folder: Path, first_iteration: int = 0) -> None:
        """Open the folder's records, dropping what they hold of `first_iteration` and later."""
        self.folder = folder
        self._csv = folder / PROGRESS
        logged = read_rows(self._csv)
        rows = [row for row in logged if int(row[ITERATION]) < first_iteration]
        if first_iteration > 0 and not logged and self._csv.exists():
            raise UsageError(
                f"--resume {folder}: its {PROGRESS} is damaged; allowed: one that this run wrote, "
                "or none: a new one then begins where the run goes on"
            )
        self._columns = list(rows[0]) if rows else []
        if rows:
            _write_rows(self._csv, self._columns, rows)
        else:
            self._csv.unlink(missing_ok=True)
        self._events = EventFile(folder, first_iteration)

    def record(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Write the scalars of an iteration everywhere; the terminal gets one line each."""
        self._events.add_scalars(dict(scalars), iteration)
        self._append_row({ITERATION: iteration, **scalars})
        width = max(map(len, scalars))
        lines = [f"  {name:<{width}}  {value:.6g}" for name, value in scalars.items()]
        print("\n".join(lines), flush=True)

    def record_video(
        self, tag: str, frames: Sequence[NDArray[np.uint8]], fps: int, iteration: int
    ) -> Path:
        """Write frames (height, width, 3) as mp4 in videos/ and to TensorBoard; returns the mp4."""
        folder = self.folder / "videos"
        folder.mkdir(exist_ok=True)
        file = folder / f"{tag}_itr_{iteration}.mp4"
        imageio.mimwrite(file, list(frames), fps=fps, macro_block_size=2, ffmpeg_log_level="error")
        small = np.stack([frame[::2, ::2] for frame in frames[::GIF_STRIDE]])
        milliseconds = 1000 * GIF_STRIDE / fps
        gif = iio.imwrite("<bytes>", small, extension=".gif", duration=milliseconds, loop=0)
        assert gif is not None
        self._events.add_video(tag, gif, small, iteration)
        return file

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every record was flushed, or its failure raised
            self._events.close()

    def _append_row(self, row: dict[str, float]) -> None:
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:  # a metric that starts later: give the earlier rows an empty cell
            self._columns += new_columns
            _write_rows(self._csv, self._columns, [*read_rows(self._csv), row])
            return
        with self._csv.open("a", newline="") as file:
            _writer(file, self._columns).writerow(row)


def to_floats(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the last value of each curve (steps,), waiting once for the device."""
    last = torch.stack([curve[-1].double() for curve in metrics.values()])
    return dict(zip(metrics, last.tolist(), strict=True))


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the whole rows of a progress.csv; [] where there is none.

    What a kill or a power cut has left of others is passed over.
    """
    if not file.exists():
        return []
    with file.open(newline="", errors="replace") as stream:
        complete = [line for line in stream if line.endswith("\n") and "\0" not in line]
    return [row for row in csv.DictReader(complete) if (row.get(ITERATION) or "").isdecimal()]


def _write_rows(file: Path, columns: list[str], rows: Sequence[Mapping[str, object]]) -> None:
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", newline="") as stream:
        writer = _writer(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(file)


def _writer(stream: TextIO, columns: list[str]) -> csv.DictWriter:
    return csv.DictWriter(stream, columns, lineterminator="\n")
