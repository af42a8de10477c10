"""Jobs are started, watched, retried and ended, whatever machine they run on."""

import fcntl
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

from cs285.experiments.display import RunDisplay, last_row
from cs285.experiments.job import (
    DONE,
    FAILED,
    HELD,
    KILLS,
    LOSSES,
    RUNNING,
    STOPPED,
    WAITING,
    Job,
    end,
    iterations_done,
    last_line,
)
from cs285.experiments.launchers.base import LOST, Node, Share, places
from cs285.experiments.launchers.local import LocalLauncher, LocalProcess
from cs285.experiments.queue import RunQueue
from cs285.infrastructure.checkpoint import save_checkpoint
from cs285.infrastructure.run_folder import lock_folder
from tests.cli.processes import wait_until


class FakeProcess:
    """Ends with its code after some polls."""

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
    """Notes what is started; a run's exit code goes by its name."""

    name = "nothing"

    def __init__(self, codes: dict[str, int]) -> None:
        self.codes, self.commands = codes, dict[str, list[str]]()
        self.processes = dict[str, FakeProcess]()
        self.starts = list[str]()

    def nodes(self) -> list[Node]:
        return [Node(1, 0)]

    def places(self, share: Share) -> int:
        return 1

    def start(
        self, module: str, words: Sequence[str], log: Path, lock: TextIO, share: Share
    ) -> FakeProcess:
        self.starts.append(log.stem)
        self.commands[log.stem] = [module, *words]
        log.write_text("Traceback\nthe last line\n\n")
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


def test_the_furthest_run_is_resumed_and_a_done_one_left(tmp_path: Path) -> None:
    make_run(tmp_path, "half", "1", 0)
    furthest = make_run(tmp_path, "half", "2", 2)
    make_run(tmp_path, "half", "3", 1)
    make_run(tmp_path, "half_of_another", "4", 3)  # its folder's name begins likewise
    make_run(tmp_path, "whole", "1", 3)
    jobs, launcher = [make_job("half"), make_job("whole")], FakeLauncher({"half": 0})
    queue_of(jobs, tmp_path, launcher, 2).run(lambda: None, lambda job: None)
    assert launcher.commands == {"half": ["module", "--n_iter=3", "--resume", str(furthest)]}
    assert jobs[0].first_iteration == 2 and jobs[1].state == DONE
    assert iterations_done(furthest) == 2


def test_done_runs_are_told_before_there_is_a_place_for_them(tmp_path: Path) -> None:
    make_run(tmp_path, "done", "1", 3)
    jobs, events = [make_job("new"), make_job("done")], list[str]()
    queue = queue_of(jobs, tmp_path, FakeLauncher({"new": 0}))
    queue.run(lambda: events.append(jobs[0].state), lambda job: events.append(job.name))
    assert events[:2] == ["done", RUNNING] and events[-2:] == ["new", DONE]


def test_done_run_of_other_flags_is_not_this_one(tmp_path: Path) -> None:
    """A flag that the version it was run by did not have tells nothing."""
    folder = make_run(tmp_path, "a", "1", 3)
    (folder / "config.json").write_text(json.dumps({"flags": {"exp_name": "a", "size": 16}}))
    job = make_job("a")
    job.settings = {"exp_name": "a", "flag_of_today": 1, "size": 32}
    queue_of([job], tmp_path, FakeLauncher({}), 1).run(lambda: None, lambda job: None)
    assert job.state == FAILED and "--size 32: " in job.error


def test_longer_run_is_not_this_one(tmp_path: Path) -> None:
    make_run(tmp_path, "a", "1", 5)
    job = make_job("a")
    queue_of([job], tmp_path, FakeLauncher({}), 1).run(lambda: None, lambda job: None)
    assert job.state == FAILED and job.error.startswith(f"--n_iter {job.n_iter}: ")


def test_what_cannot_be_exported_stops_no_other(tmp_path: Path) -> None:
    jobs, launcher = [make_job("a"), make_job("b")], FakeLauncher({"a": 0, "b": 0})

    def export(job: Job) -> None:
        if job.name == "a":
            raise OSError(28, "No space left on device")

    queue_of(jobs, tmp_path, launcher, 1).run(lambda: None, export)
    assert [job.state for job in jobs] == [FAILED, DONE] and "No space" in jobs[0].error


