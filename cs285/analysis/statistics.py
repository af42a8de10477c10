"""Aggregation over seeds: one smoothed curve with a centre and an interval.

The interquartile mean (IQM) and its bootstrap interval are recommended by Agarwal et al. 2021
(arXiv:2108.13264). Their library, rliable, cannot be imported with a current pandas, so this module
uses scipy. For one task both give the same numbers (tested against rliable 1.2.0).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cs285.analysis.runs import ENV_STEPS, EVAL_RETURN, Array, Run
from cs285.infrastructure.errors import UsageError

MOST_POINTS = 1000  # per curve; more cannot be seen, and every point is bootstrapped


@dataclass(frozen=True)
class Curve:
    """A metric aggregated over seeds: centre and interval bounds at each axis value, all (T,)."""

    x: Array
    center: Array
    low: Array
    high: Array
    seeds: int


def smooth(values: Array, window: int) -> Array:
    """Return the running mean (T,) of each value and up to `window` - 1 values before it.

    NaN values are ignored. The mean is NaN if the whole window is NaN.
    """
    finite, ones = np.isfinite(values), np.ones(min(window, len(values)))
    sums = np.convolve(np.where(finite, values, 0.0), ones)[: len(values)]
    with np.errstate(invalid="ignore"):
        return sums / np.convolve(finite, ones)[: len(values)]


def last_value(run: Run, column: str, last: int = 3, env_steps: float = math.inf) -> float:
    """Return the mean of the `last` values of a column, or of those until `env_steps`.

    Raises UsageError: it has no values.
    """
    values = run.column(column)
    if math.isfinite(env_steps):
        values = values[run.column(ENV_STEPS) <= env_steps]
    values = values[np.isfinite(values)]
    if not len(values):
        raise UsageError(f"{run.path}: must be a run that has logged {column}")
    return float(np.mean(values[-last:]))


def interquartile_mean(values: Array) -> Array:
    """Return the mean over axis 0 without the lowest and the highest quarter.

    With fewer than four values this is the plain mean.
    """
    return np.asarray(stats.trim_mean(values, 0.25, axis=0))


def bootstrap_interval(values: Array) -> tuple[Array, Array]:
    """Return (low, high), the 95% bootstrap percentile interval of the IQM over axis 0, the seeds.

    Both are NaN for a single seed.
    """
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    interval = stats.bootstrap(
        (values,),
        functools.partial(stats.trim_mean, proportiontocut=0.25),
        axis=0,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def aggregate(
    runs: Sequence[Run], y: str = EVAL_RETURN, x: str = ENV_STEPS, window: int = 1
) -> Curve:
    """Return the curve of a metric over the seeds in `runs`, each smoothed over `window` values.

    The grid consists of the first seed's `x` values in the range that all seeds cover, and the end
    of that range. At most MOST_POINTS of them are used. All seeds are interpolated to the grid.

    Raises UsageError: a run has no such column or no value in it, its `x` decreases, or the seeds
    have no range of `x` in common.
    """
    pairs = [points(run, y, x) for run in runs]
    begin, end = max(xs[0] for xs, _ in pairs), min(xs[-1] for xs, _ in pairs)
    if begin > end:
        raise UsageError(
            f"--x {x}: must be a column with a range that all seeds of {runs[0].setting} share"
        )
    grid = np.unique([*(value for value in pairs[0][0] if begin <= value <= end), end])
    if len(grid) > MOST_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, MOST_POINTS).astype(int)]
    values = np.stack([np.interp(grid, xs, smooth(ys, window)) for xs, ys in pairs])
    return Curve(grid, interquartile_mean(values), *bootstrap_interval(values), len(runs))


def points(run: Run, y: str, x: str) -> tuple[Array, Array]:
    """Return the values (T,) of columns `x` and `y` at the iterations that have both.

    Raises UsageError: no iteration has both, or `x` decreases.
    """
    xs, ys = run.column(x), run.column(y)
    both = np.isfinite(xs) & np.isfinite(ys)
    if not both.any():
        raise UsageError(f"{run.path}: must be a run that has logged {y}")
    if (np.diff(xs[both]) < 0).any():
        raise UsageError(
            f"--x {x}: must be a column that never decreases; it decreases in {run.path}"
        )
    return xs[both], ys[both]
