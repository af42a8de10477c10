"""Tests of reading a submission: zips and folders that are damaged, huge or hostile."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cs285.assignment.blanks import choose_blanks
from cs285.assignment.grading import Verdict
from cs285.assignment.submission import LARGEST_SOURCE, opened, rejected, results
from cs285.infrastructure.errors import UsageError

FILE = "models/losses.py"
NAME = f"cs285/{FILE}"


def make_zip(path: Path, entries: dict[str, Any], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def read(path: Path, file: str = FILE) -> str:
    with opened(path) as source:
        return source(file)


@pytest.mark.parametrize("prefix", ["", "hw4/", "My work é/"])
def test_text_is_found_below_one_folder(prefix: str, tmp_path: Path) -> None:
    names = {f"{prefix}{NAME}": "x = 1\r\n", "__MACOSX/cs285/models/losses.py": "junk"}
    assert read(make_zip(tmp_path / "submit.zip", names)) == "x = 1\n"


def test_files_outside_the_package_are_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("secret")
    entries = {f"../{NAME}": "evil", f"/{NAME}": "evil", NAME: "fine", "../../x": "evil"}
    file = make_zip(tmp_path / "submit.zip", entries)
    assert read(file) == "fine"
    with pytest.raises(ValueError, match="is not in the submission"):
        read(file, "../../secret.py")
    with pytest.raises(UsageError, match="no folder cs285"):
        read(make_zip(tmp_path / "other.zip", {f"../{NAME}": "evil"}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.zip", "secret.py", "submit.zip"]


def test_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo(NAME)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "submit.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link; must be a file"):
        read(tmp_path / "submit.zip")


def test_bomb_is_not_inflated(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "submit.zip", {NAME: b"#" * 50 * LARGEST_SOURCE})
    assert file.stat().st_size < LARGEST_SOURCE
    with pytest.raises(ValueError, match="is larger than 200 kB"):
        read(file)
    lying = bytearray(file.read_bytes())  # the directory declares 100 bytes
    size = (50 * LARGEST_SOURCE).to_bytes(4, "little")
    assert lying.count(size) == 2
    file.write_bytes(bytes(lying).replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="damaged"):
        read(file)


def test_declared_size_of_two_gigabytes_is_refused(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "submit.zip", {NAME: "x" * 12345})
    size = (12345).to_bytes(4, "little")
    file.write_bytes(file.read_bytes().replace(size, (2 * 10**9).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="is larger than 200 kB"):
        read(file)


@pytest.mark.parametrize(
    ("method", "message"),
    [(zipfile.ZIP_LZMA, "unusual method"), (zipfile.ZIP_BZIP2, "unusual method")],
)
def test_other_compressions_are_refused(method: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(make_zip(tmp_path / "submit.zip", {NAME: "x"}, method))


def test_encrypted_and_damaged_entries(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "submit.zip", {NAME: "x = 1\n" * 50}, zipfile.ZIP_STORED)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"x = 1", b"x = 2", 1))
    with pytest.raises(ValueError, match="damaged"):
        read(file)
    central = whole.index(b"PK\x01\x02")
    flagged = bytearray(whole)
    flagged[central + 8] |= 1
    file.write_bytes(bytes(flagged))
    with pytest.raises(ValueError, match="is encrypted"):
        read(file)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        read(make_zip(tmp_path / "submit.zip", {NAME: b"\xff\xfe\x00"}))


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2 * 10**9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "not a zip file"),
        (lambda path: path.write_text("no zip"), "not a zip file"),
        (lambda path: path.write_bytes(b"PK\x05\x06" + b"\0" * 18), "no folder cs285"),
        (lambda path: make_zip(path, {"README.md": "x"}), "no folder cs285"),
        (lambda path: make_zip(path, {str(n): "" for n in range(20_001)}), "20001 entries"),
        (sparse, "2000 MB; must be a zip of at most 100 MB"),
        (os.mkfifo, "Not a regular file"),
        (lambda path: path.mkdir(), "no folder cs285"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
    ],
)
def test_what_is_no_submission_is_one_line(
    make: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "submit.zip")
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "submit.zip")
    text = str(caught.value)
    assert message in text
    assert text.startswith("--submission ")
    assert "\n" not in text


def test_folder_is_read_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("secret")
    models = tmp_path / "submission" / "hw4" / "cs285" / "models"
    models.mkdir(parents=True)
    (models / "losses.py").write_text("x = 1\n")
    assert read(tmp_path / "submission") == "x = 1\n"
    (models / "gp.py").symlink_to(tmp_path / "secret.py")
    os.mkfifo(models / "bfgs.py")
    (models / "large.py").write_text("#" * (LARGEST_SOURCE + 1))
    (models.parent / "agents").symlink_to(tmp_path)
    for file, message in (
        ("models/gp.py", "is a link"),
        ("models/bfgs.py", "regular file"),
        ("models/large.py", "is larger than 200 kB"),
        ("agents/secret.py", "is a link"),
        ("models/none.py", "is not in the submission"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "submission", file)


def test_results_have_gradescopes_form() -> None:
    one, other = choose_blanks(["q1.loss", "q5.icem"])
    content = results([Verdict(one, "wrong", "why"), Verdict(other, "passed", "")], ["note"], 3.21)
    assert content["execution_time"] == 3.2
    assert content["output"] == "1 of 2 checks passed.\nnote"
    assert "score" not in content  # the sum of the tests
    skipped = results([Verdict(one, "wrong", "why"), Verdict(other, "not begun", "")], [], 3.21)
    assert skipped["output"] == "0 of 1 checks passed."
    assert skipped["tests"][1]["output"] == "not begun (optional)"
    loss, icem = content["tests"]
    assert (loss["score"], loss["max_score"], loss["status"]) == (0, one.points, "failed")
    assert (icem["score"], icem["max_score"], icem["status"]) == (0, 0, "passed")
    assert (loss["name"], loss["number"], loss["output"]) == ("q1.loss", "1.1", "wrong: why")
    allowed = {"score", "max_score", "status", "name", "number", "output", "tags", "visibility"}
    assert set(loss) <= allowed
    assert {test["visibility"] for test in content["tests"]} == {"visible"}
    assert rejected("no zip") == {
        "score": 0,
        "output": "no zip",
        "stdout_visibility": "hidden",
        "tests": [],
    }
