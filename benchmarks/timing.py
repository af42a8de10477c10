"""Time contenders in turn, each in a process of its own, so that a slow minute hits all alike."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from cs285.infrastructure.run_folder import provenance
from cs285.networks.cpu_tuning import SWITCH, tune_cpu

PEERS = ("stable-baselines3", "sbx-rl", "jax", "mbrl")
RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"

# Builds a contender in its process and returns its work; the work returns how many units it did.
# It must be a module's function, or a functools.partial of one, since it is sent to that process.
Contender = Callable[[], Callable[[], float]]


def rates(
    contenders: Mapping[str, Contender], repeats: int, tuned: bool = True
) -> dict[str, list[float]]:
    """Return units per second of every repeat of each contender.

    One warm-up round comes first and is not counted. While one works, the others wait. All of them,
    peers too, have the processor settings of `tune_cpu` if `tuned`, or none of them has.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    try:
        for name, contender in contenders.items():
            pipes[name], remote = context.Pipe()
            process = context.Process(target=_serve, args=(remote, contender, tuned))
            process.start()
            remote.close()
            processes.append(process)
            pipes[name].recv()  # it is ready
        for repeat in range(repeats + 1):
            for name, pipe in pipes.items():
                pipe.send(None)
                units, seconds = pipe.recv()
                if repeat > 0:
                    measured[name].append(units / seconds)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join()
    return measured


def both_ways(
    section: str, contenders: Mapping[str, Contender], repeats: int, baseline: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the `section`, and the same without the processor settings of `tune_cpu` in any."""
    return {
        section: summarize(rates(contenders, repeats), baseline),
        f"{section}, torch's own settings": summarize(rates(contenders, repeats, False), baseline),
    }


def _serve(pipe: Connection, contender: Contender, tuned: bool) -> None:
    os.environ[SWITCH] = str(int(tuned))  # also for processes that a contender starts
    tune_cpu()
    work = contender()
    pipe.send(None)
    try:
        while True:
            pipe.recv()
            start = time.perf_counter()
            units = work()
            pipe.send((units, time.perf_counter() - start))
    except EOFError:  # no more rounds
        return


def summarize(measured: Mapping[str, list[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Return median and quartiles of each contender, and its ratio to `baseline` round by round."""
    summary = {}
    for name, values in measured.items():
        ratios = [a / b for a, b in zip(values, measured[baseline], strict=True)]
        low, median, high = statistics.quantiles(values, n=4)
        summary[name] = {
            "median": round(median, 2),
            "lower_quartile": round(low, 2),
            "upper_quartile": round(high, 2),
            "ratio_to_baseline": round(statistics.median(ratios), 3),
        }
    return summary


def seconds_per_unit(work: Callable[[], float], rounds: int) -> float:
    """Return the median over rounds, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        units = work()
        times.append((time.perf_counter() - start) / units)
    return statistics.median(times)


def sgemm() -> Callable[[], float]:
    """Return work that multiplies square float32 matrices on all threads; units are GFLOP."""
    tune_cpu()  # the peak of the machine, not of the library that torch takes by default
    size = 2048
    left, right = torch.randn(size, size), torch.randn(size, size)

    def work() -> float:
        for _ in range(5):
            torch.mm(left, right)
        return 5 * 2 * size**3 / 1e9

    return work


def write(name: str, content: dict[str, Any]) -> None:
    """Write results/benchmarks/<name>.json with commit, versions and machine, and print a table."""
    about = provenance()
    for peer in PEERS:
        with contextlib.suppress(PackageNotFoundError):
            about["versions"][peer] = version(peer)
    about["command"] = f"python -m benchmarks.{name}"
    about["load_average_at_end"] = os.getloadavg()[0]
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({**content, **about}, indent=2) + "\n")
    for section, rows in content.items():
        if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
            print(f"{section}: {rows}")
            continue
        print(section)
        for contender, row in rows.items():
            cells = "  ".join(f"{key} {value}" for key, value in row.items())
            print(f"  {contender:<28} {cells}")
    print(f"written to results/benchmarks/{file.name}")
