"""Jobs are started, watched and ended; on what machine is the queue's least concern."""

import fcntl
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pytest

from cs285.experiments.display import RunDisplay, last_row
from cs285.experiments.job import (
    DONE,
    FAILED,
    HELD,
    RUNNING,
    Job,
    iterations_done,
    last_line,
)
from cs285.experiments.local import LocalProcess
from cs285.experiments.queue import RunQueue
from cs285.infrastructure.checkpoint import save_checkpoint
from cs285.infrastructure.run_folder import lock_folder
from tests.cli.processes import wait_until


class FakeProcess:
    """Ends with its code after some polls."""

    def __init__(self, code: int, polls: int = 3) -> None:
        self.code, self.polls, self.interrupted = code, polls, False

    def poll(self) -> int | None:
        self.polls -= 1
        return self.code if self.polls < 0 or self.interrupted else None

    def interrupt(self) -> None:
        self.interrupted = True

    def kill(self) -> None:
        raise AssertionError


class FakeMachine:
    """Notes what is started; a run's exit code is said by its name."""

    def __init__(self, codes: dict[str, int]) -> None:
        self.codes, self.commands = codes, dict[str, list[str]]()
        self.processes = dict[str, FakeProcess]()

    def start(self, module: str, words: Sequence[str], log: Path, lock: TextIO) -> FakeProcess:
        self.commands[log.stem] = [module, *words]
        log.write_text("Traceback\nthe last line\n\n")
        self.processes[log.stem] = FakeProcess(self.codes[log.stem])
        return self.processes[log.stem]


def make_job(name: str) -> Job:
    return Job(name, "module", ("--flag", "1"), ("--n_iter=3",), minutes=1.0, n_iter=3)


def make_run(data: Path, name: str, stamp: str, iterations: int) -> Path:
    folder = data / f"hw4_{name}_task_{stamp}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"flags": {"exp_name": name}}))
    if iterations:
        counters = {"next_iteration": iterations}
        save_checkpoint(folder / "checkpoint.pt", {"counters": counters})
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cs285.experiments.queue.POLL_SECONDS", 0.001)


def test_at_most_so_many_at_once_and_failures_stop_no_other(tmp_path: Path) -> None:
    jobs = [make_job(name) for name in ("a", "b", "c")]
    machine = FakeMachine({"a": 0, "b": 2, "c": -9})
    running, done = list[int](), list[str]()
    queue = RunQueue(jobs, tmp_path, machine, at_once=2)
    queue.run(
        lambda: running.append(sum(job.state == RUNNING for job in jobs)),
        lambda job: done.append(job.name),
    )
    assert max(running) == 2 and done == ["a"]
    assert [job.state for job in jobs] == [DONE, FAILED, FAILED]
    assert [job.error for job in jobs] == ["", "the last line", "killed by signal 9"]
    assert machine.commands["a"] == ["module", "--flag", "1", "--data_dir", str(tmp_path)]


def test_the_furthest_run_is_resumed_and_a_done_one_left(tmp_path: Path) -> None:
    make_run(tmp_path, "half", "1", 0)
    furthest = make_run(tmp_path, "half", "2", 2)
    make_run(tmp_path, "half", "3", 1)
    make_run(tmp_path, "half_of_another", "4", 3)  # its folder's name begins likewise
    make_run(tmp_path, "whole", "1", 3)
    jobs, machine = [make_job("half"), make_job("whole")], FakeMachine({"half": 0})
    RunQueue(jobs, tmp_path, machine, 2).run(lambda: None, lambda job: None)
    assert machine.commands == {"half": ["module", "--n_iter=3", "--resume", str(furthest)]}
    assert jobs[0].first_iteration == 2 and jobs[1].state == DONE
    assert iterations_done(furthest) == 2


def test_done_runs_are_told_before_there_is_a_place_for_them(tmp_path: Path) -> None:
    make_run(tmp_path, "done", "1", 3)
    jobs, events = [make_job("new"), make_job("done")], list[str]()
    queue = RunQueue(jobs, tmp_path, FakeMachine({"new": 0}), at_once=1)
    queue.run(lambda: events.append(jobs[0].state), lambda job: events.append(job.name))
    assert events[:2] == ["done", RUNNING] and events[-2:] == ["new", DONE]


def test_done_run_of_other_flags_is_not_this_one(tmp_path: Path) -> None:
    """A flag that the version it was run by did not have tells nothing."""
    folder = make_run(tmp_path, "a", "1", 3)
    (folder / "config.json").write_text(json.dumps({"flags": {"exp_name": "a", "size": 16}}))
    job = make_job("a")
    job.settings = {"exp_name": "a", "flag_of_today": 1, "size": 32}
    RunQueue([job], tmp_path, FakeMachine({}), 1).run(lambda: None, lambda job: None)
    assert job.state == FAILED and "--size 32: " in job.error


