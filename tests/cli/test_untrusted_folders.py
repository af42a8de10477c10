"""Tests of log folders that somebody else made: modules, links, FIFOs and hostile names."""

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cs285.cli.messages import one_line_errors
from cs285.experiments.sweeps import folder as sweep_folder
from cs285.experiments.sweeps.definition import Sweep
from cs285.infrastructure.errors import InterruptedRunError
from cs285.infrastructure.recording.event_file import EventFile
from cs285.infrastructure.run_folder import config_text, modules_in
from cs285.scripts import (
    diagnose,
    evaluate,
    export_run,
    filter_events,
    make_submission,
    read_results,
    reproduce,
    run_hw4_mb,
    sweep,
)
from tests.cli.processes import ROOT
from tests.conftest import TINY, arguments, error_of

Run = Callable[..., Path]
TASK = """from pathlib import Path
from tests.toys import HalfReward

Path("ran").write_text("")
"""
RUN = "hw4_q3_obstacles_obstacles-cs285-v0_24-11-2026_21-59-31"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a new module in the current folder; importing it leaves the file "ran"."""
    name = f"module_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return name


def set_flag(folder: Path, **flags: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["flags"] |= flags
    (folder / "config.json").write_text(config_text(content))


def is_imported(module: str) -> bool:
    """Return whether the module was imported, and forget it again."""
    return bool(sys.modules.pop(module, None)) or Path("ran").exists()


def test_module_of_a_folder_is_imported_only_with_trust(
    module: str, run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=1, env_name="tests.toys:LinearReach-v0")
    set_flag(folder, env_name=f"{module}:LinearReach-v0")
    few = ["--episodes", "1"]
    commands: list[tuple[Callable[..., int], list[str]]] = [
        (run_hw4_mb.main, ["--resume", str(folder)]),
        (evaluate.main, [str(folder), *few, "--num_workers", "1"]),
        (diagnose.main, [str(folder), *few]),
        (export_run.main, [str(folder), "x", "--eval_episodes", "1"]),
    ]
    for main, words in commands:
        error = error_of(main, words, capsys)
        assert f"it imports the module {module} (" in error and "--trust" in error
        assert not is_imported(module)
        assert main([*words, "--trust"]) == 0
        assert is_imported(module)
        Path("ran").unlink()
    resume = ["--resume", str(folder), "--env_name", f"{module}:LinearReach-v0"]
    assert run_hw4_mb.main(resume) == 0  # the command line names the module
    assert is_imported(module)
    assert export_run.main([str(folder), "x"]) == 0  # needs no module


def test_agent_of_a_folder_is_imported_only_with_trust(
    module: str, run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=1)
    content = json.loads((folder / "config.json").read_text()) | {"agent": f"{module}:mb"}
    (folder / "config.json").write_text(config_text(content))
    for main in (evaluate.main, diagnose.main):
        assert "--trust" in error_of(main, [folder], capsys)
        assert not is_imported(module)


def test_modules_of_a_sweep_are_imported_only_with_trust(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = f"{module}:LinearReach-v0"
    plan = Sweep("s", "mb", {"env_name": [task], "size": [16, 24]})
    folder = sweep_folder.create(plan, tmp_path, "sweep.py")
    words = ["--resume", str(folder), "--dry_run"]
    assert "--trust" in error_of(sweep.main, words, capsys)
    assert not is_imported(module)
    assert sweep.main([*words, "--trust"]) == 0
    assert sweep.main([*words, "--env_name", task]) == 0
    file = folder / "sweep.json"
    file.write_text(file.read_text().replace('"mb"', f'"{module}:mb"'))
    assert "--trust" in error_of(sweep.main, words, capsys)
    assert not is_imported(module)


def test_the_name_of_a_task_is_one_module() -> None:
    flags = {"env_name": "evil torch:Task", "env_wrappers": "a:B c:D"}
    assert modules_in(flags) == ["evil torch:Task", "a:B", "c:D"]


def test_wrapper_of_a_sweep_is_imported_only_with_trust(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapper = f"{module}:HalfReward"
    plan = Sweep("s", "mb", {"env_name": ["Pendulum-v1"], "env_wrappers": [wrapper]})
    folder = sweep_folder.create(plan, tmp_path, "sweep.py")
    words = ["--resume", str(folder), "--dry_run"]
    assert "--trust" in error_of(sweep.main, words, capsys)
    assert not is_imported(module)
    assert sweep.main([*words, "--trust"]) == 0
    assert sweep.main([*words, "--env_wrappers", wrapper]) == 0


def test_resume_command_of_a_run_with_a_wrapper_has_trust(run_tiny: Run) -> None:
    folder = run_tiny(n_iter=1, env_wrappers="tests.toys:HalfReward")
    expected = pytest.raises(InterruptedRunError, match=f"--resume {folder} --trust")
    with expected, one_line_errors(folder, lambda: 0):
        raise KeyboardInterrupt


def test_reproduce_trusts_the_modules_of_its_list(module: str, tmp_path: Path) -> None:
    """The list on the command line names the module. test_run_queue.py tests the resumed runs."""
    flags = {**TINY, "n_iter": 1, "env_name": f"{module}:LinearReach-v0", "exp_name": None}
    entry = f"name = 'q1_own'\nscript = 'mb'\nflags = '{' '.join(arguments(**flags))}'\n"
    (tmp_path / "list.toml").write_text(f"[[experiment]]\n{entry}")
    assert run_hw4_mb.main(arguments(**{**flags, "exp_name": "q1_own_seed1", "data_dir": "d"})) == 0
    assert is_imported(module)
    command = ["--experiments", "list.toml", "--data_dir", "d", "--export_to", "out"]
    assert reproduce.main([*command, "--eval_episodes", "1"]) == 0
    assert "final_evaluation" in (tmp_path / "out" / "q1" / "q1_own_seed1.json").read_text()


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"flags": {}}')
    events = EventFile(folder, 0)
    events.open()
    events.add_scalars({"Eval_AverageReturn": 1.0}, 0)
    events.close()
    return folder


def test_submission_holds_no_file_from_outside_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, secret = make_run(tmp_path / "data" / RUN), tmp_path / "secret"
    secret.write_text("password")
    outside = make_run(tmp_path / "other")
    (run / "progress.csv").symlink_to(secret)
    (run / "events.out.tfevents.9.x").symlink_to(next(outside.glob("events*")))
    (run / "folder").symlink_to(outside)
    (run / "round").symlink_to(run)
    (run / r"events.out.tfevents.1\..\..\x").write_bytes(next(run.glob("events*")).read_bytes())
    (run / "events.out.tfevents.1.\x1b[31m").write_bytes(b"")
    os.mkfifo(run / "events.out.tfevents.2.fifo")
    words = ["--data_dir", str(tmp_path / "data"), "--output", str(tmp_path / "x.zip")]
    assert make_submission.main(words) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "progress.csv" in err
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith("data/")]
        assert len(names) == 4 and f"data/{RUN}/events.out.tfevents.1%5C..%5C..%5Cx" in names
        assert not any("\\" in name or "\x1b" in name for name in archive.namelist())
        assert not any(b"password" in archive.read(name) for name in names)


def test_filter_events_does_not_follow_links_out_of_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, outside = make_run(tmp_path / "run"), make_run(tmp_path / "outside")
    (run / "copy.csv").symlink_to(outside / "config.json")
    (run / "events.out.tfevents.9.x").symlink_to(next(outside.glob("events*")))
    (run / "round").symlink_to(tmp_path)
    os.mkfifo(run / "fifo")
    before = {file: file.stat() for file in outside.iterdir()}
    assert filter_events.main([str(run), "--in_place"]) == 0
    assert filter_events.main([str(run), "--output", str(tmp_path / "copy")]) == 0
    assert {file: file.stat() for file in outside.iterdir()} == before
    kept = {"config.json", *(file.name for file in run.glob("events*") if not file.is_symlink())}
    assert {file.name for file in (tmp_path / "copy").iterdir()} == kept
    assert capsys.readouterr().err.count("warning: skipped") == 1


def test_escape_sequences_in_tags_are_shown_and_not_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = EventFile(tmp_path, 0)
    events.open()
    tag = "\x1b[2Jtag"
    events.add_scalars({tag: 1.0}, 0)
    events.close()
    for words in (["--columns", tag], ["--names"], ["--csv", "--columns", tag]):
        assert read_results.main([str(tmp_path), *words]) == 0
        out = capsys.readouterr().out
        assert r"\x1b[2Jtag" in out and "\x1b" not in out


@pytest.mark.parametrize("name", ["progress.csv", ".lock", "events", "config.json"])
def test_file_of_a_run_that_is_a_folder(
    name: str, run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=1)
    file = next(folder.glob("events*")) if name == "events" else folder / name
    file.unlink()
    file.mkdir()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    assert run_hw4_mb.main(["--resume", str(folder), "--n_iter", "2"]) == 2
    err = capsys.readouterr().err
    assert file.name in err and "s a directory" in err and err.count("\n") == 1
    before.pop(".lock", None), before.pop(file.name, None)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert before.items() <= after.items()


def test_lock_that_is_a_link_is_refused(
    run_tiny: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opening it would empty the file that it leads to."""
    folder, precious = run_tiny(n_iter=1), tmp_path / "precious"
    precious.write_text("text")
    (folder / ".lock").unlink()
    (folder / ".lock").symlink_to(precious)
    capsys.readouterr()
    assert run_hw4_mb.main(["--resume", str(folder)]) == 2
    assert "(.lock); must be a writable log folder" in capsys.readouterr().err
    assert precious.read_text() == "text"


def test_run_that_fails_before_its_first_result_leaves_no_folder(tmp_path: Path) -> None:
    flags = {**TINY, "env_name": "tests.toys:NanReward-v0", "data_dir": tmp_path / "data"}
    assert run_hw4_mb.main(arguments(**flags)) == 1
    assert list((tmp_path / "data").iterdir()) == []
