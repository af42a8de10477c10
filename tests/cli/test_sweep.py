"""Tests of sweep.py: grids, searches, kills and bad input."""

import csv
import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from cs285.collection.collector import available_cores
from cs285.experiments.sweeps.folder import read
from cs285.experiments.sweeps.trials import Trials
from cs285.scripts import plot_results, run_hw4_mb
from cs285.scripts.sweep import main
from tests.cli.processes import ROOT, children_of, command_of, start, wait_until
from tests.conftest import TINY, arguments, exit_code_of, read_curve

SECONDS = 240.0
FLAGS = {**TINY, "num_workers": None, "video_log_freq": -1}
LONG = {**FLAGS, "n_iter": 12, "batch_size": 200}


def words(data: Path, flags: dict[str, Any] = FLAGS, **more: Any) -> list[str]:
    return ["--script", "mb", *arguments(**{**flags, **more}), "--data_dir", str(data)]


def sweep_folder(data: Path) -> Path:
    (folder,) = data.glob("sweep_tiny_*")
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def log_folder(folder: Path, trial: str) -> Path:
    (found,) = folder.glob(f"hw4_{trial}_obstacles*")
    return found


def by_hand(trial: Path, data: Path) -> list[dict[str, str]]:
    """Return the curve of a new run with the flags of a trial."""
    flags = json.loads((trial / "config.json").read_text())["flags"]
    given = {name: value for name, value in flags.items() if value not in (None, False)}
    assert run_hw4_mb.main(arguments(**{**given, "data_dir": data})) == 0
    (folder,) = data.glob("hw4_*")
    return read_curve(folder)


BARE = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = None  # simulates that they are not installed
from cs285.scripts.sweep import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished sweep of two sizes and two seeds, made without Ray and Optuna."""
    data = tmp_path_factory.mktemp("grid")
    (data / "bare.py").write_text(BARE)
    process = start(str(data / "bare.py"), *words(data, size="16,24", seed="1,2"))
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    assert error == ""
    assert "tiny_size24_seed2" in out and out.count("done") == 4
    return sweep_folder(data)


def test_trials_of_a_grid_are_ordinary_runs(grid: Path, tmp_path: Path) -> None:
    rows = table(grid)
    assert [row["trial"] for row in rows] == [
        "tiny_size16_seed1", "tiny_size16_seed2", "tiny_size24_seed1", "tiny_size24_seed2",
    ]  # fmt: skip
    for row in rows:
        curve = read_curve(grid / row["folder"])
        assert row["state"] == "done" and row["iterations"] == "2" and row["error"] == ""
        assert float(row["metric"]) == float(curve[-1]["Eval_AverageReturn"])
    trial = grid / rows[2]["folder"]
    assert {file.name.split(".")[0] for file in trial.iterdir()} >= {
        "config", "progress", "checkpoint", "events",
    }  # fmt: skip
    assert by_hand(trial, tmp_path) == read_curve(trial)


def test_finished_sweep_is_not_repeated(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in grid.rglob("*") if file.name != ".lock"}
    assert main(["--resume", str(grid)]) == 0
    after = {file: file.stat().st_mtime_ns for file in grid.rglob("*") if file.name != ".lock"}
    assert before == after
    assert capsys.readouterr().out == f"{grid} is finished\n"


def test_plot_of_a_sweep(grid: Path, tmp_path: Path) -> None:
    picture = tmp_path / "sweep.png"
    assert plot_results.main([str(grid), "--output", str(picture)]) == 0
    assert picture.stat().st_size > 10_000


def runs_below(pid: int) -> list[int]:
    return [child for child in children_of(pid) if "run_hw4_mb" in command_of(child)]


def wait_for_the_end_of(runs: list[int]) -> None:
    wait_until(lambda: not any("run_hw4_mb" in command_of(pid) for pid in runs))


@pytest.mark.skipif(available_cores() < 2, reason="needs two runs in parallel")
@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
def test_interrupted_sweep_can_be_resumed(how: signal.Signals, tmp_path: Path) -> None:
    """The curves equal the curves of uninterrupted runs, and no process is left over."""
    process = start(
        "scripts/sweep.py", *words(tmp_path, LONG, size="16,24"), start_new_session=True
    )
    wait_until(lambda: len(list(tmp_path.glob("sweep_*/hw4_*/checkpoint.pt"))) == 2, SECONDS)
    left = children_of(process.pid)
    os.killpg(process.pid, how)  # like a terminal
    error = process.communicate(timeout=SECONDS)[1]
    folder = sweep_folder(tmp_path)
    assert process.returncode == 130
    assert error == f"sweep.py: error: interrupted; continue with --resume {folder}\n"
    assert not set(left) & set(children_of(1))
    for log in folder.glob("*.log"):
        assert "interrupted" in log.read_text()
    assert [row["state"] for row in table(folder)] == ["waiting", "waiting"]
    assert main(["--resume", str(folder)]) == 0
    assert [row["state"] for row in table(folder)] == ["done", "done"]
    trial = log_folder(folder, "tiny_size24")
    assert read_curve(trial) == by_hand(trial, tmp_path / "by_hand")


def test_search_continues_after_its_driver_was_killed(tmp_path: Path) -> None:
    """The trials equal the trials of an uninterrupted search, and ASHA stops some of them."""
    pytest.importorskip("optuna")
    flags = {**LONG, "n_iter": 9, "batch_size": 400, "size": "8:32"}
    flags["learning_rate"] = "1e-4:1e-2:log"
    process = start(
        "scripts/sweep.py", *words(tmp_path, flags), "--search", "4", "--sampler", "optuna",
        "--asha", "--jobs", "2",
    )  # fmt: skip
    wait_until(lambda: bool(list(tmp_path.glob("sweep_*/hw4_*/checkpoint.pt"))), SECONDS)
    runs = runs_below(process.pid)
    process.kill()
    process.communicate(timeout=SECONDS)
    wait_for_the_end_of(runs)  # the runs end with the driver
    folder = sweep_folder(tmp_path)
    begun = table(folder)
    assert 1 <= len(begun) < 4
    assert main(["--resume", str(folder)]) == 0
    rows, plan = table(folder), read(folder)
    assert [row["trial"] for row in rows[: len(begun)]] == [row["trial"] for row in begun]
    (tmp_path / "uninterrupted").mkdir()
    uninterrupted = Trials(plan, tmp_path / "uninterrupted")
    while uninterrupted.next_job():
        pass
    assert [row["trial"] for row in rows] == list(uninterrupted.by_name)
    for row in rows:
        curve = read_curve(folder / row["folder"])
        assert row["state"] in ("done", "stopped early")
        is_done = row["state"] == "done"
        assert (row["iterations"] == "9") == is_done == (len(curve) == 9)
        assert len(list(folder.glob(f"hw4_{row['trial']}_*"))) == 1
    assert any(row["state"] == "stopped early" for row in rows)


OWN_AGENT = """
from cs285.agents import registry
from cs285.cli.launch import launch

