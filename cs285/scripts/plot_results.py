"""Draw the learning curves of runs, one line per setting, with the spread over seeds.

A PATH is a log folder, a folder of log folders (cs285/data, a sweep), an exported CSV, or an event
file. Event files of the original homework code work too. Runs that differ only in the seed, and in
the seed at the end of their names, are one setting.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from cs285.analysis.groups import group_seeds, with_column
from cs285.analysis.plots import curves_figure, save
from cs285.analysis.runs import ENV_STEPS, EVAL_RETURN, Run, find_runs
from cs285.analysis.statistics import points
from cs285.cli.outputs import FILE, writing
from cs285.cli.script import run_script, warn
from cs285.config.flags import OneLineParser, whole_number
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.old_names import current_metric

SCRIPT = "plot_results.py"
FORMATS = (".png", ".svg", ".pdf")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="log folder, folder, CSV or event file")
    for axis, metric in (("y", EVAL_RETURN), ("x", ENV_STEPS)):
        axis_help = f"metric on the {axis} axis (default: {metric})"
        add(f"--{axis}", type=current_metric, default=metric, help=axis_help)
    smooth = "draw the mean of the last N values (default: 1)"
    add("--smooth", type=whole_number(1), default=1, metavar="N", help=smooth)
    add("--match", default="", metavar="REGEX", help="draw only runs whose names contain a match")
    add("--title", default="", help="title of the figure")
    output = f"figure to write, {', '.join(FORMATS)} (default: results.png)"
    add("--output", type=Path, default=Path("results.png"), help=output)
    given = parser.parse_args(argv)
    if given.output.suffix not in FORMATS:
        raise UsageError(f"--output {given.output}: must end in one of {', '.join(FORMATS)}")
    pattern = _pattern(given.match)
    runs = [run for run in find_runs(given.paths, warn) if pattern.search(run.name)]
    if not runs:
        raise UsageError(f"--match {given.match}: must match the name of at least one run")
    for flag, name in (("--y", given.y), ("--x", given.x)):
        runs = with_column(flag, name, runs, warn)
    groups = group_seeds(runs, warn)
    for label, members in groups.items():
        report_truncated_curves(label, members, given.y, given.x)
    figure = curves_figure({given.title: groups}, given.y, given.x, given.smooth)
    with writing(f"--output {given.output}", FILE):
        save(figure, given.output)
    shown = sum(map(len, groups.values()))
    counts = [
        f"{n} {word}{'s' * (n != 1)}" for n, word in ((shown, "run"), (len(groups), "setting"))
    ]
    print(f"{given.output}: {', '.join(counts)}")
    return 0


def report_truncated_curves(label: str, members: Sequence[Run], y: str, x: str) -> None:
    """Notify if a seed ends early: the line of its setting ends there too."""
    ends = {run.path: points(run, y, x)[0][-1] for run in members}
    first, last = min(ends.items(), key=lambda pair: pair[1]), max(ends.values())
    if first[1] < 0.9 * last:
        warn(
            f"{label}: the line ends at {x} {first[1]:g} of {last:g}, like the shortest run "
            f"{first[0]}; continue that run or exclude it with --match"
        )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--match {text}: {error}; must be a regular expression") from error


if __name__ == "__main__":
    sys.exit(main())
