"""Tests of run_pilco.py: a normal run, kills and resumes, flags, diagnosis, and bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cs285.agents import pilco_agent
from cs285.infrastructure import rl_trainer
from cs285.infrastructure.run_folder import UNFINISHED
from cs285.scripts.diagnose import main as diagnose
from cs285.scripts.evaluate import main as evaluate
from cs285.scripts.run_pilco import main
from tests.behaviour.test_flags_take_effect import NOT_IN_THE_CURVE, flags_of
from tests.cli.processes import events, only_folder, start, wait_until
from tests.cli.test_run_hw4_mbpo import DOUBLE_HORIZON
from tests.conftest import arguments, read_curve, runner, same_checkpoint

SCRIPT = "scripts/run_pilco.py"
TINY_PILCO: dict[str, Any] = {
    "env_name": "pendulum-swingup-v0",
    "exp_name": "tiny",
    "n_iter": 2,
    "ep_len": 12,
    "eval_batch_size": 12,
    "num_workers": 1,
    "pilco_horizon": 3,
    "pilco_basis": 4,
    "pilco_line_searches": 3,
    "pilco_gp_line_searches": 5,
    "pilco_noise": "0.1,0.01",
}
# For each flag, a value that changes the numbers in progress.csv.
CHANGES_THE_CURVE: dict[str, dict[str, Any]] = {
    "env_name": {"env_name": "cartpole-swingup-v0", "pilco_noise": 0.01},
    "ep_len": {"ep_len": 10},
    "n_iter": {"n_iter": 1},
    "batch_size_initial": {"batch_size_initial": 13},
    "batch_size": {"batch_size": 13},
    "eval_batch_size": {"eval_batch_size": 13},
    "seed": {"seed": 2},
    "scalar_log_freq": {"scalar_log_freq": 2},
    "pilco_propagation": {"pilco_propagation": "particles"},
    "pilco_horizon": {"pilco_horizon": 5},
    "pilco_angle_dims": {
        "pilco_angle_dims": "none", "pilco_target": "0,3", "pilco_weights": "0,1",
    },
    "pilco_target": {"pilco_target": "0,0,0.5,-1"},
    "pilco_weights": {"pilco_weights": "1,0,1,1"},
    "pilco_width": {"pilco_width": "0.5,1"},
    "pilco_policy": {"pilco_policy": "linear"},
    "pilco_basis": {"pilco_basis": 5},
    "pilco_squash": {"pilco_squash": "sin"},
    "pilco_line_searches": {"pilco_line_searches": 4},
    "pilco_gp_line_searches": {"pilco_gp_line_searches": 6},
    "pilco_exploration": {"pilco_exploration": -0.5},
    "pilco_restarts": {"pilco_restarts": 2},
    "pilco_max_rows": {"pilco_max_rows": 11},
    "pilco_noise": {"pilco_noise": "0.1"},
    "pilco_prediction_noise": {"pilco_prediction_noise": True},
    "pilco_particles": {"pilco_particles": 7},
}  # fmt: skip
ALONG_WITH: dict[str, dict[str, Any]] = {
    "pilco_particles": {"pilco_propagation": "particles"},
}


@pytest.fixture
def run_tiny_pilco(tmp_path: Path) -> Any:
    return runner(tmp_path, main, TINY_PILCO)


def test_every_flag_is_tested() -> None:
    from cs285.config.pilco import PilcoConfig

    elsewhere = {"continue_episodes", "env_kwargs", "env_wrappers", "pilco_model_uncertainty"}
    tested = {*CHANGES_THE_CURVE, *NOT_IN_THE_CURVE, *elsewhere}
    assert flags_of(PilcoConfig) == tested


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures, which take half of the time of a tiny run."""
    monkeypatch.setattr(rl_trainer, "save_forecast", lambda *args: None)


