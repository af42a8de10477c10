"""Tests of the figures for observations with many dimensions."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from cs285.infrastructure.recording import figures


def test_number_of_panels_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_PANELS", 6)
    shapes = {}
    for ob_dim in (6, 7, 400):
        states = np.zeros((11, ob_dim), np.float32)
        figures.save_predictions(tmp_path, states, states + 1, 0.5, 0.25)
        shapes[ob_dim] = iio.imread(tmp_path / "itr_0_predictions.png").shape
        arrays = np.load(tmp_path / "itr_0_predictions.npz")
        np.testing.assert_array_equal(arrays["predicted"], states + 1)  # all dimensions
        assert arrays["true"].shape == (11, ob_dim)
        assert (arrays["error"], arrays["ensemble_error"]) == (0.5, 0.25)
    assert shapes[6] == shapes[7] == shapes[400]
