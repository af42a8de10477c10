"""Make the learner's edition: a copy of this checkout with blanks (docs/assignment.md)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cs285.assignment.blanks import Blank, choose_blanks
from cs285.assignment.starter import make_bug_hunt, make_starter
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser, whole_number
from cs285.infrastructure.errors import UsageError

SCRIPT = "make_starter.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="a new or an empty folder")
    add("--questions", nargs="+", default=[], metavar="Q", help="blanks of these questions only "
        "(q0 q1 ...), or single blanks (q1.loss)")  # fmt: skip
    add("--bugs", type=whole_number(1), help="instead of blanks, plant a mistake in this number of "
        "functions")  # fmt: skip
    add("--seed", type=whole_number(0), help="with --bugs: chooses the mistakes (default: 1)")
    given = parser.parse_args(argv)
    blanks = _chosen(given.questions)
    if given.bugs is None:
        if given.seed is not None:
            raise UsageError(f"--seed {given.seed}: must be given with --bugs")
        make_starter(given.output, blanks)
        required = [blank for blank in blanks if not blank.is_optional]
        points, hours = sum(b.points for b in required), sum(b.minutes for b in required) / 60
        optional = "".join(f"; optional: {blank.id}" for blank in blanks if blank.is_optional)
        print(f"{given.output}: {len(required)} blanks, {points} points, about {hours:.1f} hours"
            f"{optional}")  # fmt: skip
        print(f"next: cd {given.output}, then read README.md")
    else:
        seed = 1 if given.seed is None else given.seed
        planted = make_bug_hunt(given.output, blanks, given.bugs, seed)
        print(f"{given.output}: {len(planted)} mistakes, in {', '.join(m.blank for m in planted)}")
        print("next: find them by their effect; python scripts/grade.py there names them")
    return 0


def _chosen(names: Sequence[str]) -> Sequence[Blank]:
    try:
        return choose_blanks(names)
    except UsageError as error:
        raise UsageError(f"--questions {error}") from error


if __name__ == "__main__":
    sys.exit(main())
