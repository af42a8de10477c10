"""Question 1's pictures, drawn without global pyplot state."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


def save_predictions(
    file: Path, true: NDArray[np.float32], predicted: NDArray[np.float32], error: float
) -> None:
    """Draw true (T, O) in green against predicted (T, O) in red, one panel per dimension."""
    steps, ob_dim = true.shape
    columns = min(ob_dim, 3)
    rows = -(-ob_dim // columns)
    figure = new_figure(4 * columns, 1.9 * rows + 0.8)
    figure.suptitle(f"Open-loop prediction over {steps - 1} steps, MPE: {error:.4g}")
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    draw_predictions(all_axes[:ob_dim], true, predicted, range(ob_dim))
    for axes in all_axes[: ob_dim - columns]:
        axes.set_xlabel("")
    for axes in all_axes[ob_dim:]:
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
