"""Question 1's pictures, drawn without global pyplot state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
    figure = _figure(4 * columns, 1.9 * rows + 0.8)
    figure.suptitle(f"Open-loop prediction over {steps - 1} steps, MPE: {error:.4g}")
    for dim, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if dim >= ob_dim:
            axes.set_visible(False)
            continue
        axes.plot(true[:, dim], color="green", label="true")
        axes.plot(predicted[:, dim], color="red", label="predicted")
        axes.set_ylabel(f"observation {dim}")
        if dim >= ob_dim - columns:
            axes.set_xlabel("env step")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(file)


def save_losses(file: Path, losses: NDArray[np.float32]) -> None:
    """Draw the training losses (steps,) of one fit on a logarithmic axis."""
    figure = _figure(6, 4)
    axes = figure.subplots()
    axes.plot(losses)
    axes.set(xlabel="gradient step", ylabel="training loss (normalised MSE)", yscale="log")
    axes.set_title(f"Dynamics model, last loss {losses[-1]:.4g}")
    axes.grid(alpha=0.3)
    figure.savefig(file)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
