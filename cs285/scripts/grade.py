"""Check the blanks of this folder, or grade a submission (docs/assignment.md)."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from cs285.assignment.blanks import (
    BLOCKED,
    NOT_BEGUN,
    PACKAGE,
    PASSED,
    QUESTIONS,
    TIMED_OUT,
    WRONG,
    Blank,
    choose_blanks,
)
from cs285.assignment.grading import Verdict, counted, grade_tree, line_of
from cs285.assignment.starter import check_is_finished
from cs285.assignment.submission import (
    Limits,
    check_user,
    edited_checks,
    grade_submission,
    rejected,
    results,
    write_results,
)
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser, whole_number
from cs285.infrastructure.errors import RunError, UsageError

SCRIPT = "grade.py"
SECONDS = 20  # for one check, which needs milliseconds
BAR = 20  # characters
POLL_SECONDS = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code: 0 if every check passed (see `counted`)."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="questions (q1) or blanks (q1.loss); "
        "default: all of this folder")  # fmt: skip
    add("--hint", nargs="?", type=whole_number(1, 2), const=1, metavar="N", help="print the hint "
        "of each blank, its idea; --hint 2: the operation, too")  # fmt: skip
    add("--watch", action="store_true", help="check again whenever a file changes")
    add("--seconds", type=whole_number(1), default=SECONDS, help="limit for one check (default: "
        f"{SECONDS})")  # fmt: skip
    add("--submission", type=Path, help="for instructors: grade this zip or folder with the "
        "finished checkout")  # fmt: skip
    add("--results", type=Path, help="with --submission: write Gradescope's results.json")
    add("--memory_mb", type=whole_number(1), help="with --submission: memory limit of a check "
        f"(default: {Limits.memory_mb})")  # fmt: skip
    add("--user", help="with --submission, as root: the user that runs the submitted code")
    given = parser.parse_args(argv)
    blanks = choose_blanks(given.names)
    if given.submission is not None:
        if given.hint or given.watch:
            raise UsageError("--submission: must be given without --hint and --watch")
        return _grade_submission(given, blanks)
    for name in ("results", "memory_mb", "user"):
        if getattr(given, name) is not None:
            raise UsageError(f"--{name} {getattr(given, name)}: must be given with --submission")
    if given.hint:
        print("\n\n".join(hint_of(blank, given.hint) for blank in blanks))
        return 0
    if given.watch:
        _watch(blanks, given.seconds)
    return _grade(blanks, given.seconds)


def hint_of(blank: Blank, level: int) -> str:
    """Return the hints of a blank up to `level`."""
    hints = [" ".join(hint.split()) for hint in blank.hints[:level]]
    return "\n".join([blank.id, *(_indented(hint) for hint in hints)])


def _watch(blanks: Sequence[Blank], seconds: float) -> None:
    """Check the blanks whenever a file of the package changes, until Ctrl-C."""
    while True:
        before = _times()
        _grade(blanks, seconds)
        print("watching cs285/; Ctrl-C ends it", flush=True)
        while _times() == before:
            time.sleep(POLL_SECONDS)


def _grade_submission(given: argparse.Namespace, blanks: Sequence[Blank]) -> int:
    """Grade a submission, and write its results.json even if it cannot be graded."""
    check_is_finished(blanks)
    if given.results is not None and not given.results.absolute().parent.is_dir():
        raise UsageError(f"--results {given.results}: must be a file in an existing folder")
    if given.user is not None:
        check_user(given.user)
    memory_mb = Limits.memory_mb if given.memory_mb is None else given.memory_mb
    limits = Limits(given.seconds, memory_mb, given.user)
    begun, verdicts = time.monotonic(), list[Verdict]()
    try:
        edited = edited_checks(given.submission)
        for verdict in grade_submission(given.submission, blanks, limits):
            verdicts.append(verdict)
            print(_lines_of(verdict, ""), flush=True)
    except RunError as error:
        if given.results is not None:
            write_results(given.results, rejected(str(error)))
        raise
    notes = [f"Changes in {file} were ignored." for file in edited]
    points = sum(verdict.blank.points for verdict in verdicts if verdict.status == PASSED)
    print(*notes, f"{points} of {sum(blank.points for blank in blanks)} points", sep="\n")
    if given.results is not None:
        write_results(given.results, results(verdicts, notes, time.monotonic() - begun))
    return 0 if all(verdict.status == PASSED for verdict in counted(verdicts)) else 1


def _times() -> dict[Path, float]:
    times = {}
    for file in PACKAGE.rglob("*.py"):
        try:
            times[file] = file.stat().st_mtime
        except OSError:  # an editor is replacing the file
            continue
    return times


def _grade(blanks: Sequence[Blank], seconds: float) -> int:
    verdicts: list[Verdict] = []
    for verdict in grade_tree(PACKAGE.parent, blanks, seconds):
        verdicts.append(verdict)
        if not verdicts[:-1] or verdicts[-2].blank.question != verdict.blank.question:
            print(f"{verdict.blank.question}  {QUESTIONS[verdict.blank.question]}")
        print(_lines_of(verdict, line_of(verdict.blank, PACKAGE)), flush=True)
    print()
    for question in dict.fromkeys(blank.question for blank in blanks):
        print(_bar(counted([v for v in verdicts if v.blank.question == question])))
    print(_next(counted(verdicts)))
    return 0 if all(verdict.status == PASSED for verdict in counted(verdicts)) else 1


def _lines_of(verdict: Verdict, place: str) -> str:
    """Return a verdict as text: a line with the place to edit, and the message below it."""
    blank, status, message = verdict
    place = f"optional, {place}".rstrip(", ") if blank.is_optional else place
    if status == PASSED:
        return f"  {status:10} {blank.id}"
    if status == BLOCKED:
        return f"  {status:10} {blank.id:14} by {message}"
    line = f"  {status:10} {blank.id:14} {place}".rstrip()
    return line if status == NOT_BEGUN else f"{line}\n{_indented(message)}"


def _indented(text: str) -> str:
    indent = " " * 13
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent)


def _bar(verdicts: Sequence[Verdict]) -> str:
    """Return the progress in a question as a line."""
    question = verdicts[0].blank.question
    passed = [verdict for verdict in verdicts if verdict.status == PASSED]
    filled = BAR * len(passed) // len(verdicts)
    points, total = (sum(v.blank.points for v in each) for each in (passed, verdicts))
    return (
        f"{question}  [{'#' * filled}{'.' * (BAR - filled)}] {len(passed)} of {len(verdicts)} "
        f"passed, {points} of {total} points"
    )


def _next(verdicts: Sequence[Verdict]) -> str:
    """Return what to do next."""
    for status in (WRONG, TIMED_OUT, NOT_BEGUN, BLOCKED):
        for blank, its_status, _ in verdicts:
            if its_status == status:
                return (
                    f"next: {blank.id} ({blank.minutes} minutes), {line_of(blank, PACKAGE)}\n"
                    f"      docs/assignment.md#{blank.id.replace('.', '')}\n"
                    f"      hint: python scripts/grade.py {blank.id} --hint"
                )
    return "all passed; next: the runs in docs/assignment.md"


if __name__ == "__main__":
    sys.exit(main())
