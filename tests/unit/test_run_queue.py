"""Tests of the run queue, its jobs and the local launcher."""

import fcntl
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

from cs285.experiments.display import RunDisplay
from cs285.experiments.job import (
    DONE,
    ENDED_EARLY,
    FAILED,
    HELD,
    KILLS,
    LOSSES,
    RUNNING,
    STOPPED,
    WAITING,
    Job,
    end,
    last_line,
    update_job,
)
from cs285.experiments.launchers.base import LOST, Node, Share, capacity
from cs285.experiments.launchers.local import LocalLauncher, LocalProcess
from cs285.experiments.queue import RunQueue
from cs285.infrastructure.checkpoint import save_checkpoint
from cs285.infrastructure.lock import lock_folder
from cs285.infrastructure.logger import last_row
from tests.cli.processes import wait_until


class FakeProcess:
    """A process that ends with an exit code after a number of polls."""

    lost_because = "no shared folder"

    def __init__(self, code: int, polls: int = 3) -> None:
        self.code, self.polls, self.interrupted = code, polls, False

    def poll(self) -> int | None:
        self.polls -= 1
        return self.code if self.polls < 0 or self.interrupted else None

    def interrupt(self) -> None:
        self.interrupted = True

    def kill(self) -> None:
        raise AssertionError


class FakeLauncher:
    """A launcher that records the commands. The name of a run determines its exit code."""

    name = "nothing"

    def __init__(self, codes: dict[str, int]) -> None:
        self.codes, self.commands = codes, dict[str, list[str]]()
        self.processes = dict[str, FakeProcess]()
        self.starts = list[str]()

    def nodes(self) -> list[Node]:
        return [Node(1, 0)]

    def capacity(self, share: Share) -> int:
        return 1

    def start(
        self, module: str, words: Sequence[str], log: Path, lock: TextIO, share: Share
    ) -> FakeProcess:
        self.starts.append(log.stem)
        self.commands[log.stem] = [module, *words]
        log.write_text("Traceback\nthe last line\n\n")
        if self.codes[log.stem] == 0:
            resumed = words[words.index("--resume") + 1] if "--resume" in words else "_complete"
            make_run(log.parent, log.stem, resumed.split("_")[-1], 3)
        self.processes[log.stem] = FakeProcess(self.codes[log.stem])
        return self.processes[log.stem]


def queue_of(
    jobs: list[Job], data: Path, launcher: FakeLauncher, at_once: int = 1, **hooks: Any
) -> RunQueue:
    return RunQueue(jobs, data, launcher, Share(1), lambda: at_once, **hooks)


def make_job(name: str) -> Job:
    return Job(name, "module", ("--flag", "1"), ("--n_iter=3",), minutes=1.0, n_iter=3)


def make_run(data: Path, name: str, stamp: str, iterations: int) -> Path:
    folder = data / f"hw4_{name}_task_{stamp}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"flags": {"exp_name": name}}))
    if iterations:
        counters = {"next_iteration": iterations}
        save_checkpoint(folder / "checkpoint.pt", {"counters": counters})
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cs285.experiments.queue.POLL_SECONDS", 0.001)


def test_number_of_parallel_runs_is_limited_and_failures_stop_no_other_run(tmp_path: Path) -> None:
    jobs = [make_job(name) for name in ("a", "b", "c")]
    launcher = FakeLauncher({"a": 0, "b": 2, "c": -9})
    running, done = list[int](), list[str]()
    queue = queue_of(jobs, tmp_path, launcher, 2)
    queue.run(
        lambda: running.append(sum(job.state == RUNNING for job in jobs)),
        lambda job: done.append(f"{job.name} {job.state}"),
    )
    assert max(running) == 2 and sorted(done) == ["a done", "b failed", "c failed"]
    assert [job.state for job in jobs] == [DONE, FAILED, FAILED]
    assert [job.error for job in jobs] == ["", "the last line", "killed by signal 9"]
    assert launcher.commands["a"] == ["module", "--flag", "1", "--data_dir", str(tmp_path)]


