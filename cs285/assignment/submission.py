"""Grade a submission without trusting it.

Only the source text of the blanks' functions is used. Each is grafted alone into a copy of the
finished package, whose check runs in a process with limits. Nothing is extracted or imported here.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from cs285.assignment.blanks import MISTAKES, PACKAGE, PASSED, QUESTIONS, WRONG, Blank
from cs285.assignment.grading import Verdict, counted, look, run_checks, start_worker
from cs285.assignment.source import graft
from cs285.cli.outputs import FILE, writing
from cs285.cli.script import temporary_beside
from cs285.infrastructure.errors import RunError, UsageError
from cs285.infrastructure.files import is_inside, open_regular
from cs285.infrastructure.value_types import shortened

MEGABYTE = 10**6
LARGEST_ZIP = 100 * MEGABYTE
LARGEST_SOURCE = MEGABYTE // 5  # of a file of the package; its syntax tree takes 100 MB
MOST_ENTRIES = 20_000  # in a zip
MUST_BE = "must be a zip of at most 100 MB, or a folder, with the folder cs285 in it"
ABSENT = "is not in the submission"
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # other methods may need much memory


class AbsentError(ValueError):
    """A submission does not have a file."""


class Source(Protocol):
    """A submission: the text of a file of the package by its name.

    Raises AbsentError: there is no such file. Raises ValueError: it has no text.
    """

    def __call__(self, file: str) -> str: ...


@dataclass(frozen=True)
class Limits:
    """The limits of the process that runs a check."""

    seconds: float = 20.0  # wall-clock time
    memory_mb: int = 1000  # data segment; the checks need 220
    user: str | None = None  # runs the process, which only root can choose

    @property
    def resources(self) -> dict[str, int]:
        """The limits by their names in the module `resource`."""
        return {
            "RLIMIT_CPU": int(self.seconds) + 60,  # the import of torch counts, too
            "RLIMIT_DATA": self.memory_mb * MEGABYTE,
            "RLIMIT_FSIZE": MEGABYTE,
            "RLIMIT_NOFILE": 256,
            "RLIMIT_NPROC": 0,  # no children, and no threads
            "RLIMIT_CORE": 0,
        }


def grade_submission(path: Path, blanks: Sequence[Blank], limits: Limits) -> Iterator[Verdict]:
    """Yield the verdict on each blank of a submission, in order.

    Raises UsageError: `path` is no submission. Raises RunError: the finished code does not pass in
    the process with limits.
    """
    with opened(path) as source:
        texts, problems = _read_texts(source, blanks)
        found = {blank.id: _look(blank, texts, problems) for blank in blanks}
    to_run = [blank for blank in blanks if found[blank.id] is None]
    with tempfile.TemporaryDirectory(prefix="grade_", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)  # another user runs the checks
        if to_run:
            for verdict in _run(folder / "finished", {}, to_run, limits):
                if verdict.status != PASSED:
                    raise RunError(
                        f"the finished code does not pass {verdict.blank.id} here "
                        f"({verdict.status}: {verdict.message}); raise --seconds or --memory_mb"
                    )
        for blank in blanks:
            known = found[blank.id]
            yield known or _run_grafted(folder / blank.id, texts, blank, limits)


def check_user(name: str) -> None:
    """Raise UsageError unless processes can run as this user."""
    import pwd  # not on every system

    try:
        account = pwd.getpwnam(name)
    except KeyError as error:
        raise UsageError(f"--user {name}: must be a user of this system") from error
    if os.geteuid() not in (0, account.pw_uid):
        raise UsageError(f"--user {name}: must be given as root, to run code as another user")


def edited_checks(path: Path) -> list[str]:
    """Return the files of cs285/assignment that a submission has changed; they are ignored."""
    edited = []
    with opened(path) as source:
        for file in sorted((PACKAGE / "assignment").rglob("*")):
            if file.suffix in {".py", ".toml"} and file.name != MISTAKES:
                name = file.relative_to(PACKAGE).as_posix()
                try:
                    is_same = source(name).split() == file.read_text().split()
                except AbsentError:
                    continue
                except ValueError:
                    is_same = False
                if not is_same:
                    edited.append(f"cs285/{name}")
    return edited


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Yield the texts of a submission. Raises UsageError: it is no zip and no folder, or large."""
    about = f"--submission {path}"
    if path.is_dir():
        roots = [root for root in (path, *sorted(path.iterdir())) if (root / "cs285").is_dir()]
        if not roots:
            raise UsageError(f"{about}: no folder cs285; {MUST_BE}")
        yield functools.partial(_text_in_folder, roots[0])
        return
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(open_regular(path))
            size = os.fstat(stream.fileno()).st_size
            if size > LARGEST_ZIP:
                raise UsageError(f"{about}: {size / MEGABYTE:.0f} MB; {MUST_BE}")
            archive = stack.enter_context(zipfile.ZipFile(stream))
            prefix = _prefix(archive, about)
        except OSError as error:
            raise UsageError(f"{about}: {error.strerror or error}; {MUST_BE}") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise UsageError(f"{about}: {shortened(error)}; {MUST_BE}") from error
        yield functools.partial(_text_in_zip, archive, prefix)


def results(verdicts: Sequence[Verdict], notes: Sequence[str], seconds: float) -> dict[str, Any]:
    """Return the content of Gradescope's results.json."""
    tests: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    for blank, status, message in verdicts:
        number = numbers[blank.question] = numbers.get(blank.question, 0) + 1
        passed = status == PASSED
        shown = f"{status} (optional)" if blank.is_optional else status
        tests.append(
            {
                "name": blank.id,
                "number": f"{blank.question[1:]}.{number}",
                "score": blank.points if passed else 0,
                "max_score": blank.points,
                "status": "passed" if passed else "failed",
                "output": f"{shown}: {message}" if message else shown,
                "tags": [QUESTIONS[blank.question]],
                "visibility": "visible",
            }
        )
    counting = counted(verdicts)
    passed_count = sum(verdict.status == PASSED for verdict in counting)
    lines = [f"{passed_count} of {len(counting)} checks passed.", *notes]
    return {
        "tests": tests,
        "output": "\n".join(lines),
        "execution_time": round(seconds, 1),
        "stdout_visibility": "hidden",
    }


