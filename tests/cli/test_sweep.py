"""Sweeps as a user runs them: grids, searches, kills, bad input. A trial is the ordinary run."""

import csv
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from cs285.collection.collector import available_cores
from cs285.scripts import plot_results, run_hw4_mb
from cs285.scripts.sweep import main
from tests.cli.processes import ROOT, children_of, command_of, start, wait_until
from tests.conftest import TINY, arguments, read_curve

pytest.importorskip("ray")
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
    """Return the curve of a run with the flags in a trial's config.json."""
    flags = json.loads((trial / "config.json").read_text())["flags"]
    given = {name: value for name, value in flags.items() if value not in (None, False)}
    assert run_hw4_mb.main(arguments(**{**given, "data_dir": data})) == 0
    (folder,) = data.glob("hw4_*")
    return read_curve(folder)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two sizes and two seeds."""
    data = tmp_path_factory.mktemp("grid")
    process = start("scripts/sweep.py", *words(data, size="16,24", seed="1,2"))
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    assert error == ""
    assert "tiny_size24_seed2" in out and out.count("done") == 4
    return sweep_folder(data)


def test_grid_has_a_table_and_ordinary_runs(grid: Path, tmp_path: Path) -> None:
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
    assert not (grid / "tune").exists()


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


@pytest.mark.skipif(available_cores() < 2, reason="its two runs are to be stopped side by side")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_and_resumed(how: signal.Signals, tmp_path: Path) -> None:
    """Curves are those of runs never stopped, and no process is left behind."""
    process = start(
        "scripts/sweep.py", *words(tmp_path, LONG, size="16,24"), start_new_session=True
    )
    wait_until(lambda: len(list(tmp_path.glob("sweep_*/hw4_*/checkpoint.pt"))) == 2, SECONDS)
    left = children_of(process.pid)
    if how == signal.SIGINT:  # as a terminal sends it
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    error = process.communicate(timeout=SECONDS)[1]
    folder = sweep_folder(tmp_path)
    if how != signal.SIGKILL:  # else Ray's agents look after themselves, some seconds later
        assert process.returncode == 130
        assert error == f"sweep.py: error: interrupted; go on with --resume {folder}\n"
        assert not set(left) & set(children_of(1))
        for log in folder.glob("*.log"):
            assert "interrupted" in log.read_text()
    runs = [pid for pid in left if "run_hw4_mb" in command_of(pid)]
    wait_until(lambda: not any("run_hw4_mb" in command_of(pid) for pid in runs))
    assert all(row["state"] in ("waiting", "running") for row in table(folder))
    assert main(["--resume", str(folder)]) == 0
    assert [row["state"] for row in table(folder)] == ["done", "done"]
    trial = log_folder(folder, "tiny_size24")
    assert read_curve(trial) == by_hand(trial, tmp_path / "by_hand")


def test_trial_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)  # where tests/toys.py is found
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
    runs = [pid for pid in children_of(process.pid) if "run_hw4_mb" in command_of(pid)]
    os.kill(runs[0], signal.SIGKILL)
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    folder = sweep_folder(tmp_path)
    for row in table(folder):
        assert row["state"] == "done" and row["iterations"] == "12" and row["error"] == ""
        trial = folder / row["folder"]
        assert read_curve(trial) == by_hand(trial, tmp_path / row["size"])


def test_search_by_optuna_stops_what_is_behind(tmp_path: Path) -> None:
    flags = {**LONG, "n_iter": 9, "batch_size": 400, "size": "8:32"}
    flags["learning_rate"] = "1e-4:1e-2:log"
    process = start(
        "scripts/sweep.py", *words(tmp_path, flags), "--search", "4", "--sampler", "optuna",
        "--asha",
    )  # fmt: skip
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    rows = table(sweep_folder(tmp_path))
    assert len({row["size"] + row["learning_rate"] for row in rows}) == 4
    for row in rows:
        curve = read_curve(sweep_folder(tmp_path) / row["folder"])
        assert row["state"] in ("done", "stopped early")
        is_done = row["state"] == "done"
        assert (row["iterations"] == "9") == is_done == (len(curve) == 9)
    assert any(row["state"] == "stopped early" for row in rows)


def test_metric_that_is_not_logged(tmp_path: Path) -> None:
    process = start("scripts/sweep.py", *words(tmp_path, seed="1,2"), "--metric", "Foo")
    error = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1
    assert error.count("--metric Foo: the run logs none; allowed are Iteration") == 2
    assert error.count("\n") == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--script", "mb"], "--env_name is required"),
        (["--env_name", "obstacles-cs285-v0"], "--script is required; allowed are mb and mbpo"),
        (["--script", "mc"], "--script mc; allowed are mb and mbpo"),
        (["--script", "mb", "--env_name", "NoSuchTask-v0"], "NoSuchTask-v0"),
        (["--script", "mb", "--sise", "3"], "--sise"),
        (["--script", "mb", "--size", "16,-1"], "--size -1: allowed are"),
        (["--script", "mb", "--video_log_freq", "1,2"], "--video_log_freq: allowed is one value"),
        (["--script", "mb", "--cem_alpha", "0.5,1"], "--cem_alpha 0.5,1.0: without effect"),
        (["--script", "mb", "--search", "0", "--size", "8:16"], "--search 0: allowed are"),
        (["--script", "mb", "--sampler", "optuna", "--size", "8,16"], "allowed with --search"),
        (["--script", "mb", "--which_gpu", "1", "--size", "8,16"], "--which_gpu: allowed in a run"),
        (["--script", "mb", "--num_workers", "2"], "--num_workers: allowed in a run by hand"),
        (["--script", "mb", "--checkpoint_freq", "-1"], "--checkpoint_freq -1: allowed in a sweep"),
        (["--script", "mb", "--gpus_per_trial", "1.5"], "--gpus_per_trial 1.5: allowed are shares"),
        (["--resume", "nowhere"], "--resume nowhere: No such file or directory (sweep.json)"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([*given, "--data_dir", str(tmp_path / "data")])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_folder_of_another_sweep(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--resume", str(grid), "--size", "16,32"]) == 2
    assert "belongs to another sweep, of --size 16,24, not 16,32" in capsys.readouterr().err
    assert main(["--resume", str(grid), "--size", "16,24"]) == 0


def test_address_without_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert main([*words(data, seed="1,2"), "--address", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "--address 127.0.0.1:1: no cluster of Ray answers there" in error
    assert error.count("\n") == 1 and not data.exists()


def test_address_where_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main([*words(tmp_path / "data", seed="1,2"), "--address", address]) == 2
    assert f"--address {address}: no cluster of Ray answers there" in capsys.readouterr().err


def test_more_than_a_node_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(tmp_path / "data", seed="1,2"), "--cpus_per_trial", "1000"]) == 2
    error = capsys.readouterr().err
    assert "--cpus_per_trial 1000: allowed is what a node has" in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    assert main(words(tmp_path / "data", seed="1,2")) == 2
    error = capsys.readouterr().err
    assert "pip install -e '.[cluster]'" in error and error.count("\n") == 1


def test_dry_run_prints_commands_that_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(tmp_path, size="16,24"), "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("python scripts/run_hw4_mb.py ")
    assert "--size=24" in lines[1] and "--exp_name=tiny_size24" in lines[1]
    assert not list(tmp_path.iterdir())
