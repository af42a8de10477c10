import os
import pickle
import resource
import signal
import tracemalloc
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cs285.infrastructure import checkpoint
from cs285.infrastructure.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from cs285.infrastructure.errors import RunError, UsageError
from cs285.infrastructure.run_folder import CHECKPOINT, PREVIOUS

STATE: dict[str, Any] = {"weights": {"w": torch.arange(5000.0)}, "count": 3, "rate": 0.1}


def test_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", STATE)
    loaded = load_checkpoint(tmp_path / "c.pt", "cpu")
    assert torch.equal(loaded["weights"]["w"], STATE["weights"]["w"])
    assert (loaded["count"], loaded["rate"]) == (3, 0.1)
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_file_is_rejected(tmp_path: Path, share: float) -> None:
    file = tmp_path / "c.pt"
    save_checkpoint(file, STATE)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UsageError, match=r"c\.pt is truncated, corrupt"):
        load_checkpoint(file, "cpu")


@pytest.mark.parametrize("lazily", [False, True])
def test_any_damaged_byte_is_found(tmp_path: Path, lazily: bool) -> None:
    file = tmp_path / "c.pt"
    save_checkpoint(file, STATE)
    intact = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        data = next(e for e in archive.infolist() if e.file_size == 20_000)  # the tensor
    for place in (data.header_offset + 200, data.header_offset + 10_000, len(intact) - 40, 70):
        file.write_bytes(intact[:place] + bytes([intact[place] ^ 4]) + intact[place + 1 :])
        with pytest.raises(UsageError, match=r"c\.pt is truncated, corrupt"):
            load_checkpoint(file, "cpu", lazily)
    start = data.header_offset + 4096
    file.write_bytes(intact[:start] + bytes(4096) + intact[start + 4096 :])
    with pytest.raises(UsageError, match=r"c\.pt is truncated, corrupt"):
        load_checkpoint(file, "cpu", lazily)


