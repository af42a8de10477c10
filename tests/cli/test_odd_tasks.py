"""Runs of tasks, terminals and folders that are unusual but legal, or wrong in a common way."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cs285.api import train
from cs285.scripts import sweep
from cs285.scripts.run_hw4_mb import main
from tests.cli.processes import ROOT, only_folder, start
from tests.conftest import TINY, arguments, error_of, read_curve
from tests.odd_tasks import SetsDoubles

SCRIPT = "scripts/run_hw4_mb.py"
SHORT = {**TINY, "env_name": None, "n_iter": 1}
Run = Callable[..., Path]


@pytest.mark.parametrize("name", ["SetsDoubles", "StopsGradients", "ArrayReward", "TensorReward"])
def test_task_gives_the_data_of_the_plain_task(name: str, run_tiny: Run) -> None:
    odd, plain = (read_curve(run_tiny(env_name=f"{each}-v0")) for each in (name, "LinearReach"))
    assert odd == plain
    assert torch.get_default_dtype() == torch.float32


def test_actions_are_inside_bounds_that_float32_cannot_hold(run_tiny: Run) -> None:
    run_tiny(env_name="HasBounds-v0")  # the task checks its actions


def test_task_that_stands_still_gives_no_warning(
    run_tiny: Run, recwarn: pytest.WarningsRecorder
) -> None:
    """Its training loss is exactly 0, which has no logarithm."""
    run_tiny(env_name="StandsStill-v0", n_iter=1)
    assert [warning for warning in recwarn if "log" in str(warning.message)] == []


def test_training_and_acting_in_a_script_that_computes_in_float64(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        flags = {**SHORT, "data_dir": tmp_path}
        agent = train("mb", SetsDoubles, **{k: v for k, v in flags.items() if k != "env_name"})
        assert agent.predict(np.zeros(2)).dtype == np.float32
        for member in ("mean", "random", 0):
            env = agent.model_env(member)
            env.reset(seed=1)
            assert env.step(np.zeros(2, np.float32))[0].dtype == np.float32
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("FailsToClose", "ConnectionError (the simulator is gone)"),
        ("ExitsInClose", "SystemExit (0)"),
    ],
)
def test_error_in_close_is_one_warning(
    name: str, error: str, run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_curve(run_tiny(env_name=f"tests.odd_tasks:{name}-v0", num_workers=2))
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{name}-v0 raised {error} in odd_" in err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TwoRewards", "]), at env step 0 of an episode; must be one number"),
        ("NoReward", "returned the reward None, at env step 0 of an episode; must be one number"),
        ("OldStep", "at env step 0 of an episode; its step must return a tuple (observation, r"),
        ("HugeReward", "000, at env step 0 of an episode; must be one number"),
        ("TextReward", "returned the reward '1.5', at env step 0 of an episode; must be one num"),
        ("ExitsInPlans", "error: the task's get_reward raised SystemExit (0) in odd_tasks.py, l"),
        ("ChangesNames", "must be the same names for each"),
    ],
)
def test_errors_of_step_say_what_to_change(
    name: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(**{**SHORT, "env_name": f"{name}-v0", "data_dir": tmp_path})) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert expected in err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OldReset", "returned one value of type ndarray, in reset; must be a tuple (observation,"),
        ("NeedsLicence", "its constructor raised Error (no licence) in odd_tasks.py, line"),
        ("NeedsPackage", "its constructor raised ModuleNotFoundError (No module named 'package_th"),
        ("NeedsArgument", "missing 1 required positional argument: 'size'"),
        (
            "RewardOfNumPy",
            "fails on torch tensors (it returns ndarray instead of tensors); must be",
        ),
        ("ExitsInReward", "its get_reward fails on torch tensors (0); must be"),
        ("TakesAName", "returned the name AverageReturn; must be other names than AverageReturn,"),
        ("NanBound", "must have lower bounds that are at most the upper bounds"),
        ("FailsToTell", "its get_reward raised RuntimeError (no reward) in odd_tasks.py, line"),
    ],
)
def test_errors_before_the_run_are_shown_as_they_are(
    name: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(**{**SHORT, "env_name": f"{name}-v0", "data_dir": tmp_path})
    error = error_of(main, words, capsys)
    assert expected in error
    assert "any Gymnasium id" not in error


def test_unknown_id_and_module_name_the_valid_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Nowhere-v0", "module_that_is_missing:Task-v0", "bad id"):
        error = error_of(main, ["--env_name", name], capsys)
        assert f"--env_name {name}: cannot find this environment (" in error
        assert "; must be cheetah-cs285-v0, obstacles" in error


@pytest.mark.parametrize(
    ("name", "workers", "expected"),
    [
        ("Forks", 1, []),
        ("Forks", 2, ["(daemonic processes are not allowed", "need --num_workers 1"]),
        ("ForksAndForgets", 1, ["processes running, which are now killed; must end them in its"]),
    ],
)
def test_task_that_starts_processes(
    name: str, workers: int, expected: list[str], tmp_path: Path
) -> None:
    """It ends without tracebacks of its children, and leaves none behind."""
    task = f"tests.odd_tasks:{name}-v0"
    flags = {**SHORT, "env_name": task, "num_workers": workers, "data_dir": tmp_path}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = start(SCRIPT, *arguments(**flags), env=environment)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("\n") == bool(expected), err
    assert all(part in err for part in expected)
    assert len(read_curve(only_folder(tmp_path))) == 1


def shell(words: str, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with tiny flags and further words of a shell, in a folder."""
    flags = " ".join(arguments(**{**TINY, "n_iter": 1}))
    return subprocess.run(
        f"{sys.executable} {ROOT / SCRIPT} {flags} {words}",
        shell=True,
        cwd=place,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_closed_streams(tmp_path: Path) -> None:
    ended = shell("--data_dir data >&- <&-", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(read_curve(only_folder(tmp_path / "data"))) == 1


def test_path_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    ended = shell("--data_dir été", tmp_path, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert r"logging to \xe9t\xe9/hw4_tiny" in ended.stdout
    assert len(read_curve(only_folder(tmp_path / "été"))) == 1


def test_data_dir_that_is_a_link_to_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "gone")
    words = arguments(**{**TINY, "data_dir": tmp_path / "data"})
    error = error_of(main, words, capsys)
    assert f"data: is a link to {tmp_path}/gone, which does not exist; must be a writable" in error
    words = ["--script", "mb", "--env_name", "obstacles-cs285-v0", "--size", "8,16"]
    words += ["--data_dir", str(tmp_path / "data")]
    assert "data: File exists; must be a writable folder" in error_of(sweep.main, words, capsys)


def test_data_dir_whose_name_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(**{**TINY, "data_dir": "x" * 5000})
    assert "File name too long); must be a writable folder" in error_of(main, words, capsys)
