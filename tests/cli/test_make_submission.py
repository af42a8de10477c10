"""Tests of make_submission.py."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from cs285.infrastructure.recording.event_file import EventFile, read_events
from cs285.scripts.make_submission import main
from tests.cli.processes import start

ROOT = Path(__file__).parents[2]
GIF = os.urandom(50_000)
Q1 = "hw4_q1_cheetah_n500_arch1x32_cheetah-cs285-v0_24-11-2026_21-59-31"
Q3 = "hw4_q3_obstacles_obstacles-cs285-v0_24-11-2026_21-59-31"
TODO = "hw4_todo_obstacles-cs285-v0_24-11-2026_21-59-31"


def make_run(folder: Path, rows: int = 2, n_iter: int = 2, log_freq: int = 1) -> Path:
    """Create the files of a run with a video, without progress.csv if log_freq is -1."""
    folder.mkdir(parents=True)
    flags = {"n_iter": n_iter, "scalar_log_freq": log_freq}
    (folder / "config.json").write_text(json.dumps({"flags": flags}))
    events = EventFile(folder, 0)
    events.open()
    events.add_video("eval_rollouts", GIF, np.zeros((2, 8, 8, 3), np.uint8), 0)
    for row in range(rows):
        events.add_scalars({"Eval_AverageReturn": -row / 3}, row)
    events.close()
    if log_freq > 0:
        with (folder / "progress.csv").open("w", newline="") as stream:
            table = [["Iteration", "Eval_AverageReturn"], *([i, -i / 3] for i in range(rows))]
            csv.writer(stream, lineterminator="\n").writerows(table)
    (folder / "videos").mkdir()
    junk = ["videos/eval_rollouts_itr_0.mp4", "checkpoint.pt", ".lock", "agent_itr_0.pt", ".x.tmp"]
    pictures = ["itr_0_losses.npy", "itr_0_losses.png", "itr_0_predictions.npz"]
    for name in junk + pictures:
        (folder / name).write_bytes(b"content of " + name.encode())
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_run(tmp_path / "data" / Q1, rows=0, n_iter=1, log_freq=-1)
    make_run(tmp_path / "data" / Q3)
    make_run(tmp_path / "data" / TODO)
    return tmp_path / "data"


def pack(data: Path, *words: str, output: str = "submit.zip") -> tuple[int, Path]:
    """Run the script in this process. Return its exit code and the path of the zip."""
    target = data.parent / output
    try:
        return main(["--data_dir", str(data), "--output", str(target), *words]), target
    except SystemExit as error:  # argparse
        return int(str(error.code)), target


def names_of(file: Path, under: str = "") -> set[str]:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return {name for name in archive.namelist() if name.startswith(under)}


def runs_of(file: Path) -> set[str]:
    return {name.split("/")[1] for name in names_of(file, "data/")}


def test_zip_contains_the_files_for_the_assignment(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, file = pack(data)
    assert code == 0
    printed = capsys.readouterr()
    (q1_events,), (q3_events,) = ((data / run).glob("events*") for run in (Q1, Q3))
    pictures = {"itr_0_losses.npy", "itr_0_losses.png", "itr_0_predictions.npz"}
    assert names_of(file, "data/") == {
        *(f"data/{Q1}/{name}" for name in {"config.json", q1_events.name, *pictures}),
        *(f"data/{Q3}/{name}" for name in ("config.json", "progress.csv", q3_events.name)),
    }
    code_files = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("cs285/[!d]*/**/*.py")}
    assert len(code_files) > 40
    assert names_of(file, "cs285/") >= code_files | {"cs285/__init__.py"}
    assert {"cs285/envs/reacher/assets/reacher.xml", "cs285/py.typed"} <= names_of(file)
    assert {name.split("/")[0] for name in names_of(file)} == {"data", "cs285", "README.md"}
    assert not [name for name in names_of(file) if "__pycache__" in name or name.endswith(".mp4")]
    assert printed.err.splitlines() == [
        f"warning: skipped {TODO}; folders to pack must be named "
        "hw4_q1_... to hw4_q6_... and contain an event file",
        "warning: no run of q2, q4, q5, q6; run these questions before you submit",
    ]
    assert all(f"data/{run}\n" in printed.out for run in (Q1, Q3))


def test_scalars_are_kept_and_videos_are_removed(data: Path, tmp_path: Path) -> None:
    _, file = pack(data)
    zipfile.ZipFile(file).extractall(tmp_path / "unzipped")
    (before,), (after,) = (
        root.glob(f"{Q3}/events*") for root in (data, tmp_path / "unzipped" / "data")
    )
    assert list(read_events(after)) == list(read_events(before, media=False))
    assert len(list(read_events(after))) == 3
    assert GIF not in after.read_bytes()
    kept = tmp_path / "unzipped" / "data" / Q1 / "itr_0_losses.npy"
    assert kept.read_bytes() == b"content of itr_0_losses.npy"


def test_truncated_event_file_is_packed_up_to_the_damage(data: Path, tmp_path: Path) -> None:
    (file,) = (data / Q3).glob("events*")
    whole = list(read_events(file, media=False))
    os.truncate(file, file.stat().st_size - 3)
    _, packed = pack(data)
    zipfile.ZipFile(packed).extractall(tmp_path / "unzipped")
    assert list(read_events(tmp_path / "unzipped" / "data" / Q3 / file.name)) == whole[:-1]


def test_unzipped_package_works_without_the_checkout(data: Path, tmp_path: Path) -> None:
    _, file = pack(data)
    zipfile.ZipFile(file).extractall(tmp_path / "unzipped")
    command = [sys.executable, "-m", "cs285.scripts.run_hw4_mb", "--help"]
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONSAFEPATH": ""}
    unzipped = tmp_path / "unzipped"
    result = subprocess.run(command, cwd=unzipped, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "--mpc_horizon" in result.stdout
    where = [sys.executable, "-c", "import cs285; print(cs285.__file__)"]
    result = subprocess.run(where, cwd=unzipped, env=environment, capture_output=True, text=True)
    assert result.stdout.startswith(str(unzipped))


def test_same_files_give_the_same_zip(data: Path) -> None:
    _, first = pack(data, output="first.zip")
    for path in data.rglob("*"):
        os.utime(path, (1, 1))
    _, second = pack(data, output="second.zip")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert names == [
        *sorted(names_of(first, "data/")),
        *sorted(names_of(first, "cs285/"), key=PurePosixPath),
        names[-1],
    ]


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["--questions", "q1"], {Q1}),
        (["--questions", "q1", "q3"], {Q1, Q3}),
        (["--runs", "hw4_q3*"], {Q3}),
        (["--runs", "hw4_q?_*"], {Q1, Q3}),
        (["--runs", Q1, "*obstacles*"], {Q1, Q3}),
        (["--runs", "*", "--questions", "q3"], {Q3}),
    ],
)
def test_selection_of_runs(words: list[str], chosen: set[str], data: Path) -> None:
    code, file = pack(data, *words)
    assert code == 0
    assert runs_of(file) == chosen


def test_runs_may_be_paths(data: Path) -> None:
    assert runs_of(pack(data, "--runs", f"{data}/{Q1}/")[1]) == {Q1}
    assert pack(data, "--runs", f"elsewhere/{Q1}", output="other.zip")[0] == 2


def test_only_the_newest_run_of_an_experiment(data: Path) -> None:
    later = Q3.replace("24-11-2026", "01-02-2027")  # newer, although its name sorts first
    make_run(data / later)
    assert runs_of(pack(data)[1]) == {Q1, Q3, later}
    assert runs_of(pack(data, "--newest", output="newest.zip")[1]) == {Q1, later}


@pytest.mark.parametrize(
    ("rows", "n_iter", "log_freq", "progress"),
    [(2, 12, 1, "2 of 12 iterations"), (0, 3, 5, "0 of 3 iterations"), (12, 12, 1, ""),
     (11, 13, 5, ""), (6, 12, 5, "6 of 12 iterations")],
)  # fmt: skip
def test_warning_about_unfinished_runs(
    rows: int,
    n_iter: int,
    log_freq: int,
    progress: str,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "hw4_q2_new_24-11-2026_21-59-32"
    make_run(data / name, rows, n_iter, log_freq)
    assert pack(data)[0] == 0
    err = capsys.readouterr().err
    warning = f"warning: not finished: {name} ({progress}); continue"
    assert (warning in err) if progress else "finished" not in err


def test_warning_about_an_unfinished_run_of_question_1(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("checkpoint.pt", "itr_0_losses.npy"):
        (data / Q1 / name).unlink()
    assert pack(data)[0] == 0
    assert f"not finished: {Q1} (0 of 1 iterations)" in capsys.readouterr().err


def test_run_of_the_homework_code_without_config_is_packed(data: Path) -> None:
    (data / Q3 / "config.json").unlink()
    assert Q3 in runs_of(pack(data)[1])


def test_too_large_zip_is_not_written(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / Q1 / "itr_0_losses.npy").write_bytes(os.urandom(700_000))
    code, file = pack(data, "--limit_mb", "0.5")
    assert code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"the largest run is {Q1} with 0.70 MB" in error
    assert list(file.parent.iterdir()) == [data]
    file.write_text("older")
    assert pack(data, "--limit_mb", "0.5", "--overwrite")[0] == 2
    assert file.read_text() == "older"
    assert pack(data, "--limit_mb", "1.5", "--overwrite")[0] == 0
    assert Q1 in runs_of(file)


def test_full_disk_keeps_the_old_zip(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = data.parent / "submit.zip"
    file.write_text("older")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cs285.scripts.make_submission.copy_without_media", full)
    assert pack(data, "--overwrite")[0] == 2
    assert file.read_text() == "older"
    assert sorted(path.name for path in data.parent.iterdir()) == ["data", "submit.zip"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runs", TODO], f"--runs {TODO}: no run in --data_dir"),
        (["--runs", "hw4_q1*", "typo*"], "--runs typo*: no run in --data_dir"),
        (["--questions", "q9"], "q9"),
        (["--questions", "q4"], "no run of q4"),
        (["--limit_mb", "0"], "--limit_mb 0: must be a positive, finite number"),
        (["--limit_mb", "large"], "--limit_mb large: must be a positive"),
        (["--data_dir", "nowhere"], "--data_dir nowhere: no such folder"),
        (["--output", "nowhere/submit.zip"], "--output nowhere/submit.zip: must be a file"),
        (["--run", "x"], "--runs"),
    ],
)
def test_bad_input_is_a_one_line_error(
    words: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, file = pack(data, *words)
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert list(file.parent.iterdir()) == [data]


def test_existing_zip_is_not_overwritten(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data.parent / "submit.zip").write_text("older")
    code, file = pack(data)
    assert code == 2
    assert "submit.zip: must not exist yet; choose another path" in capsys.readouterr().err
    assert file.read_text() == "older"


def test_folder_without_runs_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "hw4_q1_without_events").mkdir(parents=True)
    code, file = pack(tmp_path / "data")
    assert code == 2
    assert "no run of q1, q2, q3, q4, q5, q6" in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("script", ["make_submission.py", "filter_events.py"])
def test_scripts_print_their_help(script: str) -> None:
    process = start(f"scripts/{script}", "--help")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "--output" in out
