"""Time of each phase and peak memory of complete runs of questions 3, 5 and 6 on the cheetah.

Run `python -m benchmarks.end_to_end` on an idle machine.

Question 6 runs in full, which takes about 7 minutes on 2 cores. Questions 3 and 5 run with one
short iteration of planning; the seconds of a full iteration are extrapolated from it.
benchmarks.question6 compares question 6 with the homework-style loop.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import write

CHEETAH = ["--env_name", "cheetah-cs285-v0", "--add_sl_noise", "--batch_size_initial", "5000"]
PLANNED = [*CHEETAH, "--mpc_horizon", "15", "--num_agent_train_steps_per_iter", "1500"]
CEM = ["--mpc_action_sampling_strategy", "cem", "--cem_iterations", "4"]
ITERATION = 5000  # env steps per iteration in the homework's questions 3 and 5
RUNS = {
    "q3_cheetah": ("mb", [*PLANNED, "--n_iter", "2", "--batch_size", "1000"]),
    "q5_cheetah_cem_4": (
        "mb",
        [*PLANNED, *CEM, "--n_iter", "2", "--batch_size", "400", "--ep_len", "200"],
    ),
    "q6_cheetah_rlen10": (
        "mbpo",
        [*CHEETAH, "--num_agent_train_steps_per_iter", "1500", "--batch_size", "5000",
         "--n_iter", "10", "--sac_discount", "0.99", "--sac_n_layers", "2", "--sac_size", "256",
         "--sac_batch_size", "1500", "--sac_learning_rate", "3e-4", "--sac_init_temperature",
         "0.1", "--sac_n_iter", "5000", "--mbpo_rollout_length", "10"],
    ),
}  # fmt: skip
BOOKKEEPING = ("log", "checkpoint", "figures", "other")
FIRST_STEP = """
import os
from cs285.collection.collector import Collector
from cs285.scripts.run_hw4_mb import main
collect = Collector.collect
def collect_and_end(*arguments):
    collect(*arguments)
    os._exit(0)
Collector.collect = collect_and_end
main({arguments})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="runs to time"
    )
    arguments = parser.parse_args()
    content: dict[str, Any] = {"torch_threads": torch.get_num_threads()}
    starts = [seconds_to_first_step() for _ in range(5)]
    content["seconds_to_first_collected_step"] = round(statistics.median(starts), 2)
    for name in arguments.runs:
        content[name] = run_in_own_process(*RUNS[name])
        print(json.dumps({name: content[name]}, indent=2), flush=True)
    write("end_to_end", content)


def seconds_to_first_step() -> float:
    """Start run_hw4_mb and return the seconds until it has collected its first env step."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--env_name", "cheetah-cs285-v0", "--batch_size_initial", "1", "--ep_len", "1"]
        code = FIRST_STEP.format(arguments=[*arguments, "--data_dir", folder])
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def run_in_own_process(agent: str, flags: list[str]) -> dict[str, Any]:
    """Run one experiment in its own process and return its phases and rates."""
    context = multiprocessing.get_context("spawn")
    pipe, remote = context.Pipe()
    process = context.Process(target=_run, args=(remote, agent, flags))
    process.start()
    remote.close()  # so that recv raises if the process dies
    result = pipe.recv()
    process.join()
    return result


def _run(pipe: Any, agent: str, flags: list[str]) -> None:
    env_steps, worker_memory = count_env_steps_and_memory()
    seconds, phases, last = run_script(agent, [*flags, "--no_gpu"])
    result: dict[str, Any] = {
        "command": f"python scripts/run_hw4_{agent}.py {' '.join(flags)}",
        "seconds": round(seconds, 1),
        "seconds_by_phase": {name: round(value, 2) for name, value in phases.items()},
        "last_evaluation": last,
        "collect_env_steps_per_s": round(env_steps["collect"] / phases["collect"], 2),
        "evaluate_env_steps_per_s": round(env_steps["evaluate"] / phases["evaluate"], 2),
        "share_of_log_checkpoint_figures_and_loop": round(
            sum(phases[name] for name in BOOKKEEPING) / seconds, 4
        ),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_memory_of_one_worker_mb": max(worker_memory, default=0),
    }
    iterations = int(flags[flags.index("--n_iter") + 1])
    if agent == "mb":
        collect = ITERATION / result["collect_env_steps_per_s"]
        each = (phases["fit"] + phases["evaluate"]) / iterations
        result["seconds_per_full_iteration_extrapolated"] = round(collect + each, 1)
    else:
        result["seconds_per_iteration"] = round(seconds / iterations, 1)
    pipe.send(result)


def count_env_steps_and_memory() -> tuple[dict[str, int], list[int]]:
    """Patch the collector and the worker pool to count env steps and peak memory.

    Return the env steps by kind of collection and the peak memory of each worker in MB. Both fill
    up while the script runs.
    """
    from cs285.collection.collector import Collector
    from cs285.collection.worker_pool import WorkerPool

    env_steps: dict[str, int] = defaultdict(int)
    worker_memory: list[int] = []
    collect, close = Collector.collect, WorkerPool.close

    def kind(policy: Any, steps: int, purpose: str, iteration: int, *rest: Any) -> str:
        return {"eval": "evaluate"}.get(purpose, "collect" if iteration else "collect at random")

    def counted(collector: Any, *arguments: Any) -> Any:
        collection = collect(collector, *arguments)
        env_steps[kind(*arguments)] += sum(path.length for path in collection.paths)
        return collection

    def closed(pool: Any) -> None:
        worker_memory.extend(map(memory_of, pool._workers))
        close(pool)

    Collector.collect, WorkerPool.close = counted, closed  # type: ignore[assignment, method-assign]
    return env_steps, worker_memory


def run_script(agent: str, flags: list[str]) -> tuple[float, dict[str, float], float]:
    """Run a training script. Return its seconds, the seconds by phase and the last eval return."""
    from cs285.infrastructure.checkpoint import load_checkpoint
    from cs285.scripts import run_hw4_mb, run_hw4_mbpo

    script = {"mb": run_hw4_mb, "mbpo": run_hw4_mbpo}[agent]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        code = script.main([*flags, "--video_log_freq", "-1", "--data_dir", folder])
        seconds = time.perf_counter() - start
        assert code == 0
        (log,) = Path(folder).glob("hw4_*")
        counters = load_checkpoint(log / "checkpoint.pt", "cpu")["counters"]
        last = (log / "progress.csv").read_text().splitlines()[-1].split(",")[1]
    return seconds, defaultdict(float, counters["seconds_by_phase"]), float(last)


def memory_of(worker: Any) -> int:
    """Return the peak memory in MB of a running worker process, or 0 if the OS is not Linux."""
    status = Path(f"/proc/{worker.process.pid}/status")
    if not status.exists():
        return 0
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
