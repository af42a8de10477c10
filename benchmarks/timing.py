"""Time contenders in turn, so that a slow minute of the machine hits all of them alike."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cs285.infrastructure.run_folder import describe_run

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


def rates(contenders: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Return units per second of every repeat; a contender does some work and returns how much.

    One warm-up round comes first and is not counted.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            units = work()
            seconds = time.perf_counter() - start
            if repeat > 0:
                measured[name].append(units / seconds)
    return measured


def summarize(measured: dict[str, list[float]], baseline: str) -> dict[str, dict[str, float]]:
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


def sgemm_peak(size: int = 2048, seconds: float = 2.0) -> float:
    """Return the best GFLOP/s of a square float32 product on all threads, now."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(left, right)
        best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def write(name: str, content: dict[str, Any]) -> None:
    """Write results/benchmarks/<name>.json with commit, versions and machine, and print a table."""
    description = describe_run(f"benchmarks/{name}.py", {})
    provenance = {key: description[key] for key in ("created", "versions", "git", "machine")}
    provenance["load_average_at_end"] = os.getloadavg()[0]
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({**content, **provenance}, indent=2) + "\n")
    for section, rows in content.items():
        if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
            print(f"{section}: {rows}")
            continue
        print(section)
        for contender, row in rows.items():
            cells = "  ".join(f"{key} {value}" for key, value in row.items())
            print(f"  {contender:<28} {cells}")
    print(f"written to results/benchmarks/{file.name}")
