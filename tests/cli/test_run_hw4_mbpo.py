"""Tests of run_hw4_mbpo.py: kills in the middle of an iteration, resumes and bad input."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cs285.agents.registry import expand_flags, find_agent
from cs285.config.flags import OneLineParser, add_flags, from_flat, parse_values
from cs285.config.mbpo import MBPOConfig
from cs285.experiments.job import iterations_done
from cs285.scripts import run_hw4_mb
from cs285.scripts.run_hw4_mbpo import main
from tests.cli.processes import events, only_folder, start, wait_until
from tests.conftest import TINY_MBPO, arguments, exit_code_of, read_curve, same_checkpoint

SCRIPT = "scripts/run_hw4_mbpo.py"
Run = Callable[..., Path]
CONTINUING = {
    "continue_episodes": True,
    "batch_size": 3,
    "n_iter": 60,
    "scalar_log_freq": 10,
    "sac_n_iter": 3,
    "mbpo_refit_every": 5,
}
LIKE_THE_PAPER = {
    **CONTINUING,
    "model": "probabilistic",
    "ensemble_size": 4,
    "num_elites": 2,
    "n_layers": 1,
    "num_agent_train_steps_per_iter": 30,
    "mbpo_propagation": "random_member",
    "mbpo_rollout_schedule": "70,150,1,4",
}
# The preset dhmbpo with the small networks and batches of a tiny run.
DOUBLE_HORIZON = {
    **CONTINUING,
    "preset": "dhmbpo",
    "env_name": "Hopper-v5",
    "ep_len": 50,
    "sac_n_iter": 1,
    "sac_n_iter_initial": 4,
    "batch_size": 1,
    "checkpoint_freq": 1,
    "mbpo_rollouts_per_block": 8,
    "mbpo_critic_iters_after_fit": 2,
}
KINDS = pytest.mark.parametrize(
    "extra",
    [pytest.param({}, marks=pytest.mark.long), CONTINUING, LIKE_THE_PAPER, DOUBLE_HORIZON],
    ids=["whole episodes", "continued episodes", "like the paper", "double horizon"],
)


@pytest.mark.parametrize("script", [SCRIPT, f"cs285/{SCRIPT}"])
def test_both_paths_of_the_script_work(script: str) -> None:
    out, err = start(script, "--help").communicate(timeout=60)
    assert "--mbpo_rollout_length" in out
    assert "--mpc_horizon" in out
    assert err == ""


def test_normal_run_prints_no_errors(tmp_path: Path) -> None:
    words = arguments(**{**TINY_MBPO, "num_workers": 2, "data_dir": tmp_path})
    process = start(SCRIPT, *words, "--env_name", "cheetah-cs285-v0", "--save_params")
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    names = {file.name for file in only_folder(tmp_path).iterdir()}
    assert {"itr_0_losses.npy", "itr_0_predictions.png", "agent_itr_1.pt"} <= names


@KINDS
@pytest.mark.parametrize("delay", [0.2])
def test_killed_and_resumed_run_equals_an_uninterrupted_run(
    extra: dict[str, Any], delay: float, tmp_path: Path, run_tiny_mbpo: Run
) -> None:
    n_iter = 300 if extra else 30  # enough for the run to outlast every delay
    flags = {**TINY_MBPO, "sac_n_iter": 30, "num_workers": 2, **extra, "n_iter": n_iter}
    whole = run_tiny_mbpo(**flags)
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path / "killed"}))
    wait_until(lambda: bool(list((tmp_path / "killed").glob("hw4_*/checkpoint.pt"))))
    time.sleep(delay)
    process.kill()
    process.communicate()
    folder = only_folder(tmp_path / "killed")
    assert len(read_curve(folder)) < len(read_curve(whole))  # the run was unfinished
    assert main(["--resume", str(folder)]) == 0
    assert read_curve(folder) == read_curve(whole)
    assert events(folder) == events(whole)
    assert same_checkpoint(folder, whole)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_saves_the_last_iteration(
    number: signal.Signals, tmp_path: Path, run_tiny_mbpo: Run
) -> None:
    """Its checkpoint is in between two that --checkpoint_freq asks for."""
    flags = {**TINY_MBPO, **CONTINUING, "n_iter": 400, "checkpoint_freq": 150, "num_workers": 1}
    whole = run_tiny_mbpo(**flags)
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path / "stopped"}))
    logs = partial(tmp_path.glob, "stopped/hw4_*/progress.csv")
    wait_until(lambda: any(len(file.read_text().splitlines()) > 6 for file in logs()))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    folder = only_folder(tmp_path / "stopped")
    assert process.returncode == 130
    assert err == f"run_hw4_mbpo.py: error: interrupted; continue with --resume {folder}\n"
    assert iterations_done(folder) % 150 != 1  # --checkpoint_freq saves after iteration 0, 150, …
    assert main(["--resume", str(folder)]) == 0
    assert read_curve(folder) == read_curve(whole)
    assert same_checkpoint(folder, whole)


@KINDS
def test_interrupted_iteration_is_repeated_on_resume(
    extra: dict[str, Any], tmp_path: Path, run_tiny_mbpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes after the model rollouts of iteration 1 or 12, before its updates."""
    from cs285.agents.mbpo_agent import MBPOAgent

    flags = {**TINY_MBPO, **extra}
    whole = run_tiny_mbpo(**flags)
    draw, stopped_at = MBPOAgent.draw_mixed, 38 if extra else 2 + TINY_MBPO["sac_n_iter"]

    def draw_or_stop(self: Any, first: int, count: int) -> Any:
        rows = draw(self, first, count)
        if first >= stopped_at:
            raise KeyboardInterrupt  # not a signal: background jobs of a shell ignore SIGINT
        return rows

    monkeypatch.setattr(MBPOAgent, "draw_mixed", draw_or_stop)
    words = arguments(**{**flags, "data_dir": tmp_path / "stopped"})
    assert main(words) == 130
    monkeypatch.undo()
    folder = only_folder(tmp_path / "stopped")
    assert 0 < len(read_curve(folder)) < len(read_curve(whole))
    assert main(["--resume", str(folder)]) == 0
    assert read_curve(folder) == read_curve(whole)
    assert same_checkpoint(folder, whole)