def test_compressed_files_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", STATE)
    file, peak = tmp_path / "bomb.pt", 10**9
    with (
        zipfile.ZipFile(tmp_path / "c.pt") as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        with target.open("c/data/bomb", "w") as stream:
            for _ in range(peak // 10**7):
                stream.write(bytes(10**7))
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"bomb\.pt is truncated, corrupt"):
        load_checkpoint(file, "cpu")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.parametrize("has_links", [True, False])
def test_the_previous_checkpoint_is_kept(
    tmp_path: Path, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(path: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    for count in range(4):
        state = {**STATE, "counters": {"next_iteration": count}}
        save_checkpoint(tmp_path / CHECKPOINT, state, previous=tmp_path / PREVIOUS)
        assert read_checkpoint(tmp_path, "cpu")["counters"]["next_iteration"] == count
        if count > 0:
            earlier = read_checkpoint(tmp_path, "cpu", which="previous")
            assert earlier["counters"]["next_iteration"] == count - 1
    assert sorted(file.name for file in tmp_path.iterdir()) == [CHECKPOINT, PREVIOUS]
    damaged = tmp_path / CHECKPOINT
    damaged.write_bytes(damaged.read_bytes()[:-500])
    hint = (
        f"is intact: to continue from its iteration 2, pass --resume {tmp_path} --checkpoint prev"
    )
    with pytest.raises(UsageError, match=rf"truncated, corrupt.*{PREVIOUS} {hint}"):
        read_checkpoint(tmp_path, "cpu")
    damaged.unlink()
    with pytest.raises(UsageError, match=rf"No such file.*{PREVIOUS} {hint}"):
        read_checkpoint(tmp_path, "cpu")
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(UsageError) as raised:
        read_checkpoint(tmp_path, "cpu")
    assert PREVIOUS not in str(raised.value)  # it is damaged, too


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Its tensors have the same names and shapes."""
    (tmp_path / "config.json").write_text('{"id": "a"}')
    for owner in ("b", None):
        save_checkpoint(tmp_path / CHECKPOINT, STATE, owner)
        with pytest.raises(UsageError, match=r"checkpoint\.pt is of another run; must be"):
            read_checkpoint(tmp_path, "cpu")
    save_checkpoint(tmp_path / CHECKPOINT, STATE, "a")
    assert read_checkpoint(tmp_path, "cpu")["count"] == 3
    (tmp_path / "config.json").write_text("{}")  # runs before version 1.0 have no id
    assert read_checkpoint(tmp_path, "cpu")["count"] == 3


def test_foreign_files_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    torch.save({"model": torch.ones(3)}, file)
    with pytest.raises(UsageError, match=r"c\.pt is from another version \(no format\)"):
        load_checkpoint(file, "cpu")
    torch.save({"format": "cs285 checkpoint 4", "state": STATE}, file)
    with pytest.raises(UsageError, match=r"c\.pt is from another version \(cs285 checkpoint 4\)"):
        load_checkpoint(file, "cpu")
    file.write_text("not even close")
    with pytest.raises(UsageError, match=r"c\.pt is truncated, corrupt"):
        load_checkpoint(file, "cpu")


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("save", [torch.save, lambda x, f: f.write_bytes(pickle.dumps(x, 2))])
def test_loading_never_runs_code(tmp_path: Path, save: Any) -> None:
    harm = tmp_path / "harm"
    save({"format": checkpoint.FORMAT, "state": Bomb(harm)}, tmp_path / "c.pt")
    with pytest.raises(UsageError):
        load_checkpoint(tmp_path / "c.pt", "cpu")
    assert not harm.exists()


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1.0, np.float64(2)]}, r"state\['a'\]\[1\], which is a float64; must be"),
        ({np.int64(1): 2}, r"state key .*1.*, which is a int64; must be"),
        ({"a": (None, np.zeros(2))}, r"state\['a'\]\[1\], which is a ndarray; must be"),
        ({"a": defaultdict(list)}, r"state\['a'\], which is a defaultdict; must be"),
        ({"a": torch.ones(2).max(0)}, r"state\['a'\], which is a max; must be"),
    ],
)
def test_values_that_loading_would_refuse_are_not_saved(
    value: Any, place: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "c.pt", STATE)
    with pytest.raises(RunError, match=f"cannot save {place}"):
        save_checkpoint(tmp_path / "c.pt", value)
    assert set(load_checkpoint(tmp_path / "c.pt", "cpu")) == set(STATE)


def test_subclasses_that_loading_knows(tmp_path: Path) -> None:
    state = {"a": OrderedDict(b=1), "c": Counter("aab"), "shape": torch.ones(2, 3).shape}
    save_checkpoint(tmp_path / "c.pt", state)
    assert load_checkpoint(tmp_path / "c.pt", "cpu") == state


def test_full_disk_raises_its_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    """This holds at any position in the file at which the disk is full."""
    file = tmp_path / "c.pt"
    save_checkpoint(file, STATE)
    before = file.read_bytes()
    for limit in (0, 300, len(before) // 2, len(before) - 100):
        with file_size_limit(limit), pytest.raises(OSError, match="File too large"):
            save_checkpoint(file, {**STATE, "count": 4})
        assert file.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_interrupt_is_delayed_until_the_file_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside torch's writer, a KeyboardInterrupt would abort the process."""
    file, write = tmp_path / "c.pt", checkpoint._Sink.write

    def interrupted(sink: Any, data: bytes) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return write(sink, data)

    monkeypatch.setattr(checkpoint._Sink, "write", interrupted)
    # pytest in a background job ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(file, STATE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert load_checkpoint(file, "cpu")["count"] == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]


def test_lazy_reading_returns_the_same_state(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    save_checkpoint(file, STATE)
    assert torch.equal(load_checkpoint(file, "cpu", lazily=True)["weights"]["w"], torch.arange(5e3))
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UsageError, match=rf"^LOGDIR {tmp_path}: its c\.pt is truncated, corrupt"):
        load_checkpoint(file, "cpu", lazily=True, argument="LOGDIR")


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.pt"
    save_checkpoint(file, STATE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(file, {"count": 4})
    assert load_checkpoint(file, "cpu")["count"] == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]
