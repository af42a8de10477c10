"""Test that logs with old names of flags and metrics are read under the new names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cs285.analysis.runs import load_run
from cs285.infrastructure.old_names import translate_flags
from cs285.infrastructure.run_folder import read_config


@pytest.mark.parametrize(
    ("model", "old", "new"),
    [
        ("deterministic", {"mean_loss": "nll"}, "column_nll"),
        ("deterministic", {}, "column_nll"),
        ("probabilistic", {"mean_loss": "mse"}, "column_nll"),
        ("probabilistic", {"mean_loss": "nll"}, "nll"),
        ("probabilistic", {}, "nll"),
        ("probabilistic", {"model_loss": "column_nll"}, "column_nll"),
    ],
)
def test_mean_loss_of_an_old_run_becomes_model_loss(
    model: str, old: dict[str, str], new: str
) -> None:
    earlier = {"model_init": "lecun", "learning_rate_schedule": "falling"}
    assert translate_flags({"model": model, **old}) == {
        "model": model,
        "model_loss": new,
        **earlier,
    }


def test_old_fits_with_early_stopping_had_a_constant_learning_rate() -> None:
    found = translate_flags({"model": "probabilistic", "holdout_ratio": 0.2})
    assert found["learning_rate_schedule"] == "constant"


def test_flags_of_a_new_run_do_not_change() -> None:
    flags = {
        "model": "deterministic",
        "model_loss": "mse",
        "model_init": "torch",
        "learning_rate_schedule": "constant",
    }
    assert translate_flags(flags) == flags


def test_flags_of_an_agent_without_a_model_do_not_change() -> None:
    assert translate_flags({"size": 3}) == {"size": 3}


def test_columns_and_flags_of_an_old_log_get_their_new_names(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"model": "probabilistic", "mean_loss": "mse", "seed": 1}
    (tmp_path / "config.json").write_text(json.dumps({"script": "run_hw4_mb.py", "flags": flags}))
    (tmp_path / "progress.csv").write_text("Iteration,Holdout Loss,Real Share\n0,0.5,0.25\n")
    run = load_run(tmp_path)
    assert [float(run.column(name)[0]) for name in ("New Data Loss", "Real Ratio")] == [0.5, 0.25]
    assert run.config["flags"]["model_loss"] == "column_nll"
    assert read_config(tmp_path) == run.config
