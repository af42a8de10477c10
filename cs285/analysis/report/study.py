"""Write the output of the study scripts in results/, and draw the report's figure and tables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cs285.infrastructure.files import read_json, read_table, reading
from cs285.infrastructure.provenance import provenance
from cs285.infrastructure.recording.figures import new_figure
from cs285.infrastructure.value_types import check_types

MODEL_ERROR = "the output of results/model_error_study.py"
HORIZONS = (1, 10, 50)
Row = dict[str, str]
# The labels in files of earlier versions and their current form.
FORMER_LABELS = {
    "points": "deterministic",
    "Gaussians, --mean_loss nll": "probabilistic, --model_loss nll",
    "Gaussians, --mean_loss mse": "probabilistic, --model_loss column_nll",
    "error on what was learned": "training error",
    "error": "held-out error",
}


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown; the first row is the header."""
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *others]


def write_study(
    target: Path, script: str, argv: Sequence[str], run: str, found: dict[str, Any]
) -> None:
    """Write the findings of a study script with commit, machine and command.

    In the command, the name of the `run` replaces its log folder, a path of one machine.
    """
    words = [run if Path(word).is_dir() else word for word in argv]
    about = provenance() | {"command": f"python results/{script} {shlex.join(words)}"} | found
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(about, indent=2) + "\n")


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a CSV, or [] if the file does not exist.

    Raises OSError: it cannot be read. Raises ValueError: it is damaged.
    """
    if not file.exists():
        return []
    header, *lines = read_table(file) or [[]]
    return [dict(zip(header, cells, strict=True)) for cells in lines]


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """Return the training set sizes in env steps, in increasing order."""
    return sorted({int(row["env_steps"]) for row in rows})


def mean_over_seeds(rows: Sequence[Row], env_steps: int, data: str, column: str) -> np.ndarray:
    """Return the mean of a column over the seeds of the fit, at each horizon: (H,)."""
    by_horizon: dict[int, list[float]] = {}
    for row in rows:
        if int(row["env_steps"]) == env_steps and row["data"] == data:
            by_horizon.setdefault(int(row["horizon"]), []).append(float(row[column]))
    return np.array([np.mean(by_horizon[horizon]) for horizon in sorted(by_horizon)])


def error_figure(file: Path) -> Figure:
    """Draw error against horizon: one line per training set size, one panel per kind of episode."""
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
        axes.plot(range(1, len(still) + 1), still, ":", color="grey", label="no-change baseline")
        axes.set(
            title=f"Cheetah: {title}",
            xlabel="env steps ahead",
            ylabel="error (std of the observations)",
            yscale="log",
        )
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small", title="training data (dashed: spread)")
    return figure


def error_table(file: Path) -> list[str]:
    """Return a Markdown table of errors and spreads at HORIZONS; [] if nothing was measured."""
    rows = read_rows(file)
    if not rows:
        return []
    kinds = [(data, horizon) for data in ("policy", "random") for horizon in HORIZONS]
    table = [["training data", *(f"{data}, {h} step{'s' * (h > 1)}" for data, h in kinds)]]
    for env_steps in sizes_of(rows):
        errors, spreads = (
            [mean_over_seeds(rows, env_steps, data, column)[h - 1] for data, h in kinds]
            for column in ("error", "spread")
        )
        cells = [f"{error:.3f} ({s:.3f})" for error, s in zip(errors, spreads, strict=True)]
        table.append([f"{env_steps} env steps", *cells])
    return markdown_table(table)


def planner_table(folder: Path) -> list[str]:
    """Return a Markdown table of each planner's mean return by run; [] if nothing was measured."""
    means: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob("planners_*.json")):
        with reading(str(file), "the output of results/planner_study.py"):
            returns = read_json(file)["returns"]
            check_types({"returns": returns}, {"returns": dict[str, list[float]]})
            run = file.stem.removeprefix("planners_")
            means[run] = {planner: f"{np.mean(each):.4g}" for planner, each in returns.items()}
    if not means:
        return []
    planners = next(iter(means.values()))
    rows = [[planner, *(each.get(planner, "") for each in means.values())] for planner in planners]
    return markdown_table([["planner", *means], *rows])


def model_loss_table(folder: Path) -> list[str]:
    """Return a Markdown table of the fits with each model loss, averaged over the seeds.

    The table is [] if nothing was measured.
    """
    table: list[list[str]] = []
    for file in sorted(folder.glob("model_loss_*.json")):
        run = file.stem.removeprefix("model_loss_")
        with reading(str(file), "the output of results/model_loss_study.py"):
            fits = read_json(file)["fits"]
            check_types({"fits": fits}, {"fits": dict[str, list[dict[str, float]]]})
        names = list(dict.fromkeys(name for each in chain(*fits.values()) for name in each))
        table = table or [["run", "ensemble", *map(_current_label, names)]]
        for kind, by_seed in fits.items():
            cells = (_mean_of(by_seed, name) for name in names)
            table.append([run, _current_label(kind), *cells])
    return markdown_table(table) if table else []


def fit_settings_table(folder: Path) -> list[str]:
    """Return a Markdown table of the error with each setting of a fit, or [].

    The error is the geometric mean over the columns that vary. A run with few columns also has the
    error of each column.
    """
    table = [["run", "setting", "geometric mean", "columns"]]
    for file in sorted(folder.glob("fit_settings_*.json")):
        run = file.stem.removeprefix("fit_settings_")
        with reading(str(file), "the output of results/fit_settings_study.py"):
            found = read_json(file)["error of each column"]
            check_types({"found": found}, {"found": dict[str, list[float]]})
        for setting, errors in found.items():
            mean = np.exp(np.mean(np.log([error for error in errors if error > 0])))
            columns = ", ".join(f"{error:.3f}" for error in errors) if len(errors) <= 4 else ""
            table.append([run, setting, f"{mean:.3f}", columns])
    return markdown_table(table) if len(table) > 1 else []


def _current_label(label: str) -> str:
    return FORMER_LABELS.get(label, label)


def _mean_of(by_seed: Sequence[dict[str, float]], name: str) -> str:
    found = [each[name] for each in by_seed if name in each]
    return f"{np.mean(found):.4g}" if found else ""
