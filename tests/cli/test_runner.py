"""Tests of run_hw4.sh: its variables, its errors, and a real run with --quick."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

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

MBPO_ONLY = {
    "MBPO_ROLLOUT_LENGTH": ("--mbpo_rollout_length", "10", "1"),
    "SAC_N_ITER": ("--sac_n_iter", "5000", "200"),
    "SAC_TRAIN_BATCH_SIZE": ("--sac_train_batch_size", "64", "256"),
    "SAC_BATCH_SIZE": ("--sac_batch_size", "1500", "1000"),
    "SAC_DISCOUNT": ("--sac_discount", "0.9", "0.99"),
    "SAC_INIT_TEMPERATURE": ("--sac_init_temperature", "0.1", "1.0"),
    "SAC_LEARNING_RATE": ("--sac_learning_rate", "1e-3", "3e-4"),
    "SAC_N_LAYERS": ("--sac_n_layers", "3", "2"),
    "SAC_HIDDEN_SIZE": ("--sac_size", "256", "64"),
    "SAC_NUM_AGENT_TRAIN_STEPS": ("--sac_num_agent_train_steps_per_iter", "2", "1"),
    "SAC_NUM_CRITIC_UPDATES": ("--sac_num_critic_updates_per_agent_update", "3", "1"),
    "SAC_NUM_ACTOR_UPDATES": ("--sac_num_actor_updates_per_agent_update", "4", "1"),
    "SAC_ACTOR_UPDATE_FREQ": ("--sac_actor_update_frequency", "5", "1"),
    "SAC_CRITIC_TARGET_UPDATE_FREQ": ("--sac_critic_target_update_frequency", "6", "1"),
}
MBPO_VARIABLES = {
    **{f"MBPO_{name}": row for name, row in VARIABLES.items()},
    "MBPO_EXP_NAME": ("--exp_name", "mine", "mbpo_default"),
    **MBPO_ONLY,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with run_hw4.sh, and a stub of Python that prints its arguments."""
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


def arguments(output: str, script: str = "mb") -> list[str]:
    """Return the words of the command that the stub received for a script."""
    start = f"ARGS scripts/run_hw4_{script}.py "
    (line,) = [line for line in output.splitlines() if line.startswith(start)]
    return line.removeprefix("ARGS ").split()


@pytest.mark.parametrize(("script", "variables"), [("mb", VARIABLES), ("mbpo", MBPO_VARIABLES)])
def test_default_flags(script: str, variables: dict[str, Any], checkout: Path) -> None:
    result = run(checkout)
    assert result.returncode == 0
    words = arguments(result.stdout, script)
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    assert pairs == {flag: default for flag, _, default in variables.values()}
    assert f"+ ./stub-python {' '.join(words)}" in result.stdout  # the exact command is printed


@pytest.mark.parametrize("name", [*(f"MB_{name}" for name in VARIABLES), *MBPO_VARIABLES])
def test_variable_sets_its_flag(name: str, checkout: Path) -> None:
    script = "mb" if name.startswith("MB_") else "mbpo"
    flag, value, _ = {**MBPO_VARIABLES, **{f"MB_{k}": v for k, v in VARIABLES.items()}}[name]
    words = arguments(run(checkout, **{name: value}).stdout, script)
    assert words[words.index(flag) + 1] == value


def test_bad_flags_of_mbpo_stop_the_script_before_mb() -> None:
    result = run(ROOT, PYTHON_BIN=sys.executable, MBPO_MPC_SAMPLING="foo")
    assert result.returncode == 2
    assert "run_hw4_mbpo.py: error: --mpc_action_sampling_strategy foo: must be" in result.stderr
    assert "run_hw4_mb.py" not in result.stdout


def test_a_resumed_mbpo_run_is_not_checked_before(checkout: Path) -> None:
    stub = checkout / "stub-python"
    stub.write_text('#!/bin/sh\ncase "$*" in *--dry_run*) exit 2;; esac\n')
    assert run(checkout, MBPO_EXTRA_FLAGS="--resume data/x").returncode == 0
    assert run(checkout).returncode == 2


