"""Run a trained agent on new episodes and print its returns. Nothing in the run changes."""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from cs285.agents.registry import add_current_folder_to_path
from cs285.analysis.evaluation import POLICIES, Evaluation, evaluate
from cs285.analysis.rebuild import best_if_alone, read_run
from cs285.cli.outputs import FILE, new_file, writing
from cs285.cli.script import add_trust_flag, run_script
from cs285.config.flags import LARGEST, OneLineParser, whole_number
from cs285.infrastructure.recording.rendering import (
    choose_renderer,
    disable_renderer,
    restore_renderer,
)
from cs285.infrastructure.run_folder import WHICH

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
    add("--checkpoint", type=_checkpoint, metavar="WHICH", help="last, previous, best (with the "
        "highest mean return of an evaluation), or an iteration of a run with --save_params "
        "(default: last, or best if the folder has no other)")  # fmt: skip
    add("--video", type=_video, metavar="FILE", help="write the first episode to this .mp4 or .gif")
    add("--render", choices=("human",), help="show the episodes in a window")
    add("--num_workers", type=whole_number(1), metavar="N", help="worker processes (default: one "
        "per core); the episodes stay the same")  # fmt: skip
    add("--csv", type=Path, metavar="FILE", help="also write one line per episode to this file")
    add_trust_flag(parser)
    given = parser.parse_args(argv)
    with contextlib.ExitStack() as outputs:
        for flag, file in (("--csv", given.csv), ("--video", given.video)):
            if file:
                outputs.enter_context(new_file(f"{flag} {file}", file))
        found = _evaluate(given)
        if given.csv:
            with writing(f"--csv {given.csv}", FILE):
                write_csv(found, given.csv)
    print(describe(found))
    return 0


def _evaluate(given: argparse.Namespace) -> Evaluation:
    trusted, users_renderer = "trust" in given, disable_renderer()
    if given.video:
        which = given.checkpoint or best_if_alone(given.folder)
        _, config = read_run(given.folder, trusted, which)
        choose_renderer(config.run.task, users_renderer, f"--video {given.video}")
    elif given.render:
        restore_renderer(users_renderer)
    return evaluate(
        given.folder,
        given.episodes,
        given.seed,
        given.policy,
        given.num_workers,
        trusted,
        given.checkpoint,
        given.video,
        given.render,
    )


def _checkpoint(text: str) -> str:
    if text not in (*WHICH, "best") and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: must be last, previous, best or an iteration")
    return text


def _video(text: str) -> Path:
    if Path(text).suffix not in (".mp4", ".gif"):
        raise argparse.ArgumentTypeError(f"{text}: must be a file name that ends in .mp4 or .gif")
    return Path(text)


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
