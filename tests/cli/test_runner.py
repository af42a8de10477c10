"""run_hw4.sh: every variable reaches its flag, typos stop it, and the quick form really runs."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLES = {
    "ENV_NAME": ("--env_name", "reacher-cs285-v0", "cheetah-cs285-v0"),
    "EXP_NAME": ("--exp_name", "mine", "mb_default"),
    "N_ITER": ("--n_iter", "7", "20"),
    "ENSEMBLE_SIZE": ("--ensemble_size", "5", "3"),
    "MPC_HORIZON": ("--mpc_horizon", "12", "10"),
    "MPC_ACTION_SEQUENCES": ("--mpc_num_action_sequences", "50", "1000"),
    "MPC_SAMPLING": ("--mpc_action_sampling_strategy", "cem", "random"),
    "CEM_ITERATIONS": ("--cem_iterations", "6", "4"),
    "CEM_NUM_ELITES": ("--cem_num_elites", "10", "5"),
    "CEM_ALPHA": ("--cem_alpha", "0.5", "1"),
    "BATCH_SIZE": ("--batch_size", "801", "8000"),
    "BATCH_SIZE_INITIAL": ("--batch_size_initial", "901", "20000"),
    "TRAIN_BATCH_SIZE": ("--train_batch_size", "64", "512"),
    "EVAL_BATCH_SIZE": ("--eval_batch_size", "300", "400"),
    "LEARNING_RATE": ("--learning_rate", "0.01", "0.001"),
    "N_LAYERS": ("--n_layers", "1", "2"),
    "HIDDEN_SIZE": ("--size", "32", "250"),
    "NUM_AGENT_TRAIN_STEPS": ("--num_agent_train_steps_per_iter", "11", "1000"),
    "SEED": ("--seed", "4", "1"),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the runner, and a python that prints its arguments."""
    for name in ("run_hw4.sh", "install.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    stub = tmp_path / "stub-python"
    stub.write_text('#!/bin/sh\necho "ARGS $@"\nexit ${STUB_EXIT:-0}\n')
    stub.chmod(stub.stat().st_mode | stat.S_IEXEC)
    return tmp_path


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MB_", "MBPO_", "SAC_"))}
    environment = {**clean, "SKIP_INSTALL": "1", **variables}
    environment.setdefault("PYTHON_BIN", "./stub-python")
    return subprocess.run(
        ["./run_hw4.sh", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def arguments(output: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith("ARGS ")]
    return line.removeprefix("ARGS ").split()


def test_defaults(checkout: Path) -> None:
    result = run(checkout)
    assert result.returncode == 0
    words = arguments(result.stdout)
    assert words[0] == "scripts/run_hw4_mb.py"
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    assert pairs == {flag: default for flag, _, default in VARIABLES.values()}
    assert f"+ ./stub-python {' '.join(words)}" in result.stdout  # the exact command is printed


@pytest.mark.parametrize("name", VARIABLES)
def test_variable_reaches_its_flag(name: str, checkout: Path) -> None:
    flag, value, _ = VARIABLES[name]
    words = arguments(run(checkout, **{f"MB_{name}": value}).stdout)
    assert words[words.index(flag) + 1] == value


def test_switches_and_extra_flags(checkout: Path) -> None:
    extra = run(checkout, MB_ADD_SL_NOISE="1", MB_EXTRA_FLAGS="--no_gpu --video_log_freq 5")
    words = arguments(extra.stdout)
    assert "--add_sl_noise" in words
    assert words[-3:] == ["--no_gpu", "--video_log_freq", "5"]
    assert "ARGS" not in run(checkout, RUN_MB="0").stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [("MB_ITER", "3"), ("SAC_LR", "1"), ("MBPO_HORIZON", "5"), ("RUN_MB", "yes")],
)
def test_typos_stop_before_anything(name: str, value: str, checkout: Path) -> None:
    result = run(checkout, SKIP_INSTALL="0", **{name: value})
    assert result.returncode == 2
    assert f"{name}={value}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (checkout / ".venv").exists()


def test_unknown_argument_and_help(checkout: Path) -> None:
    assert run(checkout, "--quik").returncode == 2
    text = run(checkout, "--help").stdout
    assert all(f"MB_{name}" in text for name in VARIABLES)


def test_failing_stage_fails_the_runner(checkout: Path) -> None:
    assert run(checkout, STUB_EXIT="3").returncode == 3


def test_unsuitable_python_is_named(checkout: Path) -> None:
    result = run(checkout, SKIP_INSTALL="0", PYTHON_BIN="./stub-python", STUB_EXIT="1")
    assert result.returncode == 2
    assert "PYTHON_BIN=./stub-python: allowed is a Python from 3.10 to 3.13" in result.stderr


def test_quick_form_of_the_readme_really_runs(tmp_path: Path) -> None:
    result = run(
        ROOT, "--quick", PYTHON_BIN=sys.executable, MB_EXTRA_FLAGS=f"--data_dir {tmp_path}"
    )
    assert result.returncode == 0, result.stderr
    assert "Eval_AverageReturn" in result.stdout
    (folder,) = tmp_path.glob("hw4_quick_obstacles-cs285-v0_*")
    assert (folder / "itr_0_predictions.png").exists()
