"""Cost of scheduling a trial, cost of running as a trial, and gain of two parallel trials.

Run `python -m benchmarks.sweeps` on an idle machine.

The script schedules 1,000 trials that do nothing. It then times two runs of about two minutes in
three ways that take turns: started by hand, as sequential trials, and as parallel trials.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks.timing import write
from cs285.experiments.job import DONE
from cs285.experiments.launchers.base import Process, Share
from cs285.experiments.launchers.local import LocalLauncher
from cs285.experiments.sweeps import folder as sweep_folder
from cs285.experiments.sweeps.definition import Sweep
from cs285.experiments.sweeps.trials import Trials
from cs285.infrastructure.logger import read_rows
from cs285.infrastructure.run_folder import CONFIG, config_text
from cs285.scripts.sweep import main as sweep

ROOT = Path(__file__).parents[1]
SEEDS = (1, 2)
RUN = {
    "env_name": "obstacles-cs285-v0", "add_sl_noise": True, "num_agent_train_steps_per_iter": 20,
    "batch_size_initial": 5000, "batch_size": 1000, "mpc_horizon": 10, "video_log_freq": -1,
}  # fmt: skip


class TrivialProcess:
    """A run that has ended with success."""

    lost_because = ""

    def poll(self) -> int:
        return 0

    def interrupt(self) -> None: ...

    def kill(self) -> None: ...


class TrivialLauncher(LocalLauncher):
    """Starts runs that only make a log folder, as a run that logs and saves nothing."""

    def start(
        self, module: str, words: Sequence[str], log: Path, lock: TextIO, share: Share
    ) -> Process:
        flags = {"exp_name": log.stem, "checkpoint_freq": 0, "scalar_log_freq": 0}
        folder = log.parent / f"hw4_{log.stem}_trivial"
        folder.mkdir()
        (folder / CONFIG).write_text(config_text({"flags": flags}))
        return TrivialProcess()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="number of trials that do nothing")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of real runs")
    parser.add_argument("--n_iter", type=int, default=2, help="iterations of a real run")
    arguments = parser.parse_args()
    content: dict[str, Any] = {"scheduling": {"trials": schedule(arguments.trials)}}
    flags = [f"--{name}={value}" for name, value in {**RUN, "n_iter": arguments.n_iter}.items()]
    rounds = [one_round(flags) for _ in range(arguments.repeats)]
    content["command_of_run"] = f"python scripts/run_hw4_mb.py {' '.join(as_arguments(flags))}"
    content["seconds"] = {
        name: {
            "median": round(statistics.median(row[name] for row in rounds), 1),
            "all": [round(row[name], 1) for row in rounds],
        }
        for name in rounds[0]
    }
    ratios = {
        "trial / manual run, without start-up": ("sequential trial", "manual run"),
        "sequential sweep / parallel sweep": ("sequential sweep", "parallel sweep"),
    }
    content["ratios"] = {
        what: {"median": round(statistics.median(row[a] / row[b] for row in rounds), 3)}
        for what, (a, b) in ratios.items()
    }
    write("sweeps", content)


def schedule(count: int) -> dict[str, float]:
    """Return the time of scheduling a trial, measured with `count` trials that do nothing."""
    seeds = list(range(count))
    plan = Sweep("trivial", "mb", {"env_name": ["obstacles-cs285-v0"], "seed": seeds})
    with tempfile.TemporaryDirectory() as data, contextlib.redirect_stdout(io.StringIO()):
        seconds = {}
        for name, part in (("one", seeds[:1]), ("all", seeds)):
            some = Sweep(plan.name, plan.script, {**plan.choices, "seed": part})
            folder = sweep_folder.create(some, Path(data), "sweep.py")
            start = time.perf_counter()
            trials = Trials(some, folder)
            trials.run(TrivialLauncher(), Share(1, 0), None)
            seconds[name] = time.perf_counter() - start
            assert [job.state for job in trials.jobs] == [DONE] * len(part)
    each = (seconds["all"] - seconds["one"]) / (count - 1)
    return {"number": count, "seconds": round(seconds["all"], 1), "ms_each": round(1000 * each, 1)}


def one_round(flags: list[str]) -> dict[str, float]:
    """Return the mean seconds of a run without its start-up, and the seconds of each sweep."""
    with tempfile.TemporaryDirectory() as data:
        manual = [run_manually(flags, seed, Path(data) / "manual") for seed in SEEDS]
        sequential_trial, sequential_sweep = run_sweep(flags, 1, Path(data) / "sequential")
        parallel_trial, parallel_sweep = run_sweep(flags, len(SEEDS), Path(data) / "parallel")
    return {
        "manual run": statistics.mean(manual),
        "sequential trial": sequential_trial,
        "parallel trial": parallel_trial,
        "sequential sweep": sequential_sweep,
        "parallel sweep": parallel_sweep,
    }


def as_arguments(flags: list[str]) -> list[str]:
    """Return the arguments of run_hw4_mb, where a boolean flag has no value."""
    return [word.removesuffix("=True") for word in flags]


def run_manually(flags: list[str], seed: int, data: Path) -> float:
    """Run run_hw4_mb with one thread, as a trial does, and return its seconds."""
    command = [sys.executable, str(ROOT / "scripts" / "run_hw4_mb.py"), *as_arguments(flags)]
    words = [f"--seed={seed}", "--num_workers=1", f"--exp_name=seed{seed}", f"--data_dir={data}"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL, env=one_thread)
    (folder,) = data.glob(f"hw4_seed{seed}_*")
    return seconds_of(folder)


def run_sweep(flags: list[str], jobs: int, data: Path) -> tuple[float, float]:
    """Run a sweep. Return the mean seconds of a trial without its start-up, and of the sweep."""
    words = [word.replace("=True", "=true") for word in flags]
    words += [f"--seed={','.join(map(str, SEEDS))}", f"--jobs={jobs}", f"--data_dir={data}"]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = sweep(["--script", "mb", *words])
    whole = time.perf_counter() - start
    assert code == 0
    return statistics.mean(map(seconds_of, data.glob("sweep_*/hw4_*"))), whole


def seconds_of(folder: Path) -> float:
    """Return the seconds of a run from its first collection to its last logged iteration."""
    return float(read_rows(folder / "progress.csv")[-1]["TimeSinceStart"])


if __name__ == "__main__":
    main()
