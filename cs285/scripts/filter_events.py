"""Remove videos, images and audio from TensorBoard event files, and keep the rest unchanged."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from cs285.cli.script import describe_os_error, fail, run_script, temporary_beside, warn
from cs285.config.flags import OneLineParser
from cs285.infrastructure.errors import RunError, UsageError, printable
from cs285.infrastructure.files import is_inside
from cs285.infrastructure.lock import LOCK, lock_folder
from cs285.infrastructure.recording.event_file import (
    CorruptRecordError,
    copy_without_media,
    is_event_file,
    read_records,
)

SCRIPT = "filter_events.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    sources = "event file, or folder that contains event files"
    parser.add_argument("sources", type=Path, metavar="SOURCE", nargs="+", help=sources)
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    output = "write a copy of SOURCE without videos, images and audio; must not exist yet"
    add("--output", type=Path, metavar="TARGET", help=output)
    in_place = "replace the event files with filtered ones"
    add("--in_place", action="store_true", help=in_place)
    given = parser.parse_args(argv)
    for source in given.sources:
        check_source(source)
    if given.in_place:
        return filter_all_in_place(given.sources)
    if len(given.sources) > 1:
        raise UsageError(
            f"SOURCE {given.sources[1]}: --output accepts a single SOURCE; pass the folder that "
            "contains them"
        )
    write_filtered(given.sources[0], given.output)
    return 0


def check_source(source: Path) -> None:
    """Raise UsageError unless `source` is an event file, or a folder that contains one."""
    must_be = "must be an event file, or a folder with event files (events.out.tfevents.*)"
    if not source.exists():
        raise UsageError(f"SOURCE {source}: no such file or folder; {must_be}")
    if source.is_dir():
        if next(event_files(source), None) is None:
            raise UsageError(f"SOURCE {source}: contains no event file; {must_be}")
        return
    try:
        first = next(read_records(source, media=False), None)
        is_one = first is not None or is_event_file(source)  # an event file may still be empty
    except CorruptRecordError:
        is_one = False
    except OSError as error:
        raise UsageError(f"SOURCE {source}: {error.strerror}; {must_be}") from error
    if not is_one:
        raise UsageError(f"SOURCE {source}: not an event file; {must_be}")


def event_files(source: Path) -> Iterator[Path]:
    """Yield the event files below the folder `source` in order, or the file `source` itself.

    Links that lead out of the folder are skipped.
    """
    if not source.is_dir():
        return iter([source])
    files = sorted(source.rglob("*"))
    return (file for file in files if is_event_file(file) and is_inside(file, source))


def write_filtered(source: Path, target: Path) -> None:
    """Copy `source`, a file or folder, to `target` with filtered event files and no videos/*.mp4.

    The target appears only when it is complete. Raises UsageError: the target exists, is inside the
    source or cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise UsageError(f"--output {target}: must not exist yet; choose another path")
    if is_inside(target, source):
        raise UsageError(f"--output {target}: must be outside SOURCE {source}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(target) as temporary:
            if source.is_dir():
                shutil.copytree(
                    source,
                    temporary,
                    ignore=functools.partial(_left_out, source),
                    copy_function=_copy,
                )
            else:
                _copy_filtered(source, temporary)
            temporary.rename(target)
    except OSError as error:
        raise UsageError(
            f"--output {target}: {describe_os_error(error)}; must be a path in a writable folder"
        ) from error
    for file in event_files(source):
        copy = target / file.relative_to(source)
        _report(file, file.stat().st_size, copy.stat().st_size)


def _left_out(source: Path, folder: str, names: list[str]) -> list[str]:
    """Return the names that a copy of the folder `source` leaves out, and warn about links."""
    is_videos = Path(folder).name == "videos"
    videos = [name for name in names if is_videos and name.endswith(".mp4")]
    files = [Path(folder, name) for name in names if name not in videos]
    others = [file for file in files if not _is_copied(file, source)]
    if others:
        warn(
            f"skipped {', '.join(map(str, others))}; links out of SOURCE or to folders, FIFOs and "
            "devices are not copied"
        )
    return [*videos, *(file.name for file in others)]


def _is_copied(file: Path, source: Path) -> bool:
    """Return whether to copy a file or folder; a link to a folder may lead round in a circle."""
    return (file.is_file() and is_inside(file, source)) or (file.is_dir() and not file.is_symlink())


def _copy(source: str, target: str) -> None:
    if is_event_file(Path(source)):
        _copy_filtered(Path(source), Path(target))
    else:
        shutil.copy2(source, target)


def _copy_filtered(source: Path, target: Path) -> None:
    with target.open("wb") as stream:
        copied = copy_without_media(source, stream)
    shutil.copystat(source, target)
    if copied.is_corrupt:
        warn(
            f"{source} is corrupt, so the copy has only the records before the damage; keep the "
            "original file",
        )


def filter_all_in_place(sources: Sequence[Path]) -> int:
    """Filter all event files of `sources` in place. Return 1 if a file was skipped, else 0."""
    exit_code = 0
    for source in sources:
        for file in event_files(source):
            try:
                # Replace the target of a link, not the link.
                filter_in_place(Path(os.path.realpath(file)))
            except RunError as error:
                exit_code = fail(SCRIPT, f"skipped {error}", RunError.exit_code)
    return exit_code


def filter_in_place(file: Path) -> None:
    """Replace an event file atomically with a copy without media, and print the saved bytes.

    Raises RunError and leaves the file unchanged: it is corrupt, or a run is writing to it.
    """
    old_size = file.stat().st_size
    with _hold(file.parent), temporary_beside(file) as temporary:
        with temporary.open("wb") as stream:
            copied = copy_without_media(file, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if copied.is_corrupt:
            raise RunError(
                f"{file}: it is corrupt, and the records after the damage would be lost; use "
                "--output to copy the records before it"
            )
        if copied.dropped:
            shutil.copystat(file, temporary)
            if file.stat().st_size != old_size:
                raise RunError(f"{file}: a run is writing to it; try again when the run has ended")
            temporary.replace(file)
    _report(file, old_size, file.stat().st_size)


def _hold(folder: Path) -> AbstractContextManager[Any]:
    """Prevent the run in `folder`, if there is one, from being resumed.

    Raises RunError: the run is active.
    """
    if not (folder / LOCK).exists():
        return nullcontext()
    try:
        return lock_folder(folder)
    except UsageError as error:
        raise RunError(
            f"{folder}: another process is executing this run; try again when it has ended"
        ) from error


def _report(source: Path, old_size: int, new_size: int) -> None:
    saved = old_size - new_size
    sizes = f"{old_size:,} -> {new_size:,} bytes, {saved:,} saved"
    print(f"{printable(str(source))}: {sizes}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
