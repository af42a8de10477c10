"""Make the zip that Gradescope's autograder needs (docs/assignment.md)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from cs285.assignment.autograder import files_of_autograder
from cs285.assignment.blanks import choose_blanks
from cs285.cli.outputs import FILE, writing
from cs285.cli.script import run_script, temporary_beside
from cs285.config.flags import OneLineParser
from cs285.infrastructure.errors import UsageError

SCRIPT = "make_autograder.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("autograder.zip"), help="zip file (default: "
        "autograder.zip)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the zip file if it exists")
    add("--questions", nargs="+", default=[], metavar="Q", help="grade these questions or blanks "
        "only")  # fmt: skip
    given = parser.parse_args(argv)
    if given.output.exists() and not given.overwrite:
        raise UsageError(f"--output {given.output}: must not exist yet; or pass --overwrite")
    try:
        blanks = choose_blanks(given.questions)
    except UsageError as error:
        raise UsageError(f"--questions {error}") from error
    files = files_of_autograder(given.questions)
    with (
        writing(f"--output {given.output}", FILE),
        temporary_beside(given.output) as temporary,
    ):
        with ZipFile(temporary, "w") as archive:
            for name, content in files.items():
                info = ZipInfo(name)  # the default time, 1980, keeps the zip reproducible
                info.compress_type, info.external_attr = ZIP_DEFLATED, 0o755 << 16
                archive.writestr(info, content)
        temporary.replace(given.output)
    points = sum(blank.points for blank in blanks)
    print(f"{given.output}: {len(files)} files, {len(blanks)} blanks, {points} points")
    return 0


if __name__ == "__main__":
    sys.exit(main())
