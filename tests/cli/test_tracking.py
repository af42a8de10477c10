"""Tests of --track: with a toy service, and with wandb and MLflow if they are installed."""

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cs285.infrastructure.recording import tracking
from cs285.scripts.run_hw4_mb import main
from tests.cli.processes import only_folder, start, wait_until
from tests.conftest import TINY, arguments, error_of

SCRIPT = "scripts/run_hw4_mb.py"
Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # without ~/.netrc


def rows(folder: Path) -> dict[int, dict[str, float]]:
    """Return the scalars of each iteration in progress.csv."""
    header, *lines = [
        line.split(",") for line in (folder / "progress.csv").read_text().splitlines()
    ]
    found = [{k: float(v) for k, v in zip(header, cells, strict=True) if v} for cells in lines]
    return {int(row.pop("Iteration")): row for row in found}


class Memory:
    """A service that keeps what it gets, until iteration `fails_at`."""

    fails_at = 10**6
    kept: list[Any]

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.place = "memory"
        type(self).kept = [about]

    def record(self, scalars: Any, iteration: int) -> None:
        if iteration >= self.fails_at:
            raise ConnectionError("the server\nis gone")
        self.kept.append((iteration, dict(scalars)))

    def record_video(self, tag: str, file: Path, iteration: int) -> None:
        self.kept.append((iteration, tag, file.exists()))

    def close(self, failed: bool) -> None:
        self.kept.append("failed" if failed else "closed")


class Forgetful(Memory):
    fails_at = 1


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.DISTRIBUTIONS, "wandb", ())
    monkeypatch.setitem(tracking.SERVICES, "wandb", Memory)


def test_service_gets_config_scalars_and_videos(memory: None, run_tiny: Run) -> None:
    folder = run_tiny(track="wandb", video_log_freq=1)
    about, *logged, last = Memory.kept
    config = json.loads((folder / "config.json").read_text())
    del config["checksum"]
    assert about == config
    expected = rows(folder)
    assert logged[0::2] == [(i, expected[i]) for i in (0, 1)]
    assert logged[1::2] == [(i, "eval_rollouts", True) for i in (0, 1)]
    assert last == "closed"


def test_service_learns_that_a_run_failed(memory: None, tmp_path: Path) -> None:
    flags = {**TINY, "env_name": "tests.toys:NanReward-v0", "track": "wandb", "data_dir": tmp_path}
    assert main(arguments(**flags)) == 1
    assert Memory.kept[-1] == "failed"


def test_resumed_run_sends_the_iterations_before_it(memory: None, run_tiny: Run) -> None:
    folder = run_tiny()
    assert main(["--resume", str(folder), "--n_iter", "3", "--track", "wandb"]) == 0
    expected = rows(folder)
    assert Memory.kept[1:-1] == [(i, expected[i]) for i in (0, 1, 2)]


def test_failure_of_a_service_does_not_stop_the_run(
    memory: None,
    run_tiny: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(tracking.SERVICES, "wandb", Forgetful)
    folder = run_tiny(track="wandb", n_iter=4)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "warning: --track wandb failed (ConnectionError: the server is gone)" in err
    assert (len(Forgetful.kept), len(rows(folder))) == (2, 4)


def test_service_that_refuses_to_start_is_an_error(
    memory: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(folder: Path, about: Any) -> None:
        raise PermissionError("bad key")

    monkeypatch.setitem(tracking.SERVICES, "wandb", refuse)
    assert main(arguments(**{**TINY, "track": "wandb", "data_dir": tmp_path})) == 2
    assert "--track wandb: cannot start (PermissionError: bad key)" in capsys.readouterr().err
    assert list(tmp_path.glob("hw4_*")) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_is_an_error_with_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tracking.DISTRIBUTIONS, name, ("package-that-is-missing",))
    error = error_of(main, arguments(**{**TINY, "track": name}), capsys)
    assert f"--track {name}: must have the package package-that-is-missing; run pip ins" in error
    assert f"'cs285[{name}]'" in error


def killed_and_resumed(name: str, tmp_path: Path) -> Path:
    """Return the log folder of a run that was killed by SIGKILL and resumed to 6 iterations."""
    words = arguments(**{**TINY, "n_iter": 1000, "track": name, "data_dir": tmp_path})
    process = start(SCRIPT, *words)
    wait_until(lambda: any(len(rows(f.parent)) > 2 for f in tmp_path.glob("hw4_*/progress.csv")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = only_folder(tmp_path)
    n_iter = len(rows(folder)) + 2
    assert main(["--resume", str(folder), "--n_iter", str(n_iter), "--video_log_freq", "2"]) == 0
    return folder


@pytest.mark.long
def test_mlflow_has_every_iteration_once(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = killed_and_resumed("mlflow", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("cs285")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (folder.name, "FINISHED")
    assert run.data.params["mpc_horizon"] == "3"
    expected = rows(folder)
    for metric in ("Eval_AverageReturn", "Training Loss"):
        history = client.get_metric_history(run.info.run_id, metric)
        values = {each.step: each.value for each in history}
        assert len(history) == len(values)
        assert values == {step: row[metric] for step, row in expected.items()}
    names = [Path(each.path).name for each in client.list_artifacts(run.info.run_id, "videos")]
    assert names == [file.name for file in sorted((folder / "videos").iterdir())]


@pytest.mark.long
def test_offline_wandb_has_every_iteration(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    folder = killed_and_resumed("wandb", tmp_path)
    assert capfd.readouterr().err == ""
    *_, last = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    values: dict[int, float] = {}
    for record in wandb_records(last):
        if record.HasField("run"):
            own_id = json.loads((folder / "config.json").read_text())["id"]
            assert (record.run.run_id, record.run.project) == (own_id, "cs285")
        items = {tuple(item.nested_key): item.value_json for item in record.history.item}
        if ("_step",) in items:
            values[int(items["_step",])] = float(items["Eval_AverageReturn",])
    assert values == {step: row["Eval_AverageReturn"] for step, row in rows(folder).items()}
    assert list(last.parent.glob("files/media/videos/eval_rollouts_*.mp4"))


def wandb_records(file: Path) -> Iterator[Any]:
    """Read wandb's file of a run: a header of 7 bytes, and a log of the format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768  # in this block
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last piece
            yield Record.FromString(record)
            record = b""