def test_run_with_the_most_iterations_is_resumed_and_a_finished_run_skipped(tmp_path: Path) -> None:
    make_run(tmp_path, "half", "1", 0)
    furthest = make_run(tmp_path, "half", "2", 2)
    make_run(tmp_path, "half", "3", 1)
    make_run(tmp_path, "half_of_another", "4", 3)  # the folder name has the same prefix
    make_run(tmp_path, "whole", "1", 3)
    jobs, launcher = [make_job("half"), make_job("whole")], FakeLauncher({"half": 0})
    queue_of(jobs, tmp_path, launcher, 2).run(lambda: None, lambda job: None)
    words = ["module", "--n_iter=3", "--resume", str(furthest), "--trust"]
    assert launcher.commands == {"half": words}
    assert jobs[0].first_iteration == 2 and jobs[1].state == DONE


def test_a_run_that_ends_early_is_not_done(tmp_path: Path) -> None:
    """For example, its task called sys.exit."""
    job = make_job("early")
    launcher = FakeLauncher({"early": 0})

    def show() -> None:
        shutil.rmtree(tmp_path / "hw4_early_task_complete", ignore_errors=True)
        make_run(tmp_path, "early", "1", 2)

    queue_of([job], tmp_path, launcher).run(show, lambda job: None)
    assert (job.state, job.error) == (FAILED, ENDED_EARLY)


@pytest.mark.parametrize(("rows", "state"), [(0, FAILED), (2, FAILED), (3, DONE)])
def test_without_checkpoints_the_curve_tells_whether_a_run_is_done(
    rows: int, state: str, tmp_path: Path
) -> None:
    folder = make_run(tmp_path, "curve", "complete", 0)
    flags = {"exp_name": "curve", "checkpoint_freq": -1}
    (folder / "config.json").write_text(json.dumps({"flags": flags}))
    lines = ["Iteration", *map(str, range(rows))]
    (folder / "progress.csv").write_text("\n".join([*lines, ""]))
    job = make_job("curve")
    job.folder = folder
    job.state, job.lock, job.process = RUNNING, (tmp_path / "lock").open("w"), FakeProcess(0, 0)
    update_job(job, tmp_path)
    assert job.state == state


def test_finished_runs_are_reported_before_they_get_a_place(tmp_path: Path) -> None:
    make_run(tmp_path, "done", "1", 3)
    jobs, events = [make_job("new"), make_job("done")], list[str]()
    queue = queue_of(jobs, tmp_path, FakeLauncher({"new": 0}))
    queue.run(lambda: events.append(jobs[0].state), lambda job: events.append(job.name))
    assert events[:2] == ["done", RUNNING] and events[-2:] == ["new", DONE]


def test_finished_run_with_other_flags_is_an_error(tmp_path: Path) -> None:
    """A flag that the version of that run did not have is ignored."""
    folder = make_run(tmp_path, "a", "1", 3)
    (folder / "config.json").write_text(json.dumps({"flags": {"exp_name": "a", "size": 16}}))
    job = make_job("a")
    job.settings = {"exp_name": "a", "flag_of_today": 1, "size": 32}
    queue_of([job], tmp_path, FakeLauncher({}), 1).run(lambda: None, lambda job: None)
    assert job.state == FAILED and "--size 32: " in job.error


def test_run_with_more_iterations_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path, "a", "1", 5)
    job = make_job("a")
    queue_of([job], tmp_path, FakeLauncher({}), 1).run(lambda: None, lambda job: None)
    assert job.state == FAILED and job.error.startswith(f"--n_iter {job.n_iter}: ")


def test_failed_export_stops_no_other_run(tmp_path: Path) -> None:
    jobs, launcher = [make_job("a"), make_job("b")], FakeLauncher({"a": 0, "b": 0})

    def export(job: Job) -> None:
        if job.name == "a":
            raise OSError(28, "No space left on device")

    queue_of(jobs, tmp_path, launcher, 1).run(lambda: None, export)
    assert [job.state for job in jobs] == [FAILED, DONE] and "No space" in jobs[0].error


def test_run_of_another_process_occupies_a_place(tmp_path: Path) -> None:
    jobs, launcher = [make_job("a"), make_job("b")], FakeLauncher({"a": 0, "b": 0})
    lock = lock_folder(make_run(tmp_path, "a", "1", 1))
    started = list[int]()

    def show() -> None:
        started.append(len(launcher.commands))
        if len(started) == 3:
            lock.close()

    queue_of(jobs, tmp_path, launcher).run(show, lambda job: None)
    assert started[:3] == [0, 0, 0] and set(launcher.commands) == {"a", "b"}


