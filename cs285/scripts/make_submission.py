"""Pack runs, code and README.md into the zip file for the assignment, without videos."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import cs285
from cs285.analysis.runs import read_csv
from cs285.cli.script import describe_os_error, run_script, temporary_beside, warn
from cs285.config.flags import OneLineParser
from cs285.infrastructure.errors import UsageError, printable
from cs285.infrastructure.files import is_inside, open_regular
from cs285.infrastructure.logger import ITERATION
from cs285.infrastructure.recording.event_file import copy_without_media, is_event_file
from cs285.infrastructure.run_folder import (
    CHECKPOINT,
    CONFIG,
    PROGRESS,
    default_data_dir,
    read_description,
)

SCRIPT = "make_submission.py"
QUESTIONS = ("q1", "q2", "q3", "q4", "q5", "q6")
RUNS = "named hw4_q1_... to hw4_q6_... and contain an event file"  # what a run folder must be
CODE = (".py", ".xml", ".typed", ".toml", ".ipynb")  # file types of the package
MEGABYTE = 10**6
_RUN = re.compile(r"hw4_q[1-6]_")
_STAMP = re.compile(r"_(\d\d)-(\d\d)-(\d{4})_(\d\d-\d\d-\d\d)$")  # day, month, year, time


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("submit.zip"), help="zip file (default: submit.zip)")
    add("--overwrite", action="store_true", help="replace the zip file if it exists")
    add("--data_dir", type=Path, default=default_data_dir(), help="folder with the log folders "
        "(default: cs285/data)")  # fmt: skip
    add("--runs", nargs="+", metavar="PATTERN", help="pack only log folders that match; * and ? "
        "are wildcards")  # fmt: skip
    add("--questions", nargs="+", choices=QUESTIONS, metavar="Q", help="pack only these questions: "
        "q1 q2 ... q6")  # fmt: skip
    add("--newest", action="store_true", help="pack only the newest run of each experiment")
    add("--limit_mb", type=_limit, default=15.0, help="maximum size in MB (default: 15)")
    given = parser.parse_args(argv)
    _check_output(given.output, given.overwrite)
    runs = choose_runs(given.data_dir, given.runs)
    questions = given.questions or QUESTIONS
    if given.questions:
        runs = [run for run in runs if question_of(run) in questions]
    if not runs:
        raise UsageError(
            f"--data_dir {given.data_dir}: no run of {', '.join(questions)}; must contain folders "
            f"that are {RUNS}"
        )
    if given.newest:
        runs = newest_of_each(runs)
    _warn_of_gaps(runs, questions)
    infos = write_zip({**files_of_runs(runs), **files_of_code()}, given.output, given.limit_mb)
    _print_table(infos)
    size = given.output.stat().st_size / MEGABYTE
    print(f"{given.output}: {size:.2f} MB of at most {given.limit_mb:g} MB")
    return 0


def _limit(text: str) -> float:
    try:
        if 0 < float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise UsageError(f"--limit_mb {text}: must be a positive, finite number")


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"--output {output}: must be a file in an existing folder")
    if output.exists() and not overwrite:
        raise UsageError(
            f"--output {output}: must not exist yet; choose another path or pass --overwrite"
        )


def choose_runs(data_dir: Path, patterns: Sequence[str] | None) -> list[Path]:
    """Return the runs in a folder that match one of the patterns. None matches all runs.

    Warn about matching folders that are not runs. Raises UsageError: the folder does not exist, or
    a pattern matches no run.
    """
    if not data_dir.is_dir():
        raise UsageError(f"--data_dir {data_dir}: no such folder; must contain log folders")
    folders = sorted(f for f in data_dir.iterdir() if f.is_dir() and not f.name.startswith("."))
    runs = [folder for folder in folders if _RUN.match(folder.name) and _events(folder)]
    for pattern in patterns or []:
        if not any(matches(run, [pattern]) for run in runs):
            raise UsageError(
                f"--runs {pattern}: no run in --data_dir {data_dir}; must match a folder that is "
                f"{RUNS}"
            )
    wanted = [folder for folder in folders if matches(folder, patterns)]
    left_out = [folder.name for folder in wanted if folder not in runs]
    if left_out:
        warn(f"skipped {', '.join(left_out)}; folders to pack must be {RUNS}")
    return [folder for folder in wanted if folder in runs]


def question_of(run: Path) -> str:
    """Return the question that a run belongs to, for example q1."""
    return run.name.split("_")[1]


def matches(folder: Path, patterns: Sequence[str] | None) -> bool:
    """Return whether the name or path of a folder matches one of the patterns. None matches all."""
    return patterns is None or any(
        fnmatchcase(folder.name, pattern)
        or fnmatchcase(os.path.realpath(folder), os.path.realpath(pattern))
        for pattern in patterns
    )


def newest_of_each(runs: Sequence[Path]) -> list[Path]:
    """Return the newest run of each experiment, by the time in the folder name."""

    def date(run: Path) -> tuple[str, ...]:
        found = _STAMP.search(run.name)
        return (found[3], found[2], found[1], found[4]) if found else ()

    return list({_STAMP.sub("", run.name): run for run in sorted(runs, key=date)}.values())


def _warn_of_gaps(runs: Sequence[Path], questions: Sequence[str]) -> None:
    answered = {question_of(run) for run in runs}
    missing = [question for question in questions if question not in answered]
    if missing:
        warn(f"no run of {', '.join(missing)}; run these questions before you submit")
    unfinished = [
        f"{run.name} ({progress})" for run in runs if (progress := progress_if_unfinished(run))
    ]
    if unfinished:
        warn(f"not finished: {', '.join(unfinished)}; continue these runs with --resume")


def progress_if_unfinished(run: Path) -> str:
    """Return the progress of an unfinished run, or "" if the run is finished or it is unknown."""
    try:
        flags = read_description(run / CONFIG)["flags"]
        n_iter, log_freq = int(flags["n_iter"]), int(flags["scalar_log_freq"])
        logged = read_csv(run / PROGRESS) if (run / PROGRESS).exists() else {}
        completed = int(max(logged.get(ITERATION, ()), default=-1)) + 1
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        UsageError,
    ):  # for example a run of the original homework code
        return ""
    if log_freq > 0:
        is_last = completed > 0 and completed - 1 + log_freq >= n_iter
        return "" if is_last else f"{completed} of {n_iter} iterations"
    # Without progress.csv, only the end of the first iteration can be detected cheaply.
    began = any((run / name).exists() for name in (CHECKPOINT, "itr_0_losses.npy"))
    return "" if began else f"0 of {n_iter} iterations"


def _events(run: Path) -> list[Path]:
    return [file for file in run.rglob("*") if is_event_file(file) and is_inside(file, run)]


def files_of_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """Return the files of the runs to submit, as {name in the zip: file}."""

    def wanted(run: Path) -> Iterator[Path]:
        yield from _events(run)
        others = [run / CONFIG, run / PROGRESS]
        if question_of(run) == "q1":  # other questions have such files too, but they are large
            others += [f for f in run.glob("itr_*") if f.suffix in (".png", ".npy", ".npz")]
        yield from (file for file in others if file.is_file() and is_inside(file, run))

    links = ((f, run) for run in runs for f in run.rglob("*") if f.is_symlink())
    if left_out := [str(file) for file, run in links if not is_inside(file, run)]:
        warn(f"skipped {', '.join(left_out)}; links that lead out of a run are not packed")
    return {
        _entry_name(f"data/{run.name}/{file.relative_to(run).as_posix()}"): file
        for run in runs
        for file in sorted(wanted(run))
    }


def _entry_name(path: str) -> str:
    """Return a name for the zip that every unpacker accepts; Windows reads \\ as a separator."""
    return printable(path).replace("\\", "%5C")


def files_of_code() -> dict[str, Path]:
    """Return the files of the package and README.md, as {name in the zip: file}.

    Raises UsageError: there is no README.md.
    """
    package = Path(cs285.__file__).parent
    readme = default_data_dir().parents[1] / "README.md"  # in the checkout or the working folder
    if not readme.is_file():
        raise UsageError(f"{readme}: no such file; run the script in a folder with a README.md")
    files = [file.relative_to(package) for file in package.rglob("*") if file.suffix in CODE]
    kept = sorted(f for f in files if f.parts[0] != "data" and "/." not in f"/{f.as_posix()}")
    return {f"cs285/{f.as_posix()}": package / f for f in kept} | {"README.md": readme}


def write_zip(files: dict[str, Path], output: Path, limit_mb: float) -> list[ZipInfo]:
    """Write the zip atomically, and return its entries. The same files give the same bytes.

    Raises UsageError: the zip would be too large, or cannot be written.
    """
    try:
        with temporary_beside(output) as temporary:
            with ZipFile(temporary, "w") as archive:
                for name, source in files.items():
                    _add(archive, name, source)
            size = temporary.stat().st_size / MEGABYTE
            if size > limit_mb:
                reason = _too_large(archive.infolist(), size)
                raise UsageError(f"--limit_mb {limit_mb:g}: must be at least {reason}")
            temporary.replace(output)
    except OSError as error:
        raise UsageError(
            f"--output {output}: {describe_os_error(error)}; must be a writable file"
        ) from error
    return archive.infolist()


def _add(archive: ZipFile, name: str, source: Path) -> None:
    info = ZipInfo(name)  # the default time, 1980, keeps the zip reproducible
    info.compress_type, info.external_attr = ZIP_DEFLATED, 0o644 << 16
    with archive.open(info, "w") as stream:
        if name.startswith("data/") and is_event_file(source):
            if copy_without_media(source, stream).is_corrupt:
                warn(
                    f"{source} is corrupt, so the zip has only the records before the damage; "
                    "check the curve of this run",
                )
        else:
            with open_regular(source) as file:
                shutil.copyfileobj(file, stream)


def _too_large(infos: Sequence[ZipInfo], size: float) -> str:
    packed = {name: sum(info.compress_size for info in part) for name, part in _parts(infos)}
    largest = max((name for name in packed if name.startswith("data/")), key=packed.__getitem__)
    return (
        f"{math.ceil(100 * size) / 100:g}, the size of the zip in MB; or pack fewer runs with "
        "--runs, --questions or --newest; the largest run is "
        f"{Path(largest).name} with {packed[largest] / MEGABYTE:.2f} MB"
    )


def _parts(infos: Sequence[ZipInfo]) -> Iterator[tuple[str, list[ZipInfo]]]:
    """Yield the parts of the zip (data/<run>, cs285 and README.md) with their entries."""
    parts = groupby(infos, lambda i: re.sub(r"^(data/[^/]+|[^/]+).*", r"\1", i.filename))
    return ((name, list(part)) for name, part in parts)


def _print_table(infos: Sequence[ZipInfo]) -> None:
    print(f"{'files':>5} {'kB':>9} {'zipped':>9}")
    for name, part in _parts(infos):
        size, packed = sum(i.file_size for i in part), sum(i.compress_size for i in part)
        print(f"{len(part):5} {size / 1000:9,.1f} {packed / 1000:9,.1f}  {name}")


if __name__ == "__main__":
    sys.exit(main())
