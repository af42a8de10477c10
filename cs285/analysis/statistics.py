"""Many seeds as one curve: aligned by env steps, smoothed, with a centre and an interval.

The interquartile mean (IQM) and its bootstrap interval are those that Agarwal et al. 2021
(arXiv:2108.13264) recommend. Their library, rliable, does not import beside a current pandas; for
one task its numbers are these, which a test shows, and scipy is all that they need.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cs285.analysis.runs import ENV_STEPS, EVAL_RETURN, Array, Run
from cs285.infrastructure.errors import UsageError

MOST_POINTS = 1000  # of a curve: more cannot be seen, and each is resampled


@dataclass(frozen=True)
class Curve:
    """A metric over an axis (T,): its centre over seeds, and the bounds of its interval."""

    x: Array
    center: Array
    low: Array
    high: Array
    seeds: int


def smooth(values: Array, window: int) -> Array:
    """Return the mean of each value (T,) and the up to `window` - 1 values before it.

    Missing ones, NaN, do not count; of nothing else it is NaN.
    """
    finite, ones = np.isfinite(values), np.ones(min(window, len(values)))
    sums = np.convolve(np.where(finite, values, 0.0), ones)[: len(values)]
    with np.errstate(invalid="ignore"):
        return sums / np.convolve(finite, ones)[: len(values)]


def interquartile_mean(values: Array) -> Array:
    """Return the mean over axis 0 without the lowest and the highest quarter.

    Of fewer than four values nothing can be left out: it is their mean.
    """
    return np.asarray(stats.trim_mean(values, 0.25, axis=0))


def bootstrap_interval(values: Array) -> tuple[Array, Array]:
    """Return the 95% percentile interval of the IQM over the seeds, axis 0: (low, high).

    Of one seed it is NaN: nothing is known of the spread.
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

    Seeds are interpolated to the axis values of the first one that all of them have reached, and
    to the last value that they all have; of very many, some. Raises UsageError: a run has no such
    column or no value in it, its axis goes back, or the seeds have no axis value in common.
    """
    pairs = [points(run, y, x) for run in runs]
    begin, end = max(xs[0] for xs, _ in pairs), min(xs[-1] for xs, _ in pairs)
    if begin > end:
        raise UsageError(
            f"{runs[0].setting}: its seeds have no {x} in common; allowed: another axis"
        )
    grid = np.unique([*(value for value in pairs[0][0] if begin <= value <= end), end])
    if len(grid) > MOST_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, MOST_POINTS).astype(int)]
    values = np.stack([np.interp(grid, xs, smooth(ys, window)) for xs, ys in pairs])
    return Curve(grid, interquartile_mean(values), *bootstrap_interval(values), len(runs))


def points(run: Run, y: str, x: str) -> tuple[Array, Array]:
    """Return the values of two columns where there are both, (T,) each, along a growing `x`.

    Raises UsageError: there are none, or it does not grow.
    """
    xs, ys = run.column(x), run.column(y)
    both = np.isfinite(xs) & np.isfinite(ys)
    if not both.any():
        raise UsageError(f"{run.setting}: a run of it has no {y} yet; allowed: one that has")
    if (np.diff(xs[both]) < 0).any():
        raise UsageError(f"{run.path}: its {x} goes back; allowed: an axis that grows")
    return xs[both], ys[both]