def test_sac_batch_size_overrides_the_default_but_not_mbpo_batch_size(checkout: Path) -> None:
    words = arguments(run(checkout, SAC_BATCH_SIZE="1500").stdout, "mbpo")
    assert "--batch_size" not in words
    both = run(checkout, SAC_BATCH_SIZE="1500", MBPO_BATCH_SIZE="5000").stdout
    words = arguments(both, "mbpo")
    assert words[words.index("--batch_size") + 1] == "5000"


@pytest.mark.parametrize(("script", "prefix"), [("mb", "MB"), ("mbpo", "MBPO")])
def test_switches_and_extra_flags(script: str, prefix: str, checkout: Path) -> None:
    extra = {f"{prefix}_ADD_SL_NOISE": "1", f"{prefix}_EXTRA_FLAGS": "--no_gpu\n --seed 5"}
    words = arguments(run(checkout, **extra).stdout, script)
    assert "--add_sl_noise" in words
    assert words[-3:] == ["--no_gpu", "--seed", "5"]
    assert f"run_hw4_{script}.py" not in run(checkout, **{f"RUN_{prefix}": "0"}).stdout


def test_commands_of_the_readme(checkout: Path) -> None:
    """The commands are the same except for SKIP_INSTALL."""
    first = run(checkout, RUN_MBPO="0", MB_ENV_NAME="obstacles-cs285-v0", MB_MPC_SAMPLING="cem",
                MB_CEM_ITERATIONS="6", MB_CEM_NUM_ELITES="10").stdout  # fmt: skip
    words = arguments(first)
    assert "mbpo" not in first
    for flag, value in {"--mpc_action_sampling_strategy": "cem", "--cem_iterations": "6"}.items():
        assert words[words.index(flag) + 1] == value
    second = run(
        checkout, RUN_MB="0", MBPO_ENV_NAME="cheetah-cs285-v0", MBPO_ROLLOUT_LENGTH="5"
    ).stdout
    assert "run_hw4_mb.py" not in second
    words = arguments(second, "mbpo")
    assert words[words.index("--mbpo_rollout_length") + 1] == "5"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MB_ITER", "3"),
        ("SAC_LR", "1"),
        ("MBPO_HORIZON", "5"),
        ("RUN_MB", "yes"),
        ("MBPO_N_ITER", "abc"),
        ("SAC_LEARNING_RATE", "3e"),
    ],
)
def test_invalid_variables_stop_the_script_before_the_installation(
    name: str, value: str, checkout: Path
) -> None:
    result = run(checkout, SKIP_INSTALL="0", **{name: value})
    assert result.returncode == 2
    assert f"{name}={value}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (checkout / ".venv").exists()


def test_unknown_argument_and_help(checkout: Path) -> None:
    assert run(checkout, "--quik").returncode == 2
    text = run(checkout, "--help").stdout
    assert all(f" MB_{name} " in text for name in VARIABLES)
    assert all(f" {name} " in text for name in MBPO_VARIABLES)


def test_failed_experiment_stops_the_script(checkout: Path) -> None:
    failed = run(checkout, STUB_EXIT="3")
    assert failed.returncode == 3
    assert "mbpo" not in failed.stdout
    assert run(checkout, RUN_MB="0", STUB_EXIT="4").returncode == 4


def test_unsupported_python_is_rejected(checkout: Path) -> None:
    result = run(checkout, SKIP_INSTALL="0", PYTHON_BIN="./stub-python", STUB_EXIT="1")
    assert result.returncode == 2
    assert "PYTHON_BIN=./stub-python: must be Python 3.11 to 3.14" in result.stderr


def test_python_that_is_not_executable_is_rejected(checkout: Path) -> None:
    result = run(checkout, PYTHON_BIN="/nope")
    assert result.returncode == 2
    assert "PYTHON_BIN=/nope: must be an executable Python" in result.stderr
    assert result.stderr.count("\n") == 1


def test_quick_demonstration_runs(tmp_path: Path) -> None:
    there = f"--data_dir {tmp_path}"
    result = run(
        ROOT, "--quick", PYTHON_BIN=sys.executable, MB_EXTRA_FLAGS=there, MBPO_EXTRA_FLAGS=there
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(": return ") == 2 + 6
    folders = list(tmp_path.glob("hw4_quick_obstacles-cs285-v0_*"))
    assert len(folders) == 2
    assert all((folder / "itr_0_predictions.png").exists() for folder in folders)
