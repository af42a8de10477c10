"""TensorBoard event files: write one, read one, and copy one without its videos."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter, masked_crc32c

from cs285.infrastructure.files import open_regular

_HEADER = struct.Struct("<QI")  # length of the data, checksum of the length
_FOOTER = struct.Struct("<I")  # checksum of the data
_MEDIA = ("image", "audio")  # tensorboardX stores videos as images, too: animated GIFs
_MEDIA_PLUGINS = ("images", "audio")  # TensorFlow 2 stores their media as tensors


class CorruptRecordError(Exception):
    """A record has a wrong checksum or content, so the rest of the file is unreliable."""


class Record(NamedTuple):
    """A record of an event file."""

    raw: bytes  # as in the file
    event: Event  # without its media, if the reader drops media
    dropped: int  # number of media values that were dropped from `event`

    def is_empty(self) -> bool:
        """Return whether all values of the event were dropped."""
        return self.dropped > 0 and not self.event.summary.value


class Copied(NamedTuple):
    """The result of `copy_without_media`."""

    dropped: int  # number of media values that were not copied
    is_corrupt: bool  # the copy ends before a corrupt record


class EventFile:
    """Appends to the folder's event file; tensorboardX's writer always starts a new one."""

    def __init__(self, folder: Path, first_iteration: int) -> None:
        """Read the events before `first_iteration` from the folder's file, if there is one."""
        old = sorted(folder.glob("events.out.tfevents.*"))
        self.path = old[-1] if old else folder / f"events.out.tfevents.{int(time.time())}.cs285"
        self._first_iteration = first_iteration
        events = list(read_events(self.path))
        self._kept = [e.SerializeToString() for e in events if e.step < first_iteration]
        # A resumed run started the file because the earlier one was missing.
        self.is_of_resume = bool(events) and not self._kept
        self.checksum = zlib.crc32(b"".join(self._kept))  # of all events in the file

    def open(self) -> None:
        """Open the file for new events, and remove those that were not read."""
        temporary = self.path.with_name(".events.tmp")
        self._writer = RecordWriter(str(temporary))
        if not self._kept:
            version = Event(file_version="brain.Event:2", step=self._first_iteration)
            version.wall_time = time.time()
            self._append(version)
        for data in self._kept:
            self._writer.write(data)
        self._writer.flush()
        temporary.replace(self.path)  # the open file follows its new name
        self._kept = []  # they may be megabytes of videos

    def add_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Append one event with all scalars of this step."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(values, step)

    def add_video(self, tag: str, gif: bytes, frames: NDArray[np.uint8], step: int) -> None:
        """Append the animated GIF of `frames` (T, height, width, 3), TensorBoard's video format."""
        _, height, width, _ = frames.shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        self._write([Summary.Value(tag=tag, image=image)], step)

    def close(self) -> None:
        self._writer.close()

    def _write(self, values: list[Summary.Value], step: int) -> None:
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()

    def _append(self, event: Event) -> None:
        data = event.SerializeToString()
        self._writer.write(data)
        self.checksum = zlib.crc32(data, self.checksum)


def is_event_file(path: Path) -> bool:
    """Return whether TensorBoard would read this path as an event file."""
    return "tfevents" in path.name and not path.name.startswith(".") and path.is_file()


def read_events(path: Path, media: bool = True) -> Iterator[Event]:
    """Yield the events of a file up to its end or to the first incomplete or corrupt record.

    Without `media`, the events have no images, videos or audio, and reading is much faster.
    """
    if not path.exists():
        return
    with contextlib.suppress(CorruptRecordError):
        for record in read_records(path, media):
            if not record.is_empty():
                yield record.event


def read_records(path: Path, media: bool = True) -> Iterator[Record]:
    """Yield the records of a file up to its end or to an incomplete last record.

    Without `media`, the events have no images, videos or audio. Raises CorruptRecordError: a
    record is corrupt. The data of dropped media are not checked.
    """
    media_tags: set[str] = set()
    with open_regular(path) as stream:
        size = path.stat().st_size
        while len(header := stream.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            _check(header[:-4], checksum)
            if length > size:  # incomplete, or the record claims more than the memory holds
                return
            data, footer = stream.read(length), stream.read(_FOOTER.size)
            if len(footer) < _FOOTER.size:
                return
            try:
                event = Event.FromString(data)
            except DecodeError as error:
                raise CorruptRecordError from error
            record = Record(header + data + footer, event, 0 if media else _drop(event, media_tags))
            if not record.is_empty():  # Python takes 10 s to check 100 MB of videos
                _check(data, *_FOOTER.unpack(footer))
            yield record


def copy_without_media(source: Path, target: IO[bytes]) -> Copied:
    """Copy an event file without images, videos and audio; copy other records byte for byte."""
    dropped = 0
    try:
        for record in read_records(source, media=False):
            dropped += record.dropped
            if not record.dropped:
                target.write(record.raw)
            elif not record.is_empty():
                target.write(_frame(record.event.SerializeToString()))
    except CorruptRecordError:
        return Copied(dropped, is_corrupt=True)
    return Copied(dropped, is_corrupt=False)


def _check(data: bytes, checksum: int) -> None:
    if masked_crc32c(data) != checksum:
        raise CorruptRecordError


def _frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    checksums = [_FOOTER.pack(masked_crc32c(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]


def _drop(event: Event, media_tags: set[str]) -> int:
    """Remove the media values from an event and return their number.

    `media_tags` collects the tags of media across the events of a file.
    """
    values = event.summary.value
    kept = [value for value in values if not _is_media(value, media_tags)]
    dropped = len(values) - len(kept)
    if dropped:  # CopyFrom would turn any other event into a summary
        event.summary.CopyFrom(Summary(value=kept))
    return dropped


def _is_media(value: Summary.Value, media_tags: set[str]) -> bool:
    if value.metadata.plugin_data.plugin_name in _MEDIA_PLUGINS:
        media_tags.add(value.tag)  # TensorFlow may name the plugin only in a tag's first value
    kind = value.WhichOneof("value")
    return kind in _MEDIA or (kind == "tensor" and value.tag in media_tags)