def test_run_that_is_held_elsewhere_has_its_share_of_the_machine(tmp_path: Path) -> None:
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
    """Also where it is started with SIGINT ignored, as by a shell in the background."""
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


def test_checkpoint_that_is_none_fails_the_job_alone(tmp_path: Path) -> None:
    (make_run(tmp_path, "bad", "1", 0) / "checkpoint.pt").write_bytes(b"nothing")
    jobs = [make_job("bad"), make_job("good")]
    queue_of(jobs, tmp_path, FakeLauncher({"good": 0}), 2).run(lambda: None, lambda job: None)
    assert [job.state for job in jobs] == [FAILED, DONE]
    assert "checkpoint.pt" in jobs[0].error


def test_run_started_by_hand_is_waited_for(tmp_path: Path) -> None:
    """While it is held nothing is started; when it has ended, it is gone on with or done."""
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


def test_killed_run_is_tried_again_while_it_gets_further(tmp_path: Path) -> None:
    """It fails after three tries in a row that came to nothing."""
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


def test_lost_run_begins_again_until_too_many_machines_are_lost(tmp_path: Path) -> None:
    job, launcher = make_job("a"), FakeLauncher({"a": LOST})
    queue_of([job], tmp_path, launcher).run(lambda: None, lambda job: None)
    assert job.state == FAILED and len(launcher.starts) == LOSSES
    assert job.error == f"the machine it ran on was lost {LOSSES} times: no shared folder"


def test_jobs_come_one_by_one_when_a_place_is_free(tmp_path: Path) -> None:
    """The next one is asked for when earlier ones are known, and jobs given at first go first."""
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
def test_run_is_ended_early(code: int, state: str, tmp_path: Path) -> None:
    """Unless it has come to its end meanwhile. Its place is taken by the next one."""
    jobs, launcher = [make_job("a"), make_job("b")], FakeLauncher({"a": code, "b": 0})
    watched = list[str]()

    def watch(job: Job) -> None:
        watched.append(job.name)
        if job.name == "a":
            end(job, STOPPED)

    queue_of(jobs, tmp_path, launcher, watch=watch).run(lambda: None, lambda job: None)
    assert [job.state for job in jobs] == [state, DONE]
    assert watched.count("a") == 1 and launcher.starts == ["a", "b"]


def test_run_that_does_not_heed_an_interrupt_is_killed(
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


@pytest.mark.parametrize(
    ("nodes", "share", "expected"),
    [
        ([Node(8, 0)], Share(1), 8),
        ([Node(8, 0)], Share(3, 0), 2),
        ([Node(1, 0)], Share(4), 1),  # what is asked for by name goes, if only one at a time
        ([Node(8, 2)], Share(1, 1.0), 2),
        ([Node(8, 2)], Share(1, 0.5), 4),
        ([Node(8, 2)], Share(1, 0.7), 2),
        ([Node(8, 1)], Share(1, 1 / 3), 3),
        ([Node(3, 2)], Share(1, 0.5), 3),
        ([Node(8, 4), Node(8, 3)], Share(1, 2.0), 3),
        ([Node(8, 0)], Share(1, 1.0), 0),
    ],
)
def test_places(nodes: list[Node], share: Share, expected: int) -> None:
    assert places(nodes, share) == expected


@pytest.fixture
def launch_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[LocalLauncher, Share], str]]:
    """A function that starts a run, and returns the GPUs that it sees and its flags."""
    program = "import os, sys, time\n"
    program += "print(os.environ.get('CUDA_VISIBLE_DEVICES'), *sys.argv[1:], flush=True)\n"
    (tmp_path / "shown.py").write_text(f"{program}time.sleep(60)\n")
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
    """GPUs are those that this process may use, by their names, the least used first."""
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
    assert launch_shown(launcher, Share(2)) == "4,GPU-7"  # unassigned


def test_runs_without_gpus_collect_in_workers(
    launch_shown: Callable[[LocalLauncher, Share], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert launch_shown(LocalLauncher(cwd=tmp_path), Share(3)) == "None --num_workers 3"
