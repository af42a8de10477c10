import os
import pickle
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cs285.infrastructure import checkpoint
from cs285.infrastructure.checkpoint import load_checkpoint, save_checkpoint
from cs285.infrastructure.errors import UsageError

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