@pytest.fixture(scope="module")
def plain_curve(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that returns the curve of a run without the tested flag."""
    curves: dict[str, Any] = {}

    def curve(common: dict[str, Any]) -> Any:
        key = str(common)
        if key not in curves:
            run = runner(tmp_path_factory.mktemp("plain"), main, TINY_PILCO)
            curves[key] = read_curve(run(**common))
        return curves[key]

    return curve


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("flag", CHANGES_THE_CURVE)
def test_flag_changes_the_curve(flag: str, run_tiny_pilco: Any, plain_curve: Any) -> None:
    common = ALONG_WITH.get(flag, {})
    changed = run_tiny_pilco(**{**common, **CHANGES_THE_CURVE[flag]})
    assert read_curve(changed) != plain_curve(common)


@pytest.mark.usefixtures("without_figures")
def test_model_uncertainty_can_be_switched_off(tmp_path: Path, plain_curve: Any) -> None:
    words = [*arguments(**TINY_PILCO, data_dir=tmp_path), "--no-pilco_model_uncertainty"]
    assert main(words) == 0
    assert read_curve(only_folder(tmp_path)) != plain_curve({})


@pytest.mark.usefixtures("without_figures")
def test_ineffective_flags_give_a_warning(
    run_tiny_pilco: Any, plain_curve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, name in (
        ({"pilco_policy": "linear", "pilco_basis": 9}, "pilco_basis"),
        ({"pilco_policy": "linear", "pilco_particles": 9}, "pilco_particles"),
    ):
        capsys.readouterr()
        changed = run_tiny_pilco(**flags)
        assert f"warning: --{name} has no effect" in capsys.readouterr().out
        assert read_curve(changed) == plain_curve({"pilco_policy": "linear"})


def test_normal_run_logs_a_comparison_and_a_picture_per_trial(tmp_path: Path) -> None:
    flags = {**TINY_PILCO, "n_iter": 3, "pilco_horizon": 12, "num_workers": 2}
    words = arguments(**flags, data_dir=tmp_path)
    process = start(SCRIPT, *words, "--video_log_freq", "2")
    _, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (0, "")
    folder = only_folder(tmp_path)
    first, *later = read_curve(folder)
    assert first["Trial Cost"] == ""  # no policy was tried in iteration 0
    for row, before in zip(later, [first, *later], strict=False):
        assert row["Trial Predicted Cost"] == before["Predicted Cost"]
        assert float(row["Trial Cost"]) == pytest.approx(12 - float(row["Train_AverageReturn"]))
        assert 0 <= float(row["Trial Coverage"]) <= 1
        assert 0 <= float(row["Eval_Success"]) <= 1
        assert float(row["SNR 0"]) > 1
        assert float(row["Length Scale 3"]) > 0
    assert [row["Train_EnvstepsSoFar"] for row in later] == ["24.0", "36.0"]
    for iteration in (1, 2):
        arrays = np.load(folder / f"itr_{iteration}_forecast.npz")
        assert arrays["mean"].shape == (13, 2)
        assert arrays["real"].shape == (13, 2)
        assert (folder / f"itr_{iteration}_forecast.png").stat().st_size > 5000
    assert not (folder / "itr_0_forecast.png").exists()
    assert (folder / "videos" / "eval_rollouts_itr_2.mp4").stat().st_size > 1000


@pytest.mark.parametrize("propagation", ["moments", "particles"])
def test_killed_and_resumed_run_equals_an_uninterrupted_run(
    propagation: str, tmp_path: Path, run_tiny_pilco: Any
) -> None:
    flags = {**TINY_PILCO, "n_iter": 8, "pilco_propagation": propagation, "pilco_particles": 9}
    whole = run_tiny_pilco(**flags)
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path / "killed"}))
    wait_until(lambda: bool(list((tmp_path / "killed").glob("hw4_*/checkpoint_previous.pt"))))
    process.kill()
    process.communicate()
    folder = only_folder(tmp_path / "killed")
    assert 1 < len(read_curve(folder)) < 8
    assert main(["--resume", str(folder)]) == 0
    assert read_curve(folder) == read_curve(whole)
    assert events(folder) == events(whole)
    assert same_checkpoint(folder, whole)
    forecasts = [np.load(each / "itr_7_forecast.npz")["mean"] for each in (folder, whole)]
    assert np.array_equal(*forecasts)


@pytest.mark.parametrize("is_damaged", [False, pytest.param(True, marks=pytest.mark.long)])
def test_run_killed_within_a_policy_search_continues_there(
    is_damaged: bool, tmp_path: Path, run_tiny_pilco: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {**TINY_PILCO, "n_iter": 1, "pilco_line_searches": 60}
    whole = run_tiny_pilco(**flags)
    assert not (whole / UNFINISHED).exists()
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path / "killed"}))
    wait_until(lambda: bool(list((tmp_path / "killed").glob(f"hw4_*/{UNFINISHED}"))))
    process.kill()
    process.communicate()
    folder = only_folder(tmp_path / "killed")
    if is_damaged:  # the search begins again
        (folder / UNFINISHED).write_bytes(b"damaged")
    left: list[int] = []  # line searches, at the start of each search of the resumed run
    search = pilco_agent.minimise

    def counted(function: Any, progress: Any, report: Any) -> Any:
        left.append(progress.left)
        return search(function, progress, report)

    monkeypatch.setattr(pilco_agent, "minimise", counted)
    assert main(["--resume", str(folder)]) == 0
    assert (left[0] == 60) == is_damaged
    assert read_curve(folder) == read_curve(whole)
    assert same_checkpoint(folder, whole)
    assert not (folder / UNFINISHED).exists()


def test_the_other_agents_run_on_the_tasks(run_tiny: Any, run_tiny_mbpo: Any) -> None:
    for run, env_name in (
        (run_tiny, "cartpole-swingup-v0"),
        (run_tiny_mbpo, "pendulum-swingup-v0"),
    ):
        rows = read_curve(run(env_name=env_name, ep_len=None))
        assert rows[1]["Train_AverageEpLen"] == "40.0"
        assert rows[1]["Eval_Success"] == rows[1]["Eval_StrictSuccess"] == "0.0"


def test_double_horizon_mbpo_runs_on_the_tasks_and_is_evaluated(
    run_tiny_mbpo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {**DOUBLE_HORIZON, "env_name": "cartpole-swingup-v0", "ep_len": None, "n_iter": 11}
    folder = run_tiny_mbpo(**flags)
    assert float(read_curve(folder)[-1]["Eval_Success"]) == 0
    assert evaluate([str(folder), "--episodes", "2", "--num_workers", "1"]) == 0
    assert "2 episodes, 0 of them terminated" in capsys.readouterr().out


def test_diagnose_and_evaluate_read_the_run(
    run_tiny_pilco: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny_pilco()
    assert diagnose([str(folder), "--episodes", "1"]) == 0
    assert "--pilco_basis" in (folder / "diagnosis.html").read_text()
    assert evaluate([str(folder), "--episodes", "2", "--num_workers", "1"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    content = json.loads((folder / "config.json").read_text())
    assert (content["agent"], content["script"]) == ("pilco", "run_pilco.py")


INVALID = [
    ("--pilco_width 0", "--pilco_width 0: must be positive, finite numbers"),
    ("--pilco_width 1,x", "--pilco_width 1,x: must be positive, finite numbers"),
    ("--pilco_noise -1", "--pilco_noise -1: must be non-negative, finite numbers"),
    ("--pilco_noise 1,2,3", "--pilco_noise 1,2,3: must be 1 or 2 numbers"),
    ("--pilco_angle_dims 2", "--pilco_angle_dims 2: must be different dimensions below 2"),
    ("--pilco_angle_dims 1,1", "--pilco_angle_dims 1,1: must be different dimensions below 2"),
    ("--pilco_angle_dims x", "--pilco_angle_dims x: must be none, or observation dimensions"),
    ("--pilco_target 1", "--pilco_target 1: must be 4 numbers: 2 for the observation"),
    ("--pilco_basis 0", "--pilco_basis 0: must be an integer from 1"),
    ("--pilco_propagation exact", "--pilco_propagation exact: must be moments or particles"),
    ("--continue_episodes", "--continue_episodes: must not be given"),
    ("--env_name obstacles-cs285-v0", "this task declares no saturating cost"),
]


@pytest.mark.parametrize(("words", "message"), INVALID)
def test_invalid_input_gives_a_one_line_error(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*arguments(**{**TINY_PILCO, "pilco_noise": None, "data_dir": tmp_path}), *words.split()]
    capsys.readouterr()
    assert main(line) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