def test_continued_episodes_are_logged_as_whole_episodes(run_tiny_mbpo: Run) -> None:
    folder = run_tiny_mbpo(**CONTINUING)
    curve = read_curve(folder)
    assert [row["Iteration"] for row in curve] == ["0", "10", "20", "30", "40", "50"]
    assert [float(row["Train_EnvstepsSoFar"]) for row in curve] == [60, 90, 120, 150, 180, 210]
    assert {row["Train_AverageEpLen"] for row in curve} == {"20.0"}


def test_metrics_of_episodes_start_after_the_first_whole_episode(run_tiny_mbpo: Run) -> None:
    """The first episode is longer than the first two iterations."""
    flags = {"continue_episodes": True, "batch_size_initial": 5, "batch_size": 9, "n_iter": 4}
    curve = read_curve(run_tiny_mbpo(**flags))
    assert [row["Train_AverageReturn"] == "" for row in curve] == [True, True, False, False]
    assert "Initial_DataCollection_AverageReturn" not in curve[0]


def test_batch_size_overrides_sac_batch_size(
    run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = read_curve(run_tiny_mbpo(batch_size=None, sac_batch_size=60))
    assert alone == read_curve(run_tiny_mbpo(batch_size=60))
    assert "overrides it" not in capsys.readouterr().out
    both = read_curve(run_tiny_mbpo(batch_size=60, sac_batch_size=1500))
    assert both == alone
    out = capsys.readouterr().out
    assert "--batch_size 60" in out
    assert "--sac_batch_size 1500 has no effect" in out
    expand_flags(find_agent("mbpo"), {"batch_size": 60, "sac_batch_size": 1000})  # the default
    assert "--sac_batch_size 1000 has no effect" in capsys.readouterr().out


def test_resume_accepts_the_flags_of_the_run(
    run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny_mbpo(batch_size=60, sac_batch_size=1500, mbpo_eval_planner=True, n_iter=1)
    capsys.readouterr()
    again = ["--sac_batch_size", "1500", "--mpc_horizon", str(TINY_MBPO["mpc_horizon"])]
    assert main(["--resume", str(folder), *again]) == 0
    assert "no effect" not in capsys.readouterr().out


def test_default_of_batch_size() -> None:
    given, mbpo = {"env_name": "x"}, find_agent("mbpo")
    assert expand_flags(mbpo, given) == given
    assert from_flat(MBPOConfig, given).run.batch_size == 8000
    assert expand_flags(mbpo, {"sac_batch_size": 7}) == {"sac_batch_size": 7, "batch_size": 7}


def test_warning_about_a_planner_flag_without_a_planner(
    run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tiny_mbpo(mpc_horizon=None, mpc_num_action_sequences=None, n_iter=1)
    assert "no effect" not in capsys.readouterr().out
    run_tiny_mbpo(mpc_horizon=7, mpc_num_action_sequences=None, n_iter=1)
    assert "--mpc_horizon has no effect" in capsys.readouterr().out


def test_warning_about_a_sac_batch_larger_than_the_replay_buffer(
    run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny_mbpo(sac_train_batch_size=500)
    assert len(read_curve(folder)) == 2
    out = capsys.readouterr().out
    assert "--sac_train_batch_size 500 exceeds the 60 collected env steps" in out
    assert out.count("--sac_train_batch_size 500") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mbpo_rollout_length": -1}, "--mbpo_rollout_length -1: must be an integer from 0 to 1"),
        (
            {"mbpo_rollout_length": 10**30},
            "--mbpo_rollout_length 1000000000000000000000000000000: mu",
        ),
        ({"n_layers": 100_000}, "--n_layers 100000: must be an integer from 1 to 1000"),
        (
            {"sac_n_layers": 10**15},
            "--sac_n_layers 1000000000000000: must be an integer from 1 to 1",
        ),
        ({"mbpo_rollout_schedule": f"0,9,1,{10**15}"}, "and lengths from 1 to 100000"),
        (
            {"mbpo_rollout_length": "ten"},
            "--mbpo_rollout_length ten: must be an integer from 0 to 100000",
        ),
        ({"mbpo_real_ratio": 1.5}, "--mbpo_real_ratio 1.5: must be a number from 0 to 1"),
        ({"mbpo_real_ratio": "nan"}, "--mbpo_real_ratio nan: must be a number from 0 to 1"),
        ({"mbpo_propagation": "ts1"}, "--mbpo_propagation ts1: must be mean or random_member"),
        ({"mbpo_rollout_every": 0}, "--mbpo_rollout_every 0: must be an integer from 1"),
        ({"sac_train_batch_size": 0}, "--sac_train_batch_size 0: must be an integer from 1"),
        ({"sac_batch_size": 0, "batch_size": None}, "--sac_batch_size 0: must be an integer"),
        ({"sac_discount": 1.01}, "--sac_discount 1.01: must be a number from 0 to 1"),
        (
            {"sac_init_temperature": 0},
            "--sac_init_temperature 0: must be a positive, finite number",
        ),
        ({"num_agent_train_steps_per_iter": 0}, "because --mbpo_rollout_length is above 0"),
        ({"data_dir": ""}, "--data_dir : must be a path"),
        ({"env_name": "tests.toys:RewardOnly-v0"}, "its get_reward fails on torch tensors"),
        ({"env_name": "CartPole-v1"}, "--env_name CartPole-v1: its actions are Discrete(2)"),
        ({"env_name": "Nope-v0"}, "--env_name Nope-v0"),
    ],
    ids=str,
)
def test_bad_input_is_a_one_line_error_and_creates_no_files(
    flags: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(**{**TINY_MBPO, "data_dir": tmp_path / "data", **flags})
    code = exit_code_of(main, words)
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_negative_numbers_in_every_notation() -> None:
    words = ["--env_name", "x", "--sac_target_entropy"]
    parser = OneLineParser(prog="test")
    add_flags(parser, MBPOConfig)
    for text, value in {"-1": -1.0, "-1e0": -1.0, "-.5": -0.5, "-2.5E-1": -0.25}.items():
        assert parse_values(parser, [*words, text])["sac_target_entropy"] == value


def test_nan_reward_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {**TINY_MBPO, "env_name": "tests.toys:NanReward-v0", "data_dir": tmp_path}
    assert main(arguments(**flags)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "NanReward-v0 returned a reward that is non-finite in float32, at env step 7 of" in err
    assert "learning" not in err


def test_lack_of_memory_is_a_one_line_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {**TINY_MBPO, "sac_size": 10**7, "data_dir": tmp_path}
    assert main(arguments(**flags)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "not enough memory" in err


def test_warning_about_a_rollout_flag_without_rollouts(
    run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tiny_mbpo(mbpo_rollout_length=0, mbpo_rollout_every=None, mbpo_real_ratio=0.5, n_iter=1)
    out = capsys.readouterr().out
    assert "--mbpo_real_ratio has no effect because --mbpo_rollout_length is 0" in out


def test_resuming_a_finished_run_does_nothing(
    run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny_mbpo()
    assert main(["--resume", str(folder)]) == 0
    assert "nothing to do: 2 iterations are complete" in capsys.readouterr().out


def test_planner_evaluation_needs_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"num_agent_train_steps_per_iter": 0, "mbpo_rollout_length": 0, "data_dir": tmp_path}
    words = arguments(**{**TINY_MBPO, **flags})
    assert main([*words, "--mbpo_eval_planner"]) == 2
    assert "because --mbpo_eval_planner plans through it" in capsys.readouterr().err
    assert main(words) == 0
    assert not list(only_folder(tmp_path).glob("itr_0*"))


def test_run_of_the_other_script_cannot_be_resumed(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny()
    assert main(["--resume", str(folder)]) == 2
    assert "is a run of run_hw4_mb.py; must be a run of run_hw4_mbpo.py" in capsys.readouterr().err
    assert run_hw4_mb.main(["--resume", str(folder)]) == 0


def test_diverged_sac_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"sac_learning_rate": 1e30, "sac_n_iter": 30, "data_dir": tmp_path}
    assert main(arguments(**{**TINY_MBPO, **flags})) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "learning diverged" in err
