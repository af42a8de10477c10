"""Question 1's pictures, drawn without global pyplot state."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

MOST_PANELS = 60  # more take minutes to draw


def save_predictions(
    file: Path, true: NDArray[np.float32], predicted: NDArray[np.float32], error: float
) -> None:
    """Draw true (T, O) in green against predicted (T, O) in red, one panel per dimension.

    Of wide observations the first MOST_PANELS are drawn; `error` is of all.
    """
    steps, ob_dim = true.shape
    panels = min(ob_dim, MOST_PANELS)
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = new_figure(4 * columns, 1.9 * rows + 0.8)
    left_out = f" (of all {ob_dim} dimensions)" if ob_dim > panels else ""
    figure.suptitle(f"Open-loop prediction over {steps - 1} steps, MPE: {error:.4g}{left_out}")
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    draw_predictions(all_axes[:panels], true, predicted, range(panels))
    for axes in all_axes[: panels - columns]:
        axes.set_xlabel("")
    for axes in all_axes[panels:]:
        axes.set_visible(False)
    figure.savefig(file)


def draw_predictions(
    all_axes: Iterable[Axes],
    true: NDArray[np.float32],
    predicted: NDArray[np.float32],
    dims: Iterable[int],
) -> None:
    """Draw some dimensions of true (T, O) in green against predicted (T, O) in red."""
    for index, (axes, dim) in enumerate(zip(all_axes, dims, strict=True)):
        axes.plot(true[:, dim], color="green", label="true")
        axes.plot(predicted[:, dim], color="red", label="predicted")
        axes.set(ylabel=f"observation {dim}", xlabel="env step")
        if index == 0:
            axes.legend(fontsize="small")


def save_losses(file: Path, losses: NDArray[np.float32]) -> None:
    """Draw the training losses (steps,) of one fit on a logarithmic axis."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.plot(losses)
    axes.set(xlabel="gradient step", ylabel="training loss (normalised MSE)", yscale="log")
    axes.set_title(f"Dynamics model, last loss {losses[-1]:.4g}")
    axes.grid(alpha=0.3)
    figure.savefig(file)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, which belongs to no window."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
