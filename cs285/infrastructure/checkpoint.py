"""Checkpoints: writing is atomic; reading checks every byte and never runs code from the file."""

from __future__ import annotations

import os
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cs285.infrastructure.errors import RunError, UsageError
from cs285.infrastructure.files import open_regular
from cs285.infrastructure.interrupts import delayed_interrupts
from cs285.infrastructure.replacing import replacing
from cs285.infrastructure.run_folder import (
    CONFIG,
    PREVIOUS,
    checkpoint_name,
    flags_of,
    modules_in,
    run_id,
)

FORMAT = "cs285 checkpoint 5"
# What torch.load reads without running code: these types, but not their subclasses.
PLAIN = (torch.Tensor, torch.nn.Parameter, bool, int, float, complex, str, bytes, type(None))


class _Sink:
    """A file that stores its first write error, because torch.save would hide the error.

    Writes go straight to the disk, because a checkpoint with a model buffer may be gigabytes large.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self.stream.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing: `save_checkpoint` flushes the stream."""


def save_checkpoint(
    file: Path, state: dict[str, Any], owner: str | None = None, previous: Path | None = None
) -> None:
    """Write `state` (nested tensors and plain values) to `file`, atomically.

    `owner` is the id of the run that the state belongs to. The old content of `file` is kept as
    `previous`. An interrupt takes effect after the write. Raises OSError: the disk is full or not
    writable. Raises RunError: `load_checkpoint` would refuse a value. `file` then keeps its old
    content.
    """
    _check_plain(state, "")
    with delayed_interrupts(), replacing(file, "wb") as stream:
        sink = _Sink(stream)
        whole = {"format": FORMAT, "run_id": owner, "state": state}
        torch.save(whole, sink)  # type: ignore[arg-type]
        if sink.error is not None:
            raise sink.error
        stream.flush()
        os.fsync(stream.fileno())
        if previous is not None and file.exists():
            _keep(file, previous)


def _check_plain(value: Any, place: str) -> None:
    """Raise RunError, with the `place` in the state, if a value is not plain."""
    if type(value) in (dict, OrderedDict, Counter):
        for key, inner in value.items():
            _check_plain(key, f"{place} key {key!r}")
            _check_plain(inner, f"{place}[{key!r}]")
    elif type(value) in (list, tuple, torch.Size):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{place}[{number}]")
    elif type(value) not in PLAIN:
        raise RunError(
            f"cannot save state{place}, which is a {type(value).__name__}; must be a tensor, a "
            "number, text, None, or a list or dictionary of these"
        )


def _keep(file: Path, previous: Path) -> None:
    """Give the content of `file` the name `previous`, too, so that `file` never lacks content."""
    second_name = file.with_name(f".{previous.name}.tmp")
    second_name.unlink(missing_ok=True)
    try:
        second_name.hardlink_to(file)
    except OSError:  # the file system has no hard links
        file.replace(previous)
    else:
        second_name.replace(previous)


def read_checkpoint(
    folder: Path,
    device: torch.device | str,
    lazily: bool = False,
    argument: str = "--resume",
    which: str = "last",
) -> dict[str, Any]:
    """Return the state in a checkpoint of the run in `folder` (see `checkpoint_name`).

    `lazily` reads a tensor only when it is used. An error names the folder as the value of
    `argument`. Raises UsageError: the file is missing, damaged, of another version, or of another
    run; if the previous checkpoint is intact, the error says how to continue from it.
    """
    try:
        return load_checkpoint(
            folder / checkpoint_name(which), device, lazily, argument, run_id(folder)
        )
    except UsageError as error:
        if which != "last":
            raise
        try:
            earlier = read_checkpoint(folder, "cpu", True, argument, "previous")
            iterations = earlier["counters"]["next_iteration"]
        except (UsageError, KeyError, TypeError):
            raise error from None
        trust = " --trust" if modules_in(flags_of(folder)) else ""
        raise UsageError(
            f"{error}; {PREVIOUS} is intact: to continue from its iteration {iterations}, pass "
            f"--resume {folder}{trust} --checkpoint previous"
        ) from error


def load_checkpoint(
    file: Path,
    device: torch.device | str,
    lazily: bool = False,
    argument: str = "--resume",
    owner: str | None = None,
) -> dict[str, Any]:
    """Return the state that `save_checkpoint` wrote to `file`.

    `lazily` and `argument` are explained in `read_checkpoint`. Raises UsageError: `file` is
    unreadable, damaged, not a checkpoint of this format, or not of the run with the id `owner`.
    """
    about = f"{argument} {file.parent}: its {file.name}"
    try:
        _check_content(file)
        content = torch.load(file, map_location=device, weights_only=True, mmap=lazily)
    except OSError as error:
        raise UsageError(
            f"{argument} {file.parent}: cannot read its {file.name} ({error.strerror}); must be "
            "the log folder of a run with a checkpoint"
        ) from error
    except Exception as error:  # torch.load and zipfile raise errors of many types
        raise UsageError(
            f"{about} is truncated, corrupt or not a cs285 checkpoint; must be the log folder of a "
            "run with an intact checkpoint"
        ) from error
    written = content.get("format", "no format") if isinstance(content, dict) else "no format"
    if written != FORMAT or not isinstance(content.get("state"), dict):
        raise UsageError(
            f"{about} is from another version ({written}); must be a {FORMAT}; to use this run, "
            f"check out the commit in its {CONFIG}"
        )
    if owner is not None and content.get("run_id") != owner:
        raise UsageError(
            f"{about} is of another run; must be the checkpoint of the run in {CONFIG}"
        )
    return content["state"]


def _check_content(file: Path) -> None:
    """Raise ValueError if the bytes of a file do not match their checksums.

    torch.load does not compare them. Compressed content, which could fill the memory, is not from
    torch.save.
    """
    with open_regular(file) as stream, zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed")
        if sum(entry.file_size for entry in entries) > file.stat().st_size:
            raise ValueError("entries overlap")
        if damaged := archive.testzip():
            raise ValueError(damaged)
