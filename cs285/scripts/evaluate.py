"""Run a trained agent on new episodes and print its returns. Nothing in the run changes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from cs285.agents.registry import add_current_folder_to_path
from cs285.analysis.evaluation import POLICIES, Evaluation, evaluate
from cs285.cli.script import add_trust_flag, run_script
from cs285.config.flags import LARGEST, OneLineParser, whole_number
from cs285.infrastructure.recording.rendering import disable_renderer
from cs285.scripts.outputs import FILE, writing

SCRIPT = "evaluate.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return run_script(SCRIPT, _run, argv)


def _run(argv: Sequence[str]) -> int:
    add_current_folder_to_path()
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("folder", metavar="LOGDIR", type=Path, help="log folder of the run")
    add("--episodes", type=whole_number(1), default=10, metavar="N", help="(default: 10)")
    add("--seed", type=whole_number(0, LARGEST), default=1, metavar="N", help="seed of these "
        "episodes (default: 1)")  # fmt: skip
    add("--policy", choices=POLICIES, help="what acts: the trained policy network, the planner, or "
        "random actions (default: the policy that the run evaluated)")  # fmt: skip
    add("--num_workers", type=whole_number(1), metavar="N", help="worker processes (default: one "
        "per core); the episodes stay the same")  # fmt: skip
    add("--csv", type=Path, metavar="FILE", help="also write one line per episode to this file")
    add_trust_flag(parser)
    given = parser.parse_args(argv)
    if given.csv:
        with writing(f"--csv {given.csv}", FILE):
            given.csv.open("a").close()  # fail before the episodes, not after them
    disable_renderer()
    trusted = "trust" in given
    found = evaluate(
        given.folder, given.episodes, given.seed, given.policy, given.num_workers, trusted
    )
    if given.csv:
        with writing(f"--csv {given.csv}", FILE):
            write_csv(found, given.csv)
    print(describe(found))
    return 0


def describe(found: Evaluation) -> str:
    """Return the statistics of the returns and lengths as text."""
    lines = [f"{len(found.returns)} episodes, {int(found.terminated.sum())} of them terminated"]
    for name, values in (("return", found.returns), ("length", found.lengths)):
        lines.append(
            f"{name}: mean {values.mean():.6g}, standard deviation {values.std():.4g}, "
            f"minimum {values.min():.6g}, maximum {values.max():.6g}"
        )
    return "\n".join(lines)


def write_csv(found: Evaluation, file: Path) -> None:
    """Write one line per episode."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["Episode", "Return", "Length", "Terminated"])
        for number, row in enumerate(zip(*found, strict=True)):
            total, length, terminated = row
            writer.writerow([number, f"{total:.17g}", length, int(terminated)])


if __name__ == "__main__":
    sys.exit(main())