mb = registry.find_agent("mb")
registry.register(registry.AgentEntry("own", "own_agent", mb.config_class, mb.build))
if __name__ == "__main__":
    raise SystemExit(launch("own", None))
"""


def test_own_agent_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "own_agent.py").write_text(OWN_AGENT)
    flags = words(tmp_path, size="16")[2:]
    process = start("scripts/sweep.py", "--script", "own_agent:own", *flags, cwd=tmp_path)
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    folder = sweep_folder(tmp_path)
    assert [row["state"] for row in table(folder)] == ["done"]
    about = json.loads((log_folder(folder, "tiny") / "config.json").read_text())
    assert about["agent"] == "own_agent:own"


def test_other_trials_continue_after_a_failed_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)  # so that tests/toys.py can be imported
    tasks = "tests.toys:NanReward-v0,tests.toys:LinearReach-v0"
    assert main(words(tmp_path, env_name=tasks)) == 1
    error = capsys.readouterr().err
    assert " failed: " in error and "non-finite" in error and error.count("\n") == 1
    failed, done = table(sweep_folder(tmp_path))
    assert failed["state"] == "failed" and "non-finite" in failed["error"]
    assert done["state"] == "done" and done["iterations"] == "2"


def test_killed_run_is_resumed(tmp_path: Path) -> None:
    process = start("scripts/sweep.py", *words(tmp_path, LONG, size="16,24"))
    wait_until(lambda: len(list(tmp_path.glob("sweep_*/hw4_*/checkpoint.pt"))) == 2, SECONDS)
    killed = runs_below(process.pid)[0]
    size = "16" if "--size=16" in command_of(killed) else "24"
    os.kill(killed, signal.SIGKILL)
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    folder = sweep_folder(tmp_path)
    for row in table(folder):
        assert row["state"] == "done" and row["iterations"] == "12" and row["error"] == ""
    trial = log_folder(folder, f"tiny_size{size}")
    assert "resumed" in json.loads((trial / "config.json").read_text())
    assert read_curve(trial) == by_hand(trial, tmp_path / "by_hand")


def test_metric_that_is_not_logged(tmp_path: Path) -> None:
    process = start("scripts/sweep.py", *words(tmp_path, seed="1,2"), "--metric", "Foo")
    error = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1
    assert error.count("--metric Foo: the run does not log it; must be one of Iteration") == 2
    assert error.count("\n") == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--script", "mb"], "--env_name: must be the id"),
        (["--env_name", "obstacles-cs285-v0"], "--script: must be mb, mbpo"),
        (["--script", "mc"], "--script mc: must be mb, mbpo"),
        (["--script", "nowhere:mc"], "--script nowhere:mc: cannot import nowhere"),
        (["--script", "mb", "--env_name", "NoSuchTask-v0"], "NoSuchTask-v0"),
        (["--script", "mb", "--sise", "3"], "--sise"),
        (["--script", "mb", "--size", "16,-1"], "--size -1: must be an integer from 1"),
        (["--script", "mb", "--video_log_freq", "1,2"], "--video_log_freq: must be a single value"),
        (["--script", "mb", "--cem_alpha", "0.5,1"], "--cem_alpha 0.5,1.0: must be values"),
        (["--script", "mb", "--search", "0", "--size", "8:16"], "--search 0: must be an integer"),
        (
            ["--script", "mb", "--sampler", "optuna", "--size", "8,16"],
            "--sampler optuna: must be given together with --search",
        ),
        (["--script", "mb", "--which_gpu", "1", "--size", "8,16"], "--which_gpu: must be left out"),
        (["--script", "mb", "--num_workers", "2"], "--num_workers: must be left out"),
        (["--script", "mb", "--checkpoint_freq", "-1"], "--checkpoint_freq -1: must be a positive"),
        (["--script", "mb", "--gpus_per_trial", "1.5"], "--gpus_per_trial 1.5: must be a share"),
        (["--resume", "nowhere"], "--resume nowhere: No such file or directory (sweep.json)"),
    ],
)
def test_bad_input_is_a_one_line_error(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = exit_code_of(main, [*given, "--data_dir", str(tmp_path / "data")])
    assert code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_flags_with_resume_must_match_the_sweep(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--resume", str(grid), "--size", "16,32"]) == 2
    error = capsys.readouterr().err
    assert f"--size 16,32: the sweep in {grid} has 16,24; must be the same" in error
    assert main(["--resume", str(grid), "--size", "16,24"]) == 0


def test_address_without_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    pytest.importorskip("ray")
    assert main([*words(data, seed="1,2"), "--address", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "--address 127.0.0.1:1: no Ray cluster answers there" in error
    assert error.count("\n") == 1 and not data.exists()


def test_address_that_does_not_respond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("cs285.experiments.launchers.ray.CONNECT_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main([*words(tmp_path / "data", seed="1,2"), "--address", address]) == 2
    assert f"--address {address}: no Ray cluster answers there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--cpus_per_trial", "1000"], "--cpus_per_trial 1000: must be at most what this machine"),
        (["--gpus_per_trial", "64"], "--gpus_per_trial 64: must be at most what this machine has"),
    ],
)
def test_share_larger_than_the_machine_is_rejected(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(tmp_path / "data", seed="1,2"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("package", "module", "given", "message"),
    [
        ("ray", "launchers.ray", ["--address", "auto"], "pip install -e '.[cluster]'"),
        ("optuna", "sweeps.search", ["--asha"], "pip install -e '.[search]'"),
        (
            "optuna",
            "sweeps.search",
            ["--search", "2", "--sampler", "optuna"],
            "must be left out without Optuna",
        ),
    ],
)
def test_error_if_an_optional_package_is_missing(
    package: str,
    module: str,
    given: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"cs285.experiments.{module}", raising=False)
    folder, _, name = module.rpartition(".")
    parent = importlib.import_module(f"cs285.experiments.{folder}")
    monkeypatch.delattr(parent, name, raising=False)
    assert main([*words(tmp_path / "data", seed="1,2"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_dry_run_prints_the_commands_of_the_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(tmp_path, size="16,24"), "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("python scripts/run_hw4_mb.py ")
    assert "--size=24" in lines[1] and "--exp_name=tiny_size24" in lines[1]
    assert not list(tmp_path.iterdir())