def rejected(message: str) -> dict[str, Any]:
    """Return the content of results.json for something that is no submission."""
    return {"score": 0, "output": message, "stdout_visibility": "hidden", "tests": []}


def write_results(file: Path, content: dict[str, Any]) -> None:
    """Write results.json atomically. Raises UsageError: it cannot be written."""
    with writing(f"--results {file}", FILE), temporary_beside(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.replace(file)


def _read_texts(source: Source, blanks: Sequence[Blank]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts of the blanks' files, and the problems of those that have none."""
    texts, problems = {}, {}
    for file in {cut.file for blank in blanks for cut in blank.cuts}:
        try:
            texts[file] = source(file)
        except ValueError as error:
            texts[file], problems[file] = "", f"cs285/{file}: {error}"
    return texts, problems


def _look(blank: Blank, texts: dict[str, str], problems: dict[str, str]) -> Verdict | None:
    for cut in blank.cuts:
        if cut.file in problems:
            return Verdict(blank, WRONG, problems[cut.file])
    return look(blank, texts)


def _run_grafted(tree: Path, texts: dict[str, str], blank: Blank, limits: Limits) -> Verdict:
    """Graft the answer of one blank into a copy of the finished package, and run its check."""
    changed = {}
    for file in {cut.file for cut in blank.cuts}:
        cuts = [cut for cut in blank.cuts if cut.file == file]
        try:
            changed[file] = graft((PACKAGE / file).read_text(), texts[file], cuts)
        except ValueError as error:
            return Verdict(blank, WRONG, f"cs285/{file}: {error}")
    (verdict,) = _run(tree, changed, [blank], limits)
    return verdict


def _run(
    tree: Path, changed: dict[str, str], blanks: Sequence[Blank], limits: Limits
) -> Iterator[Verdict]:
    """Run checks in a copy of the finished package in which some files are changed."""
    started = time.time()
    shutil.copytree(PACKAGE, tree / "cs285", ignore=_ignored)
    for file, text in changed.items():
        (tree / "cs285" / file).write_text(text)
        os.utime(tree / "cs285" / file, (started, started))
    home = tree / "home"
    home.mkdir()
    options: dict[str, Any] = {"stderr": subprocess.DEVNULL}
    if limits.user is not None and os.geteuid() == 0:
        shutil.chown(home, limits.user)
        options |= {"user": limits.user, "group": _group_of(limits.user), "extra_groups": []}
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    paths = {"PYTHONPATH": str(tree), "HOME": str(home), "TMPDIR": str(home)}
    options["env"] = {**environment, **paths, "OMP_NUM_THREADS": "1"}
    try:
        start = functools.partial(start_worker, **options)
        yield from run_checks(tree, blanks, limits.seconds, start, limits.resources)
    except (PermissionError, LookupError) as error:
        raise RunError(f"--user {limits.user}: cannot start the checks ({error})") from error
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _ignored(folder: str, names: list[str]) -> set[str]:
    unwanted = {"data"} if Path(folder) == PACKAGE else set()
    return unwanted & set(names)


def _group_of(user: str) -> int:
    import pwd  # not on every system

    return pwd.getpwnam(user).pw_gid


def _text_in_folder(root: Path, file: str) -> str:
    path = root / "cs285" / file
    if path.is_symlink() or not is_inside(path, root):
        raise ValueError("is a link; must be a file")
    try:
        with open_regular(path) as stream:
            content = stream.read(LARGEST_SOURCE + 1)
    except FileNotFoundError:
        raise AbsentError(ABSENT) from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    return _decoded(content)


def _text_in_zip(archive: zipfile.ZipFile, prefix: str, file: str) -> str:
    try:
        info = archive.getinfo(f"{prefix}cs285/{file}")
    except KeyError:
        raise AbsentError(ABSENT) from None
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError("is a link; must be a file")
    if info.flag_bits & 1:
        raise ValueError("is encrypted")
    if info.compress_type not in PLAIN:
        raise ValueError("is compressed by an unusual method; must be deflated or stored")
    if info.file_size > LARGEST_SOURCE:
        raise ValueError(f"is larger than {LARGEST_SOURCE // 1000} kB")
    try:
        with archive.open(info) as stream:
            content = stream.read(LARGEST_SOURCE + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise ValueError(f"is damaged ({shortened(error)})") from error
    return _decoded(content)


def _decoded(content: bytes) -> str:
    if len(content) > LARGEST_SOURCE:
        raise ValueError(f"is larger than {LARGEST_SOURCE // 1000} kB")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text") from error


def _prefix(archive: zipfile.ZipFile, about: str) -> str:
    """Return the path of the folder that contains cs285 in a zip, "" or "NAME/"."""
    names = archive.namelist()
    if len(names) > MOST_ENTRIES:
        raise UsageError(f"{about}: {len(names)} entries; {MUST_BE}")
    found = [match[1] for name in names if (match := re.match(r"((?:[^/]+/)?)cs285/", name))]
    found = [prefix for prefix in found if ".." not in PurePosixPath(prefix).parts]
    found = [prefix for prefix in found if prefix != "__MACOSX/"]
    if not found:
        raise UsageError(f"{about}: no folder cs285; {MUST_BE}")
    return min(found, key=len)
