"""Tests of reading files that others may have written."""

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cs285.infrastructure import files
from cs285.infrastructure.errors import UsageError, one_line, printable
from cs285.infrastructure.files import (
    open_regular,
    read_arrays,
    read_json,
    read_table,
    read_toml,
    reading,
)
from cs285.infrastructure.value_types import check_types, has_type


def write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A FIFO without a writer would block, and a device may never end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("fifo", "device", "loop", "nowhere", "."):
        with pytest.raises(OSError):
            open_regular(tmp_path / name)
    (tmp_path / "link").symlink_to(write(tmp_path / "file", "text"))
    with open_regular(tmp_path / "link") as stream:
        assert stream.read() == b"text"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged"),
        ('{"a": 1', "damaged"),
        (b"\xff", "not UTF-8"),
        ("[" * 10**5, "nested too deeply"),
        ('{"a":' * 25 + "1" + "}" * 25, "nested too deeply"),
        ("[1]", "not an object"),
        ('{"a": "' + "x" * 10_000 + '"}', "larger than 4 kB"),
    ],
)
def test_damaged_json(
    content: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "larger" in message:
        monkeypatch.setattr(files, "LARGEST_TEXT", 4096)
    with pytest.raises(ValueError, match=rf"a.json .*{message}"):
        read_json(write(tmp_path / "a.json", content))


def test_bounds_leave_room_for_every_list_and_result() -> None:
    """The largest files of the project are read unchanged."""
    root = Path(__file__).parents[2]
    for file in root.glob("results/*/*.json"):
        assert read_json(file) == json.loads(file.read_text())
    assert read_toml(root / "cs285" / "experiments" / "homework.toml")["experiment"]


def test_dotted_keys_of_a_thousand_parts_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 100 dots"):
        read_toml(write(tmp_path / "a.toml", ".".join("a" * 20_000) + " = 1"))


def test_table_of_a_growing_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "a,b\n1,2\n\0\0\n3,4\n5")
    assert read_table(file, is_growing=True) == [["a", "b"], ["1", "2"], ["3", "4"]]
    with pytest.raises(ValueError, match=r"a.csv is not a CSV"):
        read_table(write(file, "x" * 200_000))


def test_arrays(tmp_path: Path) -> None:
    file, stream = tmp_path / "a.npz", io.BytesIO()
    np.savez(stream, a=np.arange(3), error=2.5)
    arrays = read_arrays(write(file, stream.getvalue()))
    assert arrays["a"].tolist() == [0, 1, 2] and float(arrays["error"]) == 2.5
    np.save(tmp_path / "a.npy", np.ones(2))
    assert read_arrays(tmp_path / "a.npy")[""].tolist() == [1, 1]
    objects = io.BytesIO()
    np.save(objects, np.array([object()]), allow_pickle=True)
    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}"
    for content in (
        b"",
        stream.getvalue()[:-30],
        objects.getvalue(),
        b"\x93NUMPY\x01\0v\0" + shape.ljust(117) + b"\n",
    ):
        with pytest.raises(ValueError, match=r"a.npz is damaged"):
            read_arrays(write(file, content))


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True), (True, int, False), (1.0, int, False), (1, float, True), ("1", int, False),
        (float("nan"), float, False), (float("inf"), float, False), (None, int | None, True),
        (None, int, False), (["a"], list[str], True), ([1], list[str], False),
        (("a",), tuple[str, ...], True), ({"a": 1}, dict[str, int], True),
        ({"a": "b"}, dict[str, int], False), ([], dict[str, int], False), ([[]], Any, True),
    ],
)  # fmt: skip
def test_types(value: Any, hint: Any, expected: bool) -> None:
    assert has_type(value, hint) is expected
    if not expected:
        with pytest.raises(ValueError, match=r"^key .*: must be "):
            check_types({"key": value, "unknown": 3}, {"key": hint})


def test_errors_name_the_argument_the_reason_and_what_it_must_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as found, reading("--x F", "a run"):
        read_json(tmp_path / "a.json")
    assert str(found.value) == "--x F: No such file or directory (a.json); must be a run"
    with (
        pytest.raises(UsageError, match=r"^--x F: it lacks 'b'; must be a run$"),
        reading("--x F", "a run"),
    ):
        read_json(write(tmp_path / "a.json", "{}"))["b"]


def test_text_for_a_terminal_has_no_control_characters() -> None:
    assert printable("é\x1b[31m\u202e\udc80\nx") == "é\\x1b[31m\\u202e\\udc80\nx"
    assert one_line(" a \n b\x07") == "a b\\x07"
    assert len(one_line("x" * 10**6)) < 2000 and re.fullmatch(r"x+ \.\.\. x+", one_line("x" * 9999))
