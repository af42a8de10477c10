"""The open-loop error of the ensemble against the horizon, and how well its spread predicts it.

S states of real episodes are the starts. From each start, every elite predicts the states that
follow the next H actions of the episode. Each dimension's error is divided by the std of the
observations that the model was fitted to. An error of 1 is as large as the error of always
predicting the mean of these observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from cs285.infrastructure.pytorch_util import to_numpy
from cs285.infrastructure.replay_buffer import Path
from cs285.models.base_model import DynamicsModel
from cs285.models.open_loop import imagine


class OpenLoop(NamedTuple):
    """S segments of H env steps, real and as predicted by each of M elites."""

    starts: NDArray[np.int64]  # (S, 2): index of the path, env step in the path
    real: NDArray[np.float32]  # (S, H + 1, O)
    imagined: NDArray[np.float32]  # (M, S, H + 1, O)
    unit: NDArray[np.float32]  # (O,), std of the training data; NaN for constant dimensions

    @property
    def horizon(self) -> int:
        """The horizon H, in env steps."""
        return self.real.shape[1] - 1

    def errors(self) -> NDArray[np.float32]:
        """Return imagined minus real after 1 to H env steps, in units of the std: (M, S, H, O)."""
        return (self.imagined - self.real)[:, :, 1:] / self.unit

    def errors_by_dimension(self) -> NDArray[np.float32]:
        """Return the root mean square of `errors` over the starts: (M, H, O)."""
        return rms(self.errors(), 1)

    def errors_of_members(self) -> NDArray[np.float32]:
        """Return each member's error, root mean square over dimensions: (M, S, H)."""
        return self._size(self.errors())

    def errors_of_mean(self) -> NDArray[np.float32]:
        """Return the error of the members' mean state, root mean square over dimensions: (S, H)."""
        return self._size(self.errors().mean(0))

    def spreads(self) -> NDArray[np.float32]:
        """Return the std over members in this unit, root mean square over dimensions: (S, H)."""
        return self._size(self.imagined.std(0)[:, 1:] / self.unit)

    def errors_of_no_change(self) -> NDArray[np.float32]:
        """Return the error of predicting that the state does not change: (S, H)."""
        return self._size((self.real[:, :1] - self.real[:, 1:]) / self.unit)

    def rank_correlation(self) -> NDArray[np.float64]:
        """Return Spearman's correlation of spread and error over the starts, per horizon: (H,)."""
        return rank_correlation(self.spreads(), self.errors_of_mean())

    def _size(self, errors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the root mean square over the dimensions that have a unit: (..., O) -> (...)."""
        return rms(errors[..., ~np.isnan(self.unit)], -1)


def open_loop_errors(
    model: DynamicsModel, paths: Sequence[Path], horizon: int, stride: int = 1
) -> OpenLoop:
    """Predict the actions of `paths` from every `stride`-th state with H env steps ahead.

    H is `horizon`, or the length of the longest path if that is shorter; see `OpenLoop.horizon`.

    Raises ValueError: there are no paths, or `horizon` or `stride` is below 1.
    """
    if not paths or min(horizon, stride) < 1:
        raise ValueError(
            f"{len(paths)} paths, horizon {horizon}, stride {stride}: each must be at least 1"
        )
    H = min(horizon, max(path.length for path in paths))
    starts = window_starts(paths, H, stride)
    real = np.stack([observations(paths[p])[t : t + H + 1] for p, t in starts])
    acs = np.stack([paths[p].acs[t : t + H] for p, t in starts])
    imagined = imagine(model, real[:, 0], acs).observations
    scale = model.obs_scale
    std = real.std((0, 1)) if scale is None else to_numpy(scale)
    # --add_sl_noise gives even constant dimensions a std in the training data.
    varies = (std > 0) & (np.ptp(real, axis=(0, 1)) > 0)
    return OpenLoop(starts, real, imagined, np.where(varies, std, np.nan))


def window_starts(paths: Sequence[Path], horizon: int, stride: int = 1) -> NDArray[np.int64]:
    """Return path index and env step of the states with `horizon` env steps ahead: (S, 2)."""
    starts = [
        (number, step)
        for number, path in enumerate(paths)
        for step in range(0, path.length - horizon + 1, stride)
    ]
    return np.array(starts, np.int64).reshape(-1, 2)


def observations(path: Path) -> NDArray[np.float32]:
    """Return all observations of a path of T env steps: (T + 1, O)."""
    return np.concatenate([path.obs, path.next_obs[-1:]])


def rms(values: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
    """Return the root mean square along an axis."""
    return np.sqrt(np.square(values).mean(axis))


def rank_correlation(
    left: NDArray[np.floating], right: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return Spearman's correlation of the columns of two arrays (S, H): (H,).

    It is NaN if a column is constant.
    """
    columns = zip(rankdata(left, axis=0).T, rankdata(right, axis=0).T, strict=True)
    return np.array([correlation(*pair) for pair in columns])


def correlation(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    """Return Pearson's correlation of two arrays (S,); NaN if one is constant or S is below 2."""
    if len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    return float(np.corrcoef(left, right)[0, 1])
