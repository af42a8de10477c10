"""The figures of question 1 and of predicted episodes, drawn without global pyplot state."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cs285.infrastructure.run_folder import PREDICTIONS

MOST_PANELS = 60  # more panels take minutes to draw


def save_predictions(
    folder: Path,
    true: NDArray[np.float32],
    predicted: NDArray[np.float32],
    error: float,
    ensemble_error: float,
) -> None:
    """Write itr_0_predictions.npz and .png: true (T, O) in green, predicted (T, O) in red.

    There is one panel per dimension, up to MOST_PANELS. `error` is the mean squared error of
    `predicted` over all dimensions, and `ensemble_error` is the error of the
    ensemble's mean prediction.
    """
    steps, ob_dim = true.shape
    panels = min(ob_dim, MOST_PANELS)
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = new_figure(4 * columns, 1.9 * rows + 0.8)
    scope = f" over all {ob_dim} dimensions" if ob_dim > panels else ""
    figure.suptitle(
        f"Open-loop prediction over {steps - 1} env steps\n"
        f"mean prediction error{scope}: {error:.4g} (first member), {ensemble_error:.4g} (ensemble)"
    )
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    draw_predictions(all_axes[:panels], true, predicted, range(panels))
    for axes in all_axes[: panels - columns]:
        axes.set_xlabel("")
    for axes in all_axes[panels:]:
        axes.set_visible(False)
    figure.savefig(folder / "itr_0_predictions.png")
    write_through_memory(
        folder / PREDICTIONS,
        lambda file: np.savez(
            file, true=true, predicted=predicted, error=error, ensemble_error=ensemble_error
        ),
    )


def draw_predictions(
    all_axes: Iterable[Axes],
    true: NDArray[np.float32],
    predicted: NDArray[np.float32],
    dims: Iterable[int],
) -> None:
    """Plot the dimensions `dims` of true (T, O) in green and of predicted (T, O) in red."""
    for index, (axes, dim) in enumerate(zip(all_axes, dims, strict=True)):
        axes.plot(true[:, dim], color="green", label="true")
        axes.plot(predicted[:, dim], color="red", label="predicted")
        axes.set(ylabel=f"observation {dim}", xlabel="env step")
        if index == 0:
            axes.legend(fontsize="small")


def save_forecast(
    folder: Path,
    iteration: int,
    mean: NDArray[np.floating],
    std: NDArray[np.floating],
    real: NDArray[np.floating],
) -> None:
    """Write itr_<iteration>_forecast.png and .npz: predicted (H + 1, O) and real (T + 1, O).

    There is one panel per dimension, up to MOST_PANELS. The band is two standard deviations wide on
    each side of the predicted mean.
    """
    panels = min(mean.shape[1], MOST_PANELS)
    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure = new_figure(5 * columns, 2.2 * rows + 0.6)
    figure.suptitle(f"Iteration {iteration}: the episode as predicted before it, and the real one")
    steps = np.arange(len(mean))
    for dim, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if dim >= panels:
            axes.set_visible(False)
            continue
        low, high = mean[:, dim] - 2 * std[:, dim], mean[:, dim] + 2 * std[:, dim]
        axes.fill_between(steps, low, high, color="red", alpha=0.2, lw=0, label="predicted, 2 std")
        axes.plot(steps, mean[:, dim], color="red", label="predicted")
        axes.plot(real[:, dim], color="green", label="real")
        axes.set(ylabel=f"observation {dim}", xlabel="env step")
    figure.axes[0].legend(fontsize="small")
    name = f"itr_{iteration}_forecast"
    figure.savefig(folder / f"{name}.png")
    write_through_memory(
        folder / f"{name}.npz", lambda file: np.savez(file, mean=mean, std=std, real=real)
    )


def save_losses(folder: Path, losses: NDArray[np.float32]) -> None:
    """Write itr_0_losses.npy and .png: the losses (steps,) of a fit, on a log axis."""
    write_through_memory(folder / "itr_0_losses.npy", lambda file: np.save(file, losses))
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.plot(losses)
    axes.set(xlabel="gradient step", ylabel="training loss (normalised MSE)")
    if losses.max() > 0:  # not for a task that stands still
        axes.set_yscale("log")
    axes.set_title(f"Dynamics model, final loss {losses[-1]:.4g}")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "itr_0_losses.png")


def write_through_memory(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write through memory, because numpy reports a full disk without its errno."""
    buffer = io.BytesIO()
    write(buffer)
    file.write_bytes(buffer.getvalue())


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure without a window; the size is in inches."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