def test_local_process_has_its_threads_holds_the_lock_and_can_be_interrupted(
    tmp_path: Path,
) -> None:
    """The parent ignores SIGINT, like a background job of a shell."""
    log, lock = tmp_path / "log", (tmp_path / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    code = "import os, time; print(os.environ['OMP_NUM_THREADS'], flush=True); time.sleep(60)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = LocalProcess([sys.executable, "-c", code], log, lock, {"OMP_NUM_THREADS": "3"})
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


def test_invalid_checkpoint_fails_only_its_job(tmp_path: Path) -> None:
    (make_run(tmp_path, "bad", "1", 0) / "checkpoint.pt").write_bytes(b"nothing")
    jobs = [make_job("bad"), make_job("good")]
    queue_of(jobs, tmp_path, FakeLauncher({"good": 0}), 2).run(lambda: None, lambda job: None)
    assert [job.state for job in jobs] == [FAILED, DONE]
    assert "checkpoint.pt" in jobs[0].error


def test_queue_waits_for_a_run_started_by_hand(tmp_path: Path) -> None:
    """The queue starts nothing while the run is active, and resumes the run afterwards."""
    folder = make_run(tmp_path, "a", "1", 1)
    job, launcher, states = make_job("a"), FakeLauncher({"a": 0}), list[str]()
    lock = lock_folder(folder)

    def show() -> None:
        states.append(job.state)
        if len(states) == 3:
            assert not launcher.commands
            lock.close()

    queue_of([job], tmp_path, launcher, 1).run(show, lambda job: None)
    assert states[:3] == [HELD] * 3 and job.state == DONE
    assert "--resume" in launcher.commands["a"]


def test_killed_run_is_retried_while_it_makes_progress(tmp_path: Path) -> None:
    """The job fails after KILLS kills in a row without progress."""
    job, launcher = make_job("a"), FakeLauncher({"a": -9})
    queue_of([job], tmp_path, launcher).run(lambda: None, lambda job: None)
    assert (job.state, job.error) == (FAILED, "killed by signal 9")
    assert len(launcher.starts) == KILLS
    job, iterations = make_job("b"), [0, 0, 1, 1, 2, 2, 3]

    class Advancing(FakeLauncher):
        def start(self, *arguments: Any) -> FakeProcess:
            tries = len(self.starts)
            make_run(tmp_path, "b", str(tries), iterations[tries])
            return super().start(*arguments)

    queue_of([job], tmp_path, Advancing({"b": -9})).run(lambda: None, lambda job: None)
    assert job.state == DONE


def test_run_is_restarted_until_too_many_machines_are_lost(tmp_path: Path) -> None:
    job, launcher = make_job("a"), FakeLauncher({"a": LOST})
    queue_of([job], tmp_path, launcher).run(lambda: None, lambda job: None)
    assert job.state == FAILED and len(launcher.starts) == LOSSES
    assert job.error == f"the machine it ran on was lost {LOSSES} times: no shared folder"


def test_next_job_is_called_when_a_place_is_free(tmp_path: Path) -> None:
    """The results of earlier jobs are then known. The initial jobs are started first."""
    jobs, launcher = [make_job("a")], FakeLauncher({"a": 0, "b": 2, "c": 0})
    coming, ended = [make_job("b"), make_job("c")], list[str]()
    known = list[list[str]]()

    def next_job() -> Job | None:
        known.append([*ended])
        return coming.pop(0) if coming else None

    queue = queue_of(jobs, tmp_path, launcher, next_job=next_job)
    queue.run(lambda: None, lambda job: ended.append(job.name))
    assert known[:3] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert [job.state for job in jobs] == [DONE, FAILED, DONE]


@pytest.mark.parametrize(("code", "state"), [(130, STOPPED), (-9, STOPPED), (0, DONE)])
def test_watch_may_stop_a_run_early(code: int, state: str, tmp_path: Path) -> None:
    """A run that finishes before the interrupt counts as done. The next run gets the place."""
    jobs, launcher = [make_job("a"), make_job("b")], FakeLauncher({"a": code, "b": 0})
    watched = list[str]()

    def watch(job: Job) -> None:
        watched.append(job.name)
        if job.name == "a":
            end(job, STOPPED)

    queue_of(jobs, tmp_path, launcher, watch=watch).run(lambda: None, lambda job: None)
    assert [job.state for job in jobs] == [state, DONE]
    assert watched.count("a") == 1 and launcher.starts == ["a", "b"]


def test_run_that_ignores_an_interrupt_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cs285.experiments.job.PATIENCE_SECONDS", 0.01)
    job, launcher = make_job("a"), FakeLauncher({"a": 0})
    monkeypatch.setattr(FakeProcess, "interrupt", lambda self: setattr(self, "polls", 10**9))

    def kill(process: FakeProcess) -> None:
        process.polls, process.code = 0, -9

    monkeypatch.setattr(FakeProcess, "kill", kill)
    queue = queue_of([job], tmp_path, launcher, watch=lambda job: end(job, STOPPED))
    queue.run(lambda: None, lambda job: None)
    assert job.state == STOPPED


def test_interrupt_stops_every_run(tmp_path: Path) -> None:
    jobs, launcher = [make_job("a"), make_job("b")], FakeLauncher({"a": 0, "b": 130})

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue_of(jobs, tmp_path, launcher, 2).run(stop, lambda job: None)
    assert all(process.interrupted for process in launcher.processes.values())
    assert [job.state for job in jobs] == [DONE, WAITING]


def test_display_shows_the_state_of_each_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job("a")
    display = RunDisplay([job])
    display.show()
    display.show()  # prints nothing, because nothing has changed
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


@pytest.mark.parametrize(
    ("nodes", "share", "expected"),
    [
        ([Node(8, 0)], Share(1), 8),
        ([Node(8, 0)], Share(3, 0), 2),
        ([Node(1, 0)], Share(4), 1),  # at least one run fits
        ([Node(8, 2)], Share(1, 1.0), 2),
        ([Node(8, 2)], Share(1, 0.5), 4),
        ([Node(8, 2)], Share(1, 0.7), 2),
        ([Node(8, 1)], Share(1, 1 / 3), 3),
        ([Node(3, 2)], Share(1, 0.5), 3),
        ([Node(8, 4), Node(8, 3)], Share(1, 2.0), 3),
        ([Node(8, 0)], Share(1, 1.0), 0),
    ],
)
def test_capacity(nodes: list[Node], share: Share, expected: int) -> None:
    assert capacity(nodes, share) == expected


@pytest.fixture
def launch_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[LocalLauncher, Share], str]]:
    """Return a function that starts a run, and returns its visible GPUs and its flags."""
    code = "import os, sys, time\n"
    code += "print(os.environ.get('CUDA_VISIBLE_DEVICES'), *sys.argv[1:], flush=True)\n"
    (tmp_path / "shown.py").write_text(f"{code}time.sleep(60)\n")
    processes, count = list[Any](), iter(range(100))

    def launch(launcher: LocalLauncher, share: Share) -> str:
        log = tmp_path / f"{next(count)}.log"
        with (tmp_path / "lock").open("w") as lock:
            processes.append(launcher.start("shown", [], log, lock, share))
        wait_until(lambda: log.read_text().endswith("\n"))
        return log.read_text().strip()

    yield launch
    for process in processes:
        process.kill()


def test_runs_share_gpus(
    launch_shown: Callable[[LocalLauncher, Share], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs get the visible GPUs by name, the least used GPU first."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    launcher, half = LocalLauncher(cwd=tmp_path), Share(2, 0.5)
    assert launcher.nodes()[0].gpus == 2
    assert [launch_shown(launcher, half) for _ in range(4)] == ["4", "GPU-7"] * 2
    process = launcher._on_gpus[1][0]
    process.kill()
    wait_until(lambda: process.poll() is not None)
    assert launch_shown(launcher, half) == "GPU-7"
    assert launch_shown(LocalLauncher(cwd=tmp_path), Share(2, 2.0)) == "4,GPU-7"
    assert launch_shown(launcher, Share(2, 0)) == "--num_workers 2"
    assert launch_shown(launcher, Share(2)) == "4,GPU-7"  # every visible GPU


def test_runs_without_gpus_get_workers(
    launch_shown: Callable[[LocalLauncher, Share], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert launch_shown(LocalLauncher(cwd=tmp_path), Share(3)) == "None --num_workers 3"
