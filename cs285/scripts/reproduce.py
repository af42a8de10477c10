"""Run all or some experiments of a list (default: the homework).

The same command continues after an interruption.

Finished runs are skipped, and unfinished runs are resumed. Several runs are executed in parallel on
the cores of this machine. Their log folders and outputs (NAME.log) are in --data_dir.
"""

from __future__ import annotations

import functools
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs285.agents.registry import add_current_folder_to_path
from cs285.cli.outputs import FOLDER, writing
from cs285.cli.script import run_script
from cs285.collection.collector import available_cores
from cs285.config.flags import LARGEST, OneLineParser, whole_number
from cs285.experiments.display import RunDisplay
from cs285.experiments.job import (
    DONE,
    FAILED,
    MOST_RUNS,
    WAITING,
    Job,
    folders_of,
    locate,
    log_of,
    run_of,
)
from cs285.experiments.launchers import check_address, open_launcher
from cs285.experiments.launchers.base import Share
from cs285.experiments.queue import RunQueue
from cs285.experiments.suites import Experiment, read_experiments, select
from cs285.infrastructure.errors import (
    InterruptedRunError,
    RunError,
    UsageError,
    one_line,
    printable,
)
from cs285.infrastructure.recording.progress import format_duration
from cs285.infrastructure.run_folder import default_data_dir
from cs285.scripts.export_run import export_run

SCRIPT = "reproduce.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code: 0, 1 (a run failed), 2 (bad input) or 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_script(SCRIPT, reproduce, argv)


def reproduce(argv: Sequence[str]) -> int:
    """Run the experiments, or print their commands. Return 1 if a run failed, else 0.

    Raises UsageError: bad input. Raises InterruptedRunError: Ctrl-C or SIGTERM.
    """
    add_current_folder_to_path()
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    add = parser.add_argument
    add("--questions", nargs="+", metavar="Q", help="run the experiments of these groups (first "
        "words of their names, like q1 or mbpo; default: all)")  # fmt: skip
    add("--names", nargs="+", metavar="NAME", help="run these experiments (names without the seed)")
    add("--seeds", nargs="+", type=whole_number(0, LARGEST), metavar="N", help="seeds of every "
        "experiment (default: the seeds in the list)")  # fmt: skip
    add("--jobs", type=whole_number(1), metavar="N", help="runs in parallel (default: one per "
        "core)")  # fmt: skip
    add("--address", help="run on a Ray cluster: auto, or HOST:PORT (docs/cluster.md)")
    add("--dry_run", action="store_true", help="print the commands and their estimated durations")
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    add("--data_dir", **folder, default=default_data_dir(), help="folder for the log folders "
        "(default: cs285/data)")  # fmt: skip
    add("--export_to", **folder, help="copy curves and provenance of finished runs to this folder")
    add("--eval_episodes", type=whole_number(0), default=0, metavar="N", help="with --export_to, "
        "also run each final policy in N new episodes at the end (default: 0)")  # fmt: skip
    add("--experiments", metavar="LIST", default="homework", help="homework, quick, research, or a "
        "file like cs285/experiments/homework.toml (default: homework)")  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.eval_episodes and not arguments.export_to:
        raise UsageError(
            f"--eval_episodes {arguments.eval_episodes}: must be given together with --export_to"
        )
    experiments = select(
        read_experiments(arguments.experiments), arguments.questions, arguments.names
    )
    pairs = [(e, n) for e in experiments for n in dict.fromkeys(arguments.seeds or e.seeds)]
    if len(pairs) > MOST_RUNS:
        raise UsageError(f"{len(pairs)} runs: must be at most {MOST_RUNS}; select fewer")
    jobs = [run_of(experiment, seed) for experiment, seed in pairs]
    at_once = min(arguments.jobs or available_cores(), len(jobs))
    threads = 1 if arguments.address else max(1, available_cores() // at_once)
    if arguments.dry_run:
        print_commands(pairs, jobs, at_once, threads, arguments.data_dir)
        return 0
    check_address(arguments.address)
    data_dir = arguments.data_dir.absolute()
    if arguments.export_to:
        with writing(f"--export_to {arguments.export_to}", FOLDER):
            arguments.export_to.mkdir(parents=True, exist_ok=True)
    try:
        value = f"--data_dir {data_dir}"
        with writing(value, FOLDER), open_launcher(arguments.address) as launcher:

            def capacity() -> int:
                return arguments.jobs or launcher.capacity(Share(1))

            queue = RunQueue(jobs, data_dir, launcher, Share(threads), capacity)
            queue.run(RunDisplay(jobs).show, functools.partial(export, arguments.export_to))
            for job in jobs if arguments.eval_episodes else ():
                try:
                    export(arguments.export_to, job, arguments.eval_episodes)
                except RunError as error:
                    job.state, job.error = FAILED, str(error)
    except KeyboardInterrupt as error:
        raise InterruptedRunError("interrupted; run the same command again to continue") from error
    failed = [job for job in jobs if job.state == FAILED]
    for job in failed:
        log = log_of(job, data_dir)
        print(f"{SCRIPT}: {job.name} failed: {one_line(job.error)} (see {log})", file=sys.stderr)
    return 1 if failed else 0


def export(target: Path | None, job: Job, eval_episodes: int = 0) -> None:
    """Export the run of a finished job to the folder `target`, if there is one.

    Raises OSError: the folder is not writable. Raises UsageError: see export_run.
    """
    if target is None or job.folder is None or job.state != DONE:
        return
    target_file = target / job.name.split("_")[0] / job.name
    # The user's list named the modules of the run.
    export_run(job.folder, target_file, eval_episodes, trusted=True)


def print_commands(
    pairs: Sequence[tuple[Experiment, int]],
    jobs: Sequence[Job],
    at_once: int,
    threads: int,
    data_dir: Path,
) -> None:
    """Print the command, progress and remaining time of each run, and the total remaining time."""
    left: list[float] = []  # minutes, 0 if unknown, of each run that is not finished
    for (experiment, seed), job in zip(pairs, jobs, strict=True):
        locate(job, folders_of(data_dir, job.name))
        status, completed = job.error or job.state, job.first_iteration
        if job.state == WAITING:
            left.append(job.minutes * (1 - completed / job.n_iter))
            status = _estimate(left[-1:], 1) + " on one core" * bool(job.minutes)
            status += f", {completed} of {job.n_iter} iterations completed" * bool(completed)
        print(f"# {status}")
        print(printable(shlex.join(experiment.command(seed))))
    print(f"# each with --data_dir {data_dir} --num_workers {threads}, and {threads} torch threads")
    print(f"# {len(left)} runs, {at_once} in parallel: {_estimate(left, at_once)}")


def _estimate(minutes: Sequence[float], at_once: int) -> str:
    """Describe how long runs take, `at_once` in parallel. A run of 0 minutes has no estimate."""
    total = format_duration(60 * max(sum(minutes) / at_once, max(minutes, default=0)))
    if all(minutes):
        return f"about {total}"
    return f"at least {total}" if any(minutes) else "duration unknown"


if __name__ == "__main__":
    sys.exit(main())
