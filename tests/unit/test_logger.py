import csv
from pathlib import Path

import pytest
import torch
from tensorboardX import SummaryWriter

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.logger import Logger, to_floats
from cs285.infrastructure.recording.event_file import read_events


def event_file(folder: Path) -> Path:
    (file,) = folder.glob("events.out.tfevents.*")
    return file


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value)
        for event in read_events(event_file(folder))
        for value in event.summary.value
    ]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def fill(
    folder: Path, iterations: range, checksums: dict[str, int] | None = None
) -> dict[str, int]:
    logger = Logger(folder, iterations.start, checksums)
    for iteration in iterations:
        logger.record({"Return": iteration + 0.5, "Loss": 1.0}, iteration)
    logger.close()
    return logger.state_dict()


def test_reader_accepts_files_of_tensorboardx(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("a", 1.5, 3)
    assert scalars(tmp_path) == [(3, "a", 1.5)]


def test_event_file_and_csv_have_every_value(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    assert scalars(tmp_path) == [
        (0, "Return", 0.5),
        (0, "Loss", 1.0),
        (1, "Return", 1.5),
        (1, "Loss", 1.0),
    ]
    assert rows(tmp_path)[1] == {"Iteration": "1", "Return": "1.5", "Loss": "1.0"}


@pytest.mark.parametrize("cut", [0, 1, 7, 15])
def test_resume_drops_rows_after_the_checkpoint(tmp_path: Path, cut: int) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    fill(whole, range(5))
    checksums = fill(resumed, range(2))
    fill(resumed, range(2, 4), checksums)
    for file in (event_file(resumed), resumed / "progress.csv"):  # a kill truncated the last record
        file.write_bytes(file.read_bytes()[: -cut or None])
    last = fill(resumed, range(2, 5), checksums)
    assert last["progress.csv"] == Logger(whole, 5).state_dict()["progress.csv"]
    assert scalars(resumed) == scalars(whole)
    assert rows(resumed) == rows(whole)
    assert not list(resumed.glob(".*"))


def test_full_disk_on_resume_keeps_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, range(3))
    before = (tmp_path / "progress.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cs285.infrastructure.logger.write_rows", full)
    with pytest.raises(OSError, match="No space left"):
        Logger(tmp_path, 2)
    assert (tmp_path / "progress.csv").read_bytes() == before


def test_rows_damaged_by_a_power_cut_are_skipped(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    with (tmp_path / "progress.csv").open("ab") as file:
        file.write(b"\0\0\0\n\xff\xfe,1\n3,\xff")
    fill(tmp_path, range(3, 4))
    assert [row["Iteration"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("pattern", ["progress.csv", "events.*"])
def test_damaged_log_is_rejected_and_kept(
    tmp_path: Path, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checksums = fill(tmp_path, range(3))
    (file,) = tmp_path.glob(pattern)
    intact = file.read_bytes()
    for place in range(0, len(intact), 7):
        damaged = intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :]
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=f"its {file.name} is damaged; must be "):
            Logger(tmp_path, 3, checksums)
        assert file.read_bytes() == damaged
    for kept in (0, len(intact) // 2):
        file.write_bytes(intact[:kept])
        with pytest.raises(UsageError, match=f"its {file.name} is damaged; must be "):
            Logger(tmp_path, 3, checksums)
    file.unlink()
    for last in (3, 4, 4):  # it starts a new file, also if it does not save a checkpoint
        fill(tmp_path, range(3, last), checksums)
    name = "progress.csv"
    assert capsys.readouterr().err.count("progress.csv is missing, so a new one starts at ") == (
        2 * (pattern == name)  # not once the new file has a row
    )
    assert [row["Iteration"] for row in rows(tmp_path)] == (["3"] if pattern == name else [*"0123"])


def test_resume_from_iteration_0(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    fill(tmp_path, range(2))
    assert [row["Iteration"] for row in rows(tmp_path)] == ["0", "1"]
    assert len(scalars(tmp_path)) == 4


def test_metric_that_starts_later_gets_a_column(tmp_path: Path) -> None:
    logger = Logger(tmp_path)
    logger.record({"Return": 1.0}, 0)
    logger.record({"Return": 2.0, "New": 3.0}, 1)
    logger.record({"Return": 4.0}, 2)
    logger.close()
    assert [row["New"] for row in rows(tmp_path)] == ["", "3.0", ""]


def test_resumed_log_uses_the_current_names_of_metrics(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_text("Iteration,Holdout Loss\n0,0.5\n")
    logger = Logger(tmp_path, 1)
    logger.record({"New Data Loss": 0.25}, 1)
    logger.close()
    assert [row["New Data Loss"] for row in rows(tmp_path)] == ["0.5", "0.25"]


def test_last_value_of_each_curve_is_logged() -> None:
    curves = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([torch.nan, 0.1])}
    assert to_floats(curves) == {"a": 2.0, "b": pytest.approx(0.1)}


def test_agent_without_metrics() -> None:
    assert to_floats({}) == {}
