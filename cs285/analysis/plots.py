"""Learning curves and bar charts of runs, drawn without global pyplot state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cs285.analysis.runs import ENV_STEPS, EVAL_RETURN, Run
from cs285.analysis.statistics import aggregate, interquartile_mean, last_value, points, smooth
from cs285.infrastructure.errors import printable
from cs285.infrastructure.recording.figures import new_figure

AXIS_NAMES = {
    ENV_STEPS: "env steps",
    EVAL_RETURN: "evaluation return",
    "Train_AverageReturn": "training return",
    "TimeSinceStart": "wall-clock time (s)",
    "Iteration": "iteration",
}
Groups = Mapping[str, Sequence[Run]]  # label -> the runs of its seeds
Marks = Mapping[str, Sequence[Sequence[float]]]  # label -> points (x, y)
MARKERS = "x+*o"  # of the labels in a panel, in turn
LEGEND: dict[str, Any] = {"fontsize": "small", "framealpha": 0.4}


def draw_curves(
    axes: Axes,
    groups: Groups,
    y: str = EVAL_RETURN,
    x: str = ENV_STEPS,
    window: int = 1,
    title: str = "",
) -> None:
    """Draw the interquartile mean of each group as a line, with a band and a thin line per seed.

    The band is the 95% bootstrap interval; a single seed has no band.

    Raises UsageError: a run has no such column or no value in it.
    """
    for label, runs in groups.items():
        curve = aggregate(runs, y, x, window)
        count = f" ({curve.seeds} seeds)" if curve.seeds > 1 else ""
        (line,) = axes.plot(curve.x, curve.center, marker=".", label=plain(label + count))
        if curve.seeds > 1:
            color = line.get_color()
            axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.2, lw=0)
            for run in runs:
                xs, ys = points(run, y, x)
                axes.plot(xs, smooth(ys, window), color=color, alpha=0.35, lw=0.7)
    names = {"xlabel": AXIS_NAMES.get(x, x), "ylabel": AXIS_NAMES.get(y, y), "title": title}
    axes.set(**{key: plain(name) for key, name in names.items()})
    axes.grid(alpha=0.3)
    axes.legend(**LEGEND)


def draw_last_values(axes: Axes, groups: Groups) -> None:
    """Draw the mean of each run's last three returns as a dot, and each group's IQM as a bar."""
    for place, runs in enumerate(groups.values()):
        values = np.array([last_value(run, EVAL_RETURN) for run in runs])
        axes.bar(place, float(interquartile_mean(values)), color="tab:blue", alpha=0.5)
        axes.plot([place] * len(values), values, "o", color="tab:blue", markersize=4)
    labels = [f"{label}\n{len(runs)} seed{'s' * (len(runs) > 1)}" for label, runs in groups.items()]
    axes.set_xticks(range(len(groups)), labels, rotation=15 if len(groups) > 4 else 0)
    axes.set(ylabel=f"{AXIS_NAMES[EVAL_RETURN]}, mean of last 3")
    axes.grid(alpha=0.3, axis="y")


def plain(text: str) -> str:
    """Return text that matplotlib draws unchanged: no formulas and no control characters."""
    return printable(text).replace("$", r"\$")


def curves_figure(
    panels: Mapping[str, Groups],
    y: str = EVAL_RETURN,
    x: str = ENV_STEPS,
    window: int = 1,
    x_of: Mapping[str, str] = MappingProxyType({}),
    marks: Mapping[str, Marks] = MappingProxyType({}),
) -> Figure:
    """Return a figure of learning curves, one panel per title; `panels` must not be empty.

    `x_of` has the horizontal axes of panels that differ from `x`, and `marks` has published values,
    which are drawn in black.
    """
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(1.5 + 4.5 * columns, 0.5 + 3.3 * rows)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, groups) in zip(all_axes, panels.items(), strict=False):
        draw_curves(axes, groups, y, x_of.get(title, x), window, title)
        published = marks.get(title, {}).items()
        for marker, (label, points_of) in zip(cycle(MARKERS), published, strict=False):
            axes.plot(*np.transpose(points_of), marker, color="black", label=plain(label))
            axes.legend(**LEGEND)
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write a figure in the format of the file suffix; equal figures give equal bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}}.get(file.suffix)
    figure.savefig(file, metadata=metadata)
