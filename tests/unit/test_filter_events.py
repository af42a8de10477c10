"""Tests of filter_events.py, and of reading event files without media."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.record_writer import RecordWriter

from cs285.infrastructure.lock import lock_folder
from cs285.infrastructure.recording.event_file import EventFile, read_events, read_records
from cs285.scripts.filter_events import main
from tests.conftest import exit_code_of

Scalars = list[tuple[int, str, float, float]]
GIF = os.urandom(5000)


def scalars(file: Path) -> Scalars:
    return [
        (event.step, value.tag, value.simple_value, event.wall_time)
        for event in read_events(file)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def kinds(file: Path) -> set[str]:
    return {value.WhichOneof("value") for e in read_events(file) for value in e.summary.value}


def homework_file(folder: Path) -> Path:
    """Write an event file like the homework's logger: scalars, images, a video, sound and text."""
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("Eval_AverageReturn", -30.25, 0)
        writer.add_image("picture", np.zeros((3, 8, 8), np.uint8), 0)
        sound = Summary.Value(tag="sound", audio=Summary.Audio(content_type="audio/wav"))
        for value in (*video().value, sound):
            writer._get_file_writer().add_summary(Summary(value=[value]), 0)
        writer.add_histogram("weights", np.arange(10.0), 1)
        writer.add_text("note", "words", 1)
        for step in range(1, 4):
            writer.add_scalar("rollouts_of_the_model", step / 3, step)
    (file,) = folder.glob("events*")
    return file


def video() -> Summary:
    image = Summary.Image(height=8, width=8, colorspace=3, encoded_image_string=GIF)
    return Summary(value=[Summary.Value(tag="eval_rollouts", image=image)])


def write_records(file: Path, *events: Event) -> Path:
    writer = RecordWriter(str(file))
    for event in events:
        writer.write(event.SerializeToString())
    writer.close()
    return file


def summary(step: int, *values: Any) -> Event:
    return Event(wall_time=1.5, step=step, summary=Summary(value=values))


def scalar(tag: str, value: float) -> Any:
    return Summary.Value(tag=tag, simple_value=value)


def test_copy_has_the_same_bytes_without_media(tmp_path: Path) -> None:
    file = homework_file(tmp_path / "run")
    assert kinds(file) == {"simple_value", "image", "histo", "audio", "tensor"}
    assert main([str(file), "--output", str(tmp_path / "new" / "copy")]) == 0
    copy = tmp_path / "new" / "copy"
    assert kinds(copy) == {"simple_value", "histo", "tensor"}
    assert len(scalars(copy)) == 4
    assert scalars(copy) == scalars(file)
    assert next(read_events(copy)).file_version == "brain.Event:2"
    kept = [record.raw for record in read_records(file) if not is_media(record.event)]
    assert copy.read_bytes() == b"".join(kept)


def test_videos_of_this_project_are_removed(tmp_path: Path) -> None:
    own = EventFile(tmp_path, 0)
    own.open()
    own.add_scalars({"a": 1.0, "b": float("nan")}, 0)
    own.add_video("eval_rollouts", GIF, np.zeros((2, 8, 8, 3), np.uint8), 0)
    own.add_scalars({"a": 2.0}, 1)
    own.close()
    records = [r.raw for r in read_records(own.path) if GIF not in r.raw]
    os.utime(own.path, (1, 1))
    assert main([str(tmp_path), "--in_place"]) == 0
    assert own.path.read_bytes() == b"".join(records)
    assert own.path.stat().st_mtime == 1
    assert len(records) == 3


def test_record_with_scalars_and_media_keeps_its_scalars(tmp_path: Path) -> None:
    both = summary(7, scalar("before", 0.1), *video().value, scalar("after", 0.2))
    file = write_records(tmp_path / "events.out.tfevents.1", both, summary(8, scalar("c", 3.0)))
    before = scalars(file)
    assert main([str(file), "--in_place"]) == 0
    assert scalars(file) == before
    assert [tag for _, tag, _, _ in before] == ["before", "after", "c"]
    assert kinds(file) == {"simple_value"}


def test_images_stored_as_tensors_are_removed(tmp_path: Path) -> None:
    def tensor(tag: str, plugin: str) -> Any:
        data = SummaryMetadata.PluginData(plugin_name=plugin)
        value = TensorProto(string_val=[b"png"])
        return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data), tensor=value)

    values = [tensor("picture", "images"), tensor("picture", ""), tensor("loss", "scalars")]
    events = [summary(step, value) for step, value in enumerate(values)]
    file = write_records(tmp_path / "events.out.tfevents.1", *events)
    assert main([str(file), "--in_place"]) == 0
    assert [v.tag for e in read_events(file) for v in e.summary.value] == ["loss"]


def test_reading_without_media_keeps_all_other_events(tmp_path: Path) -> None:
    file = homework_file(tmp_path)
    wanted = [event for event in read_events(file) if not is_media(event)]
    assert list(read_events(file, media=False)) == wanted
    assert len(wanted) < len(list(read_events(file)))


def is_media(event: Event) -> bool:
    return any(v.WhichOneof("value") in ("image", "audio") for v in event.summary.value)


