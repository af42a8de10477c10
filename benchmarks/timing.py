"""Timing of contenders and writing of the results.

The contenders take turns, each in its own process. A slow period of the machine therefore affects
all of them.
"""

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

from cs285.infrastructure.provenance import provenance
from cs285.networks.cpu_tuning import SWITCH, tune_cpu

PEERS = ("stable-baselines3", "sbx-rl", "jax", "mbrl")
RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"

# A contender runs in its own process. It returns a work function, which returns the number of units
# it has done. A contender is pickled, so it must be a module-level function or a partial of one.
Contender = Callable[[], Callable[[], float]]


def rates(
    contenders: Mapping[str, Contender], repeats: int, tuned: bool = True
) -> dict[str, list[float]]:
    """Return the units per second of each contender, one value per repeat.

    The first round is a warm-up and is not counted. Only one contender works at a time. If `tuned`,
    all contenders run with the CPU settings of `tune_cpu`, including the peer libraries.
    Otherwise none of them does.
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
            pipes[name].recv()  # wait until the contender is ready
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
    """Measure the contenders with the CPU settings of `tune_cpu` and with the defaults of torch."""
    return {
        section: summarize(rates(contenders, repeats), baseline),
        f"{section}, default torch settings": summarize(
            rates(contenders, repeats, False), baseline
        ),
    }


def _serve(pipe: Connection, contender: Contender, tuned: bool) -> None:
    os.environ[SWITCH] = str(int(tuned))  # child processes inherit it
    tune_cpu()
    work = contender()
    pipe.send(None)
    try:
        while True:
            pipe.recv()
            start = time.perf_counter()
            units = work()
            pipe.send((units, time.perf_counter() - start))
    except EOFError:  # the parent closed the pipe after the last round
        return


def summarize(measured: Mapping[str, list[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Return the median, the quartiles and the ratio to `baseline` of each contender.

    The ratio is the median over the rounds of the contender's rate divided by the baseline's rate.
    """
    summary = {}
    for name, values in measured.items():
        ratios = [a / b for a, b in zip(values, measured[baseline], strict=True)]
        one = len(values) == 1
        low, median, high = values * 3 if one else statistics.quantiles(values, n=4)
        summary[name] = {
            "median": round(median, 2),
            "lower_quartile": round(low, 2),
            "upper_quartile": round(high, 2),
            "ratio_to_baseline": round(statistics.median(ratios), 3),
        }
    return summary


def seconds_per_unit(work: Callable[[], float], rounds: int) -> float:
    """Return the median seconds per unit over `rounds` rounds, after one warm-up round."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        units = work()
        times.append((time.perf_counter() - start) / units)
    return statistics.median(times)


def sgemm() -> Callable[[], float]:
    """Return work that multiplies square float32 matrices on all threads. The unit is GFLOP."""
    tune_cpu()  # the default matrix library of torch does not reach the peak on every CPU
    size = 2048
    left, right = torch.randn(size, size), torch.randn(size, size)

    def work() -> float:
        for _ in range(5):
            torch.mm(left, right)
        return 5 * 2 * size**3 / 1e9

    return work


def write(name: str, content: dict[str, Any]) -> None:
    """Write results/benchmarks/<name>.json with commit, versions and machine, and print it."""
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
