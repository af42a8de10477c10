"""Tests of the study scripts in results/ on tiny runs."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cs285.analysis.report.study import model_loss_table
from cs285.envs import make_env

RESULTS = Path(__file__).parents[2] / "results"
Run = Callable[..., Path]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ModuleType]:
    """Return a function that imports a script of results/ and overrides its constants."""

    def load(name: str, **constants: Any) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, RESULTS / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        return module

    return load


def test_planner_study_runs_every_planner(
    study: Callable[..., ModuleType], run_tiny: Run, tmp_path: Path
) -> None:
    script = study("planner_study", TARGET=tmp_path, EPISODES=2)
    assert script.study([str(run_tiny(exp_name="q3_tiny"))]) == 0
    found = json.loads((tmp_path / "planners_q3_tiny.json").read_text())
    assert set(found["returns"]) == set(script.PLANNERS) == set(found["planners"])
    assert all(len(returns) == 2 for returns in found["returns"].values())
    assert np.isfinite(list(found["returns"].values())).all()


@pytest.mark.parametrize("flags", [{}, {"holdout_ratio": 0.3}])
def test_model_loss_study_evaluates_each_loss_on_held_out_transitions(
    study: Callable[..., ModuleType], run_tiny: Run, tmp_path: Path, flags: dict[str, Any]
) -> None:
    script = study("model_loss_study", TARGET=tmp_path, SEEDS=(1, 2))
    assert script.study([str(run_tiny(n_iter=1, **flags))]) == 0
    found = json.loads((tmp_path / "model_loss_tiny.json").read_text())
    assert found["transitions"] == 60
    deterministic, nll, column_nll = (found["fits"][kind] for kind in script.KINDS)
    assert all(len(by_seed) == 2 for by_seed in found["fits"].values())
    assert "Coverage 50" not in deterministic[0]
    assert 0 <= nll[0]["Coverage 50"] <= nll[0]["Coverage 95"] <= 1
    assert len({each["held-out error"] for each in (*deterministic, *nll, *column_nll)}) == 6
    table = model_loss_table(tmp_path)
    assert len(table) == 2 + 3
    mean = np.mean([each["held-out error"] for each in column_nll])
    assert f"| {mean:.4g} |" in table[-1]


def test_perfect_model_repeats_the_last_evaluations(
    study: Callable[..., ModuleType], run_tiny: Run, tmp_path: Path
) -> None:
    (tmp_path / "q3").mkdir()
    script = study("perfect_model", TARGET=tmp_path)
    assert script.repeat_evaluations([str(run_tiny(exp_name="q3_tiny", n_iter=1))]) == 0
    found = json.loads((tmp_path / "q3" / "q3_tiny_perfect.json").read_text())
    assert len(found["Eval_AverageReturn"]) == 1
    assert found["mean"] == found["Eval_AverageReturn"][0] < 0


@pytest.mark.parametrize("env_name", ["obstacles-cs285-v0", "reacher-cs285-v0", "Pendulum-v1"])
def test_a_copied_simulator_state_gives_the_same_steps(
    study: Callable[..., ModuleType], env_name: str
) -> None:
    script = study("perfect_model")
    real, copy = (make_env(env_name, 20).unwrapped for _ in range(2))
    real.reset(seed=1)
    copy.reset(seed=2)
    box = real.action_space
    for action in np.linspace(box.low, box.high, 5):
        script.set_state(copy, script.get_state(real))
        for expected, found in zip(real.step(action)[:3], copy.step(action)[:3], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_model_error_study_writes_a_row_per_size_seed_and_horizon(
    study: Callable[..., ModuleType], run_tiny_mbpo: Run, tmp_path: Path
) -> None:
    few = {"SIZES": (20, 60), "SEEDS": (1,), "FIT_STEPS": 3, "HORIZON": 4, "EPISODES": 1}
    script = study("model_error_study", TARGET=tmp_path / "error.csv", STRIDE=3, **few)
    assert script.study([str(run_tiny_mbpo())]) == 0
    lines = (tmp_path / "error.csv").read_text().splitlines()
    assert lines[0] == ",".join(script.COLUMNS)
    assert len(lines) == 1 + 2 * 2 * 4  # sizes x kinds of episodes x horizons


def test_fit_study_refits_in_every_way(
    study: Callable[..., ModuleType], run_tiny_mbpo: Run, tmp_path: Path
) -> None:
    script = study("dhmbpo_fit_study", TARGET=tmp_path, SIZES=(40, 60), NEXT=20, MOST_BATCHES=2)
    script.WAYS = {
        name: way | {"size": 8, "fit_patience": 1, "num_agent_train_steps_per_iter": 20}
        for name, way in script.WAYS.items()
    }
    assert script.study([str(run_tiny_mbpo()), "--members", "2"]) == 0
    fits = json.loads((tmp_path / "dhmbpo_fit_tiny.json").read_text())["fits"]
    assert set(fits) == set(script.WAYS)
    assert all([row["transitions"] for row in rows] == [40, 60] for rows in fits.values())
    first = {way: rows[0] for way, rows in fits.items()}
    steps = {
        way: first[way]["gradient steps"] / first[way]["epochs"]
        for way in ("authors", "patience 5")
    }
    assert steps["authors"] <= 2 < steps["patience 5"]
    assert "epochs" not in first["2000 steps, falling rate"]


def test_fit_settings_study_has_an_error_of_each_column_and_setting(
    study: Callable[..., ModuleType], run_tiny: Run, tmp_path: Path
) -> None:
    script = study("fit_settings_study", TARGET=tmp_path, SEEDS=(1,), LAST=1)
    assert script.study([str(run_tiny(n_iter=3))]) == 0
    found = json.loads((tmp_path / "fit_settings_tiny.json").read_text())["error of each column"]
    assert set(found) == set(script.SETTINGS)
    for errors in found.values():  # the position, and the goal, which is constant without noise
        assert min(errors[:2]) > 0 and errors[2:] == [0, 0]
    assert len(set(map(tuple, found.values()))) == len(found)  # each setting makes a difference


def test_policy_averaging_study_compares_two_policies_in_the_same_episodes(
    study: Callable[..., ModuleType], run_tiny_mbpo: Run, tmp_path: Path
) -> None:
    script = study("policy_averaging_study", TARGET=tmp_path, EPISODES=2)
    folder = str(run_tiny_mbpo())
    returns = {}
    for rate in ("0.01", "1"):
        assert script.study([folder, "--repeats", "2", "--rate", rate]) == 0
        returns[rate] = json.loads((tmp_path / "policy_averaging_tiny.json").read_text())["found"]
    first, second = returns["0.01"]
    assert len(first["last"]) == len(first["average"]) == 2
    assert first["average"] != first["last"] != second["last"]
    # At a rate of 1, the average is the last policy.
    assert [each["average"] for each in returns["1"]] == [first["last"], second["last"]]


def test_clipped_velocities_study_splits_the_new_transitions(
    study: Callable[..., ModuleType], run_tiny: Run, tmp_path: Path
) -> None:
    script = study("clipped_velocities_study", TARGET=tmp_path)
    folder, found = str(run_tiny(n_iter=2, env_name="Pendulum-v1")), {}
    for limit in ("0.98", "100"):
        assert script.study([folder, "--limit", limit]) == 0
        found[limit] = json.loads((tmp_path / "clipped_velocities_tiny.json").read_text())
    assert set(found["100"]["groups"]) == {"never"}
    assert found["100"]["groups"]["never"]["share"] == 1
    groups = found["0.98"]["groups"].values()
    assert len(groups) > 1
    for column in ("share", "share of error"):
        assert sum(group[column] for group in groups) == pytest.approx(1, abs=1e-3)
    # The error of all transitions does not depend on how they are split.
    mean = sum(group["share"] * group["error"] for group in groups)
    assert mean == pytest.approx(found["100"]["groups"]["never"]["error"], rel=0.01)
