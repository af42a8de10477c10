"""Print the logged metrics of runs as tables or as CSV, one line per iteration.

A PATH is a log folder, a folder of log folders, an exported CSV, or an event file. Event files of
the original homework code work too.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

import numpy as np

from cs285.analysis.groups import with_column
from cs285.analysis.runs import ENV_STEPS, EVAL_RETURN, Run, find_runs
from cs285.analysis.statistics import last_value
from cs285.cli.script import run_script, warn
from cs285.config.flags import OneLineParser
from cs285.infrastructure.errors import printable
from cs285.infrastructure.logger import ITERATION
from cs285.infrastructure.old_names import current_metric

SCRIPT = "read_results.py"
LAST = 3  # evaluations; results/ and docs/assignment.md state their mean
USUAL = (ITERATION, ENV_STEPS, "Train_AverageReturn", EVAL_RETURN)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="log folder, folder, CSV or event file")
    columns = f"columns to print (default: {', '.join(USUAL)})"
    add("--columns", nargs="+", type=current_metric, metavar="NAME", help=columns)
    add("--names", action="store_true", help="print only the names of the columns")
    add("--csv", action="store_true", help="print all runs as one CSV")
    given = parser.parse_args(argv)
    runs = find_runs(given.paths, warn)
    for name in given.columns or []:
        runs = with_column("--columns", name, runs, warn)
    names = list(dict.fromkeys(name for run in runs for name in run.columns))
    if given.names:
        print("\n".join(map(printable, names)))
    elif given.csv:
        print_csv(runs, given.columns or [name for name in USUAL if name in names] or names)
    else:
        for run in runs:
            usual = [name for name in USUAL if name in run.columns]
            print_table(run, given.columns or usual or list(run.columns))
    return 0


def print_table(run: Run, names: Sequence[str]) -> None:
    """Print columns of a run as a table. Raises UsageError: the run lacks one of the columns."""
    columns = [[f"{value:.6g}" for value in run.column(name)] for name in names]
    header = list(map(printable, names))
    widths = [max(map(len, (name, *cells))) for name, cells in zip(header, columns, strict=True)]
    print(printable(f"{run.name}  {run.path}"))
    for row in [header, *zip(*columns, strict=True)]:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))
    evaluations = np.isfinite(run.column(EVAL_RETURN)).sum() if EVAL_RETURN in names else 0
    if evaluations > LAST:
        mean = last_value(run, EVAL_RETURN, LAST)
        print(f"{EVAL_RETURN}, mean of the last {LAST}: {mean:.6g}")


def print_csv(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Print columns of all runs as one CSV, after the name, seed and path of each run.

    A cell is empty if the run lacks the column. Runs that lack all of the columns are skipped.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["run", "seed", "path", *map(printable, names)])
    for run in runs:
        if run.columns.keys().isdisjoint(names):
            warn(
                f"{run.path}: skipped because it has none of the columns {', '.join(names)}; "
                "choose other columns with --columns"
            )
            continue
        columns = [run.columns.get(name) for name in names]
        for row in range(len(run)):
            cells = ["" if column is None else f"{column[row]:.17g}" for column in columns]
            about = [printable(run.name), run.seed, printable(str(run.path))]
            writer.writerow([*about, *cells])


if __name__ == "__main__":
    sys.exit(main())
