"""Read files that others may have written: bounded, without blocking, with one-line errors."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cs285.infrastructure.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEGABYTE = 2**20
LARGEST_TEXT = 4 * MEGABYTE
LARGEST_TOML = MEGABYTE // 4
LARGEST_TABLE = 256 * MEGABYTE
MOST_LEVELS = 20  # of nested objects and lists; deeper ones exceed Python's recursion limit later
MOST_DOTS = 100  # in a line of TOML; the parser's time is quadratic in the parts of a dotted key


class OtherFileError(ValueError):
    """A file is intact, but holds something else."""


@contextmanager
def reading(argument: str, must_be: str) -> Iterator[None]:
    """Turn the errors of reading and checking a file into a UsageError.

    The error is "`argument`: REASON; must be `must_be`".
    """
    try:
        yield
    except OSError as error:
        name = Path(str(error.filename or "")).name
        about = f" ({name})" if name and not argument.endswith(name) else ""
        raise UsageError(
            f"{argument}: {error.strerror or error}{about}; must be {must_be}"
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UsageError(f"{argument}: {reason}; must be {must_be}") from error


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises OSError: it is something else, such as a FIFO, which would block, or an endless device.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
        reason = os.strerror(code) if code == errno.EISDIR else "Not a regular file"
        raise OSError(code, reason, str(file))
    return os.fdopen(descriptor, "rb")


def is_inside(file: Path, folder: Path) -> bool:
    """Return whether a file belongs to `folder` also after all links have been followed."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises OSError: the file cannot be read. Raises ValueError: it is too large, nested too deeply,
    or damaged.
    """
    return _parsed(file, LARGEST_TEXT, json.loads)


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises: see `read_json`."""

    def parse(text: str) -> dict[str, Any]:
        if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"a line has more than {MOST_DOTS} dots")
        return tomllib.loads(text)

    return _parsed(file, LARGEST_TOML, parse)


def read_table(file: Path, is_growing: bool = False) -> list[list[str]]:
    """Return the lines of a CSV as lists of cells. The first line is the header.

    Lines that a kill or a power cut left incomplete are dropped if the file `is_growing`.

    Raises OSError: the file cannot be read. Raises ValueError: it is too large or not a CSV.
    """
    text = _read_text(file, LARGEST_TABLE, "replace" if is_growing else "strict")
    lines: Iterator[str] = io.StringIO(text, newline="")
    if is_growing:
        lines = (line for line in lines if line.endswith("\n") and "\0" not in line)
    try:
        return list(csv.reader(lines))
    except csv.Error as error:
        raise ValueError(f"{file.name} is not a CSV ({error})") from error


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays in an .npz file by name; the array in an .npy file has the name "".

    Raises OSError: the file cannot be read. Raises ValueError: it is damaged or too large.
    """
    import numpy as np  # here, because --help imports this module

    try:
        with open_regular(file) as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            if sum(entry.file_size for entry in loaded.zip.infolist()) > LARGEST_TABLE:
                raise ValueError("too large")
            return dict(loaded)
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file.name} is damaged ({error})") from error


def _read_text(file: Path, at_most: int, errors: str = "strict") -> str:
    with open_regular(file) as stream:
        content = stream.read(at_most + 1)
    if len(content) > at_most:
        raise ValueError(f"{file.name} is larger than {at_most // 1024} kB")
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not UTF-8 text") from error


def _parsed(file: Path, at_most: int, parse: Callable[[str], Any]) -> dict[str, Any]:
    text, too_deep = _read_text(file, at_most), f"{file.name} is nested too deeply"
    try:
        content = parse(text)
    except RecursionError as error:
        raise ValueError(too_deep) from error
    except ValueError as error:
        raise ValueError(f"{file.name} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise OtherFileError(f"{file.name} is not an object")
    layer: list[Any] = [content]  # a loop, because recursion would fail
    for _ in range(MOST_LEVELS):
        inside = [each.values() if isinstance(each, dict) else each for each in layer]
        layer = [value for each in inside for value in each if isinstance(value, dict | list)]
    if layer:
        raise ValueError(too_deep)
    return content
