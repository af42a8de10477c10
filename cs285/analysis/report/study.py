"""What the studies in results/ measured: as they write it, and in a figure and tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cs285.infrastructure.recording.figures import new_figure
from cs285.infrastructure.run_folder import provenance

HORIZONS = (1, 10, 50)
Row = dict[str, str]


def write_study(target: Path, script: str, run: str, found: dict[str, Any]) -> None:
    """Write what a script of results/ found of the run of this name, with commit and machine."""
    about = provenance() | {"command": f"python results/{script} ({run})"} | found
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(about, indent=2) + "\n")


def read_rows(file: Path) -> list[Row]:
    """Return the rows of the study's CSV; [] where there is none."""
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """Return the training set sizes, env steps, from the smallest."""
    return sorted({int(row["env_steps"]) for row in rows})


def mean_over_seeds(rows: Sequence[Row], env_steps: int, data: str, column: str) -> np.ndarray:
    """Return a column against the horizon, (H,): the mean over the seeds of the fits."""
    horizons = sorted({int(row["horizon"]) for row in rows})
    chosen = [row for row in rows if int(row["env_steps"]) == env_steps and row["data"] == data]
    return np.array(
        [
            np.mean([float(row[column]) for row in chosen if int(row["horizon"]) == h])
            for h in horizons
        ]
    )


def error_figure(file: Path) -> Figure:
    """Return error against horizon, a line per size of the training set, by data judged on."""
    rows, figure = read_rows(file), new_figure(10, 3.8)
    if not rows:
        return figure
    titles = {"policy": "episodes of the final policy", "random": "episodes of random actions"}
    for place, (data, title) in enumerate(titles.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        for env_steps in sizes_of(rows):
            error = mean_over_seeds(rows, env_steps, data, "error")
            (line,) = axes.plot(range(1, len(error) + 1), error, label=f"{env_steps} env steps")
            spread = mean_over_seeds(rows, env_steps, data, "spread")
            axes.plot(range(1, len(error) + 1), spread, "--", color=line.get_color(), lw=0.8)
        still = mean_over_seeds(rows, sizes_of(rows)[-1], data, "no_change")
        axes.plot(range(1, len(still) + 1), still, ":", color="grey", label="no change")
        axes.set(
            title=f"Cheetah: {title}", xlabel="steps imagined", ylabel="error, stds", yscale="log"
        )
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small", title="fitted to (dashed: spread)")
    return figure


def error_table(file: Path) -> list[str]:
    """Return errors and spreads at some horizons as lines of Markdown; [] if none was measured."""
    rows = read_rows(file)
    if not rows:
        return []
    kinds = [(data, horizon) for data in ("policy", "random") for horizon in HORIZONS]
    heads = [f"{data}, {h} step{'s' * (h > 1)}" for data, h in kinds]
    lines = [f"| fitted to | {' | '.join(heads)} |", "|---" * (len(kinds) + 1) + "|"]
    for env_steps in sizes_of(rows):
        errors, spreads = (
            [mean_over_seeds(rows, env_steps, data, column)[h - 1] for data, h in kinds]
            for column in ("error", "spread")
        )
        cells = [f"{error:.3f} ({s:.3f})" for error, s in zip(errors, spreads, strict=True)]
        lines.append(f"| {env_steps} env steps | {' | '.join(cells)} |")
    return lines


def planner_table(folder: Path) -> list[str]:
    """Return what each planner reached through one model, by run, as lines of Markdown; or []."""
    returns = {
        file.stem.removeprefix("planners_"): json.loads(file.read_text())["returns"]
        for file in sorted(folder.glob("planners_*.json"))
    }
    if not returns:
        return []
    lines = [f"| planner | {' | '.join(returns)} |", "|---" * (len(returns) + 1) + "|"]
    for planner in next(iter(returns.values())):
        cells = " | ".join(f"{np.mean(by_planner[planner]):.4g}" for by_planner in returns.values())
        lines.append(f"| {planner} | {cells} |")
    return lines


def mean_loss_table(folder: Path) -> list[str]:
    """Return what each loss of the means came to, means over seeds, as lines of Markdown; or []."""
    lines: list[str] = []
    for file in sorted(folder.glob("mean_loss_*.json")):
        run, fits = file.stem.removeprefix("mean_loss_"), json.loads(file.read_text())["fits"]
        names = list(dict.fromkeys(name for by_seed in fits.values() for name in by_seed[0]))
        if not lines:
            lines = [f"| run | ensemble | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
        for kind, by_seed in fits.items():
            cells = [_mean_of(by_seed, name) for name in names]
            lines.append(f"| {run} | {kind} | {' | '.join(cells)} |")
    return lines


def _mean_of(by_seed: Sequence[dict[str, float]], name: str) -> str:
    found = [each[name] for each in by_seed if name in each]
    return f"{np.mean(found):.4g}" if found else ""
