"""Images of the obstacle map, drawn without global pyplot state."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patches import Rectangle as RectanglePatch
from numpy.typing import NDArray

from cs285.envs.obstacles.obstacles_env import BOUNDARY, GOAL_RADIUS, RECTANGLES


def draw_map(trail: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return pixels (400, 400, 3) of the map with the path `trail` (T, 2) and `goal` (2,)."""
    figure = Figure(figsize=(4, 4), dpi=100, layout="tight")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    draw_obstacles(axes, goal)
    axes.plot(trail[:, 0], trail[:, 1], color="tab:blue", linewidth=1.5)
    axes.plot(*trail[-1], "o", color="tab:blue", markersize=7)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_obstacles(axes: Axes, goal: NDArray[np.float64]) -> None:
    """Add the square, the rectangles and the goal (2,) to `axes`."""
    side = 2 * BOUNDARY
    axes.add_patch(RectanglePatch((-BOUNDARY, -BOUNDARY), side, side, fill=False))
    for left, top, width, height in RECTANGLES:
        axes.add_patch(RectanglePatch((left, top - height), width, height, color="0.45"))
    axes.add_patch(Circle((goal[0], goal[1]), GOAL_RADIUS, color="tab:green", alpha=0.5))
