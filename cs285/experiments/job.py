"""A run that is wanted: begun or resumed wherever it was left, by one process at a time."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cs285.agents.registry import expanded, find_agent
from cs285.config import flags as flag_tools
from cs285.config.ineffective import unchanging_flags
from cs285.experiments.local import LOST, Machine, Process
from cs285.infrastructure.checkpoint import load_checkpoint
from cs285.infrastructure.errors import InterruptedRunError, UsageError
from cs285.infrastructure.recording.progress import silent
from cs285.infrastructure.run_folder import CHECKPOINT, CONFIG, is_held

WAITING, RUNNING, DONE, FAILED, HELD = "waiting", "running", "done", "failed", "held elsewhere"
KILLED = "killed"  # so begin errors that are not the run's own
LOSSES = 20  # of a job's machines, after which it is given up


@dataclass
class Job:
    """A run that is wanted, and where it is."""

    name: str  # its --exp_name, which no other run in the data folder has
    module: str
    flags: tuple[str, ...]  # to begin with
    resume_flags: tuple[str, ...]  # to go on with: a run has its other ones already
    minutes: float  # a guess; 0: none
    n_iter: int
    settings: dict[str, Any] = field(default_factory=dict)  # flags that make it the run it is
    state: str = WAITING
    folder: Path | None = None
    started: float = 0.0  # time.monotonic() of this sitting
    first_iteration: int = 0  # of this sitting
    error: str = ""
    losses: int = 0  # of machines that it was on
    process: Process | None = field(default=None, repr=False)
    lock: TextIO | None = field(default=None, repr=False)


def resolve(agent: str, given: dict[str, Any]) -> Any:
    """Return the config that `given` flags come to, presets with them. Raises UsageError."""
    entry = find_agent(agent)
    return flag_tools.from_flat(entry.config_class, expanded(entry, given, silent))


def job_of(agent: str, given: dict[str, Any], minutes: float = 0.0) -> Job:
    """Return the job of a run; `given` has its exp_name. Raises UsageError: wrong flags."""
    entry, config = find_agent(agent), resolve(agent, given)
    free, flat = flag_tools.free_flags(entry.config_class), flag_tools.to_flat(config)
    again = {name: value for name, value in given.items() if name in free}
    passing = {*unchanging_flags(entry.config_class), *free}
    return Job(
        name=given["exp_name"],
        module=entry.module,
        flags=tuple(words_of(given)),
        resume_flags=tuple(words_of({**again, "n_iter": config.run.n_iter})),
        minutes=minutes,
        n_iter=config.run.n_iter,
        settings={name: flat[name] for name in flat if name not in passing},
    )


def words_of(given: dict[str, Any]) -> list[str]:
    """Return flags and their values as the words of a command line."""
    words: list[str] = []
    for name, value in given.items():
        truth = {True: f"--{name}", False: f"--no-{name}"}
        words.append(truth[value] if isinstance(value, bool) else f"--{name}={value}")
    return words


def begin(job: Job, data_dir: Path, machine: Machine) -> None:
    """Start or resume a job on `machine`: it is then RUNNING.

    Or HELD, where another process has it, DONE, or FAILED with what was wrong.
    """
    lock = (data_dir / f".{job.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except BlockingIOError:  # another one of us has it, or a run that outlived one
        is_ours = False
    except OSError:  # a file system without locks
        is_ours = True
    found = folders_of(data_dir, job.name)
    job.folder = found[-1] if found else None
    # Who asks whether a folder is held, holds it that moment: only where no run of ours begins.
    if not is_ours or any(map(is_held, found)):
        lock.close()
        job.state = HELD
        return
    locate(job, found)
    if job.state != WAITING:
        lock.close()
        return
    if job.folder:
        words = [*job.resume_flags, "--resume", str(job.folder)]
    else:
        words = [*job.flags, "--data_dir", str(data_dir)]
    job.process = machine.start(job.module, words, log_of(job, data_dir), lock)
    job.state, job.lock, job.started = RUNNING, lock, time.monotonic()


def look_after(job: Job, data_dir: Path) -> None:
    """Bring the state of a RUNNING job up to date."""
    assert job.process is not None and job.lock is not None
    code = job.process.poll()
    if job.folder is None:
        job.folder = next(reversed(folders_of(data_dir, job.name)), None)
    if code is None:
        return
    job.lock.close()
    if code == LOST:  # with the machine it was on: it can begin again elsewhere
        job.losses += 1
        job.state = WAITING if job.losses < LOSSES else FAILED
        job.error = f"the machine it ran on was lost {LOSSES} times" * (job.state == FAILED)
        return
    job.state = DONE if code == 0 else FAILED
    if code < 0:
        job.error = f"{KILLED} by signal {-code}"
    elif code == InterruptedRunError.exit_code:
        job.error = f"{KILLED} by an interrupt that was not ours"
    elif code > 0:
        job.error = last_line(log_of(job, data_dir)) or f"exit code {code}"


def log_of(job: Job, data_dir: Path) -> Path:
    """Return the file with what the run prints."""
    return data_dir / f"{job.name}.log"


def folders_of(data_dir: Path, name: str) -> list[Path]:
    """Return the log folders of an experiment, the newest last."""
    folders = data_dir.glob(f"hw4_{name}_*")
    found = [folder for folder in folders if _flags_of(folder).get("exp_name") == name]
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def iterations_done(folder: Path) -> int:
    """Return the iterations in the checkpoint of a log folder. Raises UsageError: unreadable."""
    if not (folder / CHECKPOINT).exists():
        return 0
    state = load_checkpoint(folder / CHECKPOINT, "cpu", lazily=True)
    return int(state["counters"]["next_iteration"])


def last_line(file: Path) -> str:
    """Return the last line of a log that is not empty."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 2000))
            lines = stream.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.split("\r")[-1].strip() for line in reversed(lines) if line.strip()), "")


def locate(job: Job, folders: Sequence[Path]) -> None:
    """Find the furthest of the job's log folders: it is then WAITING, DONE or FAILED."""
    job.state, job.error = WAITING, ""
    try:
        found = [(iterations_done(folder), folder) for folder in folders]
    except UsageError as error:  # a checkpoint that this version cannot read
        job.state, job.error = FAILED, str(error)
        return
    if not found:
        return
    job.first_iteration, job.folder = max(found, key=lambda pair: pair[0])
    flags = _flags_of(job.folder)
    # What an older version does not have as a flag, it did as the default does.
    settings = job.settings.items()
    other = [name for name, value in settings if flags.get(name, value) != value]
    if other:
        name = other[0]
        job.state = FAILED
        job.error = (
            f"--{name} {job.settings[name]}: {job.folder} was run with {flags.get(name)}; "
            "allowed: the same flags, or another --data_dir"
        )
    elif job.first_iteration > job.n_iter:
        job.state = FAILED
        job.error = (
            f"--n_iter {job.n_iter}: {job.folder} has {job.first_iteration} iterations; allowed: "
            "at least as many, or another --data_dir"
        )
    elif job.first_iteration == job.n_iter:
        job.state = DONE


def _flags_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / CONFIG).read_text())["flags"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
