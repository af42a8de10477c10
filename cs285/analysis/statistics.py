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

RESAMPLES, CONFIDENCE = 2000, 0.95


@dataclass(frozen=True)
class Curve:
    """A metric over an axis (T,): its centre over seeds, and the bounds of its interval."""

    x: Array
    center: Array
    low: Array
    high: Array
    seeds: int


def smooth(values: Array, window: int) -> Array:
    """Return the mean of each value (T,) and the up to `window` - 1 values before it."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    first = np.maximum(np.arange(len(values)) - window + 1, 0)
    last = np.arange(1, len(values) + 1)
    return (sums[last] - sums[first]) / (last - first)


def interquartile_mean(values: Array) -> Array:
    """Return the mean over axis 0 without the lowest and the highest quarter.

    Of fewer than four values nothing can be left out: it is their mean.
    """
    return np.asarray(stats.trim_mean(values, 0.25, axis=0))


def bootstrap_interval(values: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Return the percentile interval of the IQM over the seeds, axis 0: (low, high).

    Of one seed it is NaN: nothing is known of the spread.
    """
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    interval = stats.bootstrap(
        (values,),
        functools.partial(stats.trim_mean, proportiontocut=0.25),
        axis=0,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def aggregate(
    runs: Sequence[Run], y: str = EVAL_RETURN, x: str = ENV_STEPS, window: int = 1
) -> Curve:
    """Return the curve of a metric over the seeds in `runs`, each smoothed over `window` values.

    Seeds are interpolated to the axis values of the first one that all of them have reached, and
    to the last value that they all have. Raises UsageError: a run has no such column or no value in
    it, or the seeds have no axis value in common.
    """
    pairs = [_finite(run.column(x), run.column(y)) for run in runs]
    if not all(len(xs) for xs, _ in pairs):
        raise UsageError(f"{runs[0].setting}: a run of it has no {y} yet; allowed: one that has")
    begin, end = max(xs[0] for xs, _ in pairs), min(xs[-1] for xs, _ in pairs)
    if begin > end:
        raise UsageError(
            f"{runs[0].setting}: its seeds have no {x} in common; allowed: another axis"
        )
    grid = np.unique([*(value for value in pairs[0][0] if begin <= value <= end), end])
    values = np.stack([np.interp(grid, xs, smooth(ys, window)) for xs, ys in pairs])
    return Curve(grid, interquartile_mean(values), *bootstrap_interval(values), len(runs))


def _finite(x: Array, y: Array) -> tuple[Array, Array]:
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]