def test_longer_run_is_not_this_one(tmp_path: Path) -> None:
    make_run(tmp_path, "a", "1", 5)
    job = make_job("a")
    RunQueue([job], tmp_path, FakeMachine({}), 1).run(lambda: None, lambda job: None)
    assert job.state == FAILED and job.error.startswith(f"--n_iter {job.n_iter}: ")


def test_what_cannot_be_exported_stops_no_other(tmp_path: Path) -> None:
    jobs, machine = [make_job("a"), make_job("b")], FakeMachine({"a": 0, "b": 0})

    def export(job: Job) -> None:
        if job.name == "a":
            raise OSError(28, "No space left on device")

    RunQueue(jobs, tmp_path, machine, 1).run(lambda: None, export)
    assert [job.state for job in jobs] == [FAILED, DONE] and "No space" in jobs[0].error


def test_run_that_is_held_elsewhere_has_its_share_of_the_machine(tmp_path: Path) -> None:
    jobs, machine = [make_job("a"), make_job("b")], FakeMachine({"a": 0, "b": 0})
    lock = lock_folder(make_run(tmp_path, "a", "1", 1))
    started = list[int]()

    def show() -> None:
        started.append(len(machine.commands))
        if len(started) == 3:
            lock.close()

    RunQueue(jobs, tmp_path, machine, at_once=1).run(show, lambda job: None)
    assert started[:3] == [0, 0, 0] and set(machine.commands) == {"a", "b"}


def test_local_process_has_its_threads_holds_the_lock_and_can_be_interrupted(
    tmp_path: Path,
) -> None:
    """Also where it is started with SIGINT ignored, as by a shell in the background."""
    log, lock = tmp_path / "log", (tmp_path / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    code = "import os, time; print(os.environ['OMP_NUM_THREADS'], flush=True); time.sleep(60)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = LocalProcess([sys.executable, "-c", code], log, lock, threads=3)
    signal.signal(signal.SIGINT, before)
    lock.close()
    wait_until(lambda: "3" in log.read_text())
    with (tmp_path / "lock").open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    process.interrupt()
    wait_until(lambda: process.poll() is not None)
    assert process.poll() in (130, -signal.SIGINT) and "KeyboardInterrupt" in log.read_text()
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_checkpoint_that_is_none_fails_the_job_alone(tmp_path: Path) -> None:
    (make_run(tmp_path, "bad", "1", 0) / "checkpoint.pt").write_bytes(b"nothing")
    jobs = [make_job("bad"), make_job("good")]
    RunQueue(jobs, tmp_path, FakeMachine({"good": 0}), 2).run(lambda: None, lambda job: None)
    assert [job.state for job in jobs] == [FAILED, DONE]
    assert "checkpoint.pt" in jobs[0].error


def test_run_started_by_hand_is_waited_for(tmp_path: Path) -> None:
    """While it is held nothing is started; when it has ended, it is gone on with or done."""
    folder = make_run(tmp_path, "a", "1", 1)
    job, machine, states = make_job("a"), FakeMachine({"a": 0}), list[str]()
    lock = lock_folder(folder)

    def show() -> None:
        states.append(job.state)
        if len(states) == 3:
            assert not machine.commands
            lock.close()

    RunQueue([job], tmp_path, machine, 1).run(show, lambda job: None)
    assert states[:3] == [HELD] * 3 and job.state == DONE
    assert "--resume" in machine.commands["a"]


def test_interrupt_stops_every_run(tmp_path: Path) -> None:
    jobs, machine = [make_job("a"), make_job("b")], FakeMachine({"a": 0, "b": 0})

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunQueue(jobs, tmp_path, machine, 2).run(stop, lambda job: None)
    assert all(process.interrupted for process in machine.processes.values())


def test_display_tells_where_each_run_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job("a")
    display = RunDisplay([job])
    display.show()
    display.show()  # nothing new: no line
    job.state, job.folder, job.first_iteration = RUNNING, tmp_path, 0
    (tmp_path / "progress.csv").write_text("Iteration,Eval_AverageReturn\n0,1.25\n1,2.5\n2,")
    display.show()
    job.state, job.error = FAILED, "the last line"
    display.show()
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "a  waiting" and lines[2] == "a  failed: the last line"
    assert lines[1].startswith("a  iteration 2 of 3, Eval_AverageReturn 2.5, ")
    assert "left" in lines[1] and len(lines) == 3


def test_last_line_and_row(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == "" and last_row(log) == {}
    log.write_text("x" * 5000 + "\nbar 1\rbar 2\n \n")
    assert last_line(log) == "bar 2"