@pytest.mark.parametrize("cut", [1, 5, 14, 3000])
def test_truncated_last_record_is_dropped(tmp_path: Path, cut: int) -> None:
    first, second = summary(0, scalar("a", 1.0)), summary(1, *video().value)
    file = write_records(tmp_path / "events.out.tfevents.1", first, second, second)
    whole = len(file.read_bytes())
    os.truncate(file, whole - cut)
    before = scalars(file)
    assert main([str(file), "--in_place"]) == 0
    assert scalars(file) == before != []
    assert file.stat().st_size < 100


def corrupt(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("part", ["length", "data"])
def test_corrupt_file_is_not_changed_in_place_but_copied_up_to_the_damage(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [scalar("a", 1.0), *video().value, scalar("b", 2.0), scalar("c", 3.0)]
    events = [summary(step, value) for step, value in enumerate(values)]
    file = write_records(tmp_path / "events.out.tfevents.1", *events[:2])
    start = file.stat().st_size  # where the third record starts
    write_records(file, *events)
    corrupt(file, start + {"length": 0, "data": 20}[part])
    before = file.read_bytes()
    assert main([str(file), "--in_place"]) == 1
    assert file.read_bytes() == before
    assert f"skipped {file}: it is corrupt" in capsys.readouterr().err
    assert main([str(file), "--output", str(tmp_path / "copy")]) == 0
    assert [tag for _, tag, _, _ in scalars(tmp_path / "copy")] == ["a"]
    assert "corrupt" in capsys.readouterr().err


def test_corrupt_length_ends_the_file(tmp_path: Path) -> None:
    file = write_records(tmp_path / "events.out.tfevents.1", summary(0, scalar("a", 1.0)))
    file.write_bytes(file.read_bytes() + struct.pack("<QI", 2**62, 0))
    assert len(scalars(file)) == 1


def test_folder_is_copied_without_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    file = homework_file(data / "hw4_q1_a")
    (data / "hw4_q1_a" / "videos").mkdir()
    for name in ("progress.csv", "videos/a.mp4", "videos/list.txt", "kept.mp4"):
        (data / "hw4_q1_a" / name).write_text(name)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert main([str(data), "--output", str(tmp_path / "copy")]) == 0
    run = tmp_path / "copy" / "hw4_q1_a"
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names == {"progress.csv", "videos/list.txt", "kept.mp4", file.name}
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
    copy = run / file.name
    assert scalars(copy) == scalars(file)
    saved = file.stat().st_size - copy.stat().st_size
    assert f"{saved:,} saved" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data"]


def test_file_without_media_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_records(tmp_path / "events.out.tfevents.1", summary(0, scalar("a", 1.0)))
    os.truncate(file, file.stat().st_size - 1)
    inode = file.stat().st_ino
    assert main([str(file), "--in_place"]) == 0
    assert file.stat().st_ino == inode
    assert " 0 saved" in capsys.readouterr().out


def test_active_run_is_skipped_and_other_runs_are_filtered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running, stopped = (homework_file(tmp_path / name) for name in ("running", "stopped"))
    before = running.read_bytes()
    lock_folder(stopped.parent).close()
    with lock_folder(running.parent):
        assert main([str(tmp_path), "--in_place"]) == 1
    assert running.read_bytes() == before
    assert "image" not in kinds(stopped)
    assert "another process" in capsys.readouterr().err


def test_target_of_a_symbolic_link_is_filtered(tmp_path: Path) -> None:
    file = homework_file(tmp_path / "real")
    link = tmp_path / "linked" / file.name
    link.parent.mkdir()
    link.symlink_to(file)
    assert main([str(tmp_path), "--in_place"]) == 0
    assert link.is_symlink()
    assert "image" not in kinds(file)


def test_full_disk_keeps_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = homework_file(tmp_path / "run")
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cs285.scripts.filter_events.copy_without_media", full)
    assert main([str(file), "--in_place"]) == 1
    assert main([str(file.parent), "--output", str(tmp_path / "copy")]) == 2
    assert file.read_bytes() == before
    assert list(tmp_path.rglob("*")) == [file.parent, file]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--in_place"], "SOURCE nowhere: no such file or folder"),
        (["run"], "one of the arguments --output --in_place is required"),
        (["run", "--output", "run"], "--output run: must not exist yet"),
        (["run", "--output", "run/copy"], "--output run/copy: must be outside SOURCE run"),
        (["run", "run", "--output", "copy"], "SOURCE run: --output accepts a single SOURCE"),
        (["run", "--output", "file/below"], "--output file/below"),
        (["run/text", "--in_place"], "SOURCE run/text: not an event file"),
        (["run/short", "--output", "copy"], "SOURCE run/short: not an event file"),
        (["empty", "--in_place"], "SOURCE empty: contains no event file"),
        (["run", "--in-place"], "--in_place"),
    ],
)
def test_bad_input_is_a_one_line_error(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = homework_file(Path("run"))
    Path("run/text").write_text("no event file, but words")
    Path("run/short").write_text("ab")
    Path("file").write_text("")
    Path("empty").mkdir()
    before = {path: path.stat().st_size for path in Path().rglob("*")}
    code = exit_code_of(main, words)
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.stat().st_size for path in Path().rglob("*")} == before
    assert "image" in kinds(file)
