"""One TensorBoard event file, written record by record, so that a resumed run goes on in it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter, masked_crc32c

_HEADER = struct.Struct("<QI")  # length, checksum of the length
_FOOTER = struct.Struct("<I")  # checksum of the data


class EventFile:
    """Appends to the folder's event file; tensorboardX's own writer can only start a new one."""

    def __init__(self, folder: Path, first_iteration: int) -> None:
        """Open the folder's file, keeping the events of iterations before `first_iteration`."""
        old = sorted(folder.glob("events.out.tfevents.*"))
        self.path = old[-1] if old else folder / f"events.out.tfevents.{int(time.time())}.cs285"
        kept = [event for event in read_events(self.path) if event.step < first_iteration]
        temporary = folder / ".events.tmp"
        self._writer = RecordWriter(str(temporary))
        for event in kept or [Event(wall_time=time.time(), file_version="brain.Event:2")]:
            self._writer.write(event.SerializeToString())
        self._writer.flush()
        temporary.replace(self.path)  # the open file follows its new name

    def add_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Append one event with every scalar of this step."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(values, step)

    def add_video(self, tag: str, gif: bytes, frames: NDArray[np.uint8], step: int) -> None:
        """Append an animated GIF of `frames` (T, height, width, 3) as TensorBoard shows videos."""
        _, height, width, _ = frames.shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        self._write([Summary.Value(tag=tag, image=image)], step)

    def close(self) -> None:
        self._writer.close()

    def _write(self, values: list[Summary.Value], step: int) -> None:
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of a file up to its end, or to the first record that is cut or corrupt."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, _ = _HEADER.unpack(header)
            data, footer = file.read(length), file.read(_FOOTER.size)
            if len(footer) < _FOOTER.size or _FOOTER.unpack(footer)[0] != masked_crc32c(data):
                return
            yield Event.FromString(data)
