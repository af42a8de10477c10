"""Jobs: runs that a queue starts or resumes. At most one process executes a job at a time."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cs285.agents.registry import expand_flags, find_agent
from cs285.config import flags as flag_tools
from cs285.config import presets
from cs285.config.ineffective import flags_without_effect_on_curve
from cs285.experiments.launchers.base import LOST, Launcher, Process, Share
from cs285.experiments.suites import Experiment
from cs285.infrastructure.checkpoint import read_checkpoint
from cs285.infrastructure.errors import InterruptedRunError, UsageError, one_line
from cs285.infrastructure.files import open_regular
from cs285.infrastructure.lock import is_held, open_lock
from cs285.infrastructure.logger import ITERATION, last_row
from cs285.infrastructure.recording.progress import silent
from cs285.infrastructure.run_folder import CHECKPOINT, PROGRESS, flags_of

WAITING, RUNNING, DONE, FAILED, HELD = "waiting", "running", "done", "failed", "held elsewhere"
STOPPED = "stopped early"
ENDED = (DONE, STOPPED, FAILED)
MOST_RUNS = 10_000  # of a list or a sweep; preparing them takes up to a minute
LOSSES = 20  # a job fails after it has lost this many machines
KILLS = 3  # a job fails after this many kills in a row without a new checkpoint
ENDED_EARLY = "its process ended with exit code 0 before the last iteration"
PATIENCE_SECONDS = 60.0  # an interrupted run may still be writing its checkpoint


@dataclass
class Job:
    """A run and its state."""

    name: str  # the --exp_name of the run, unique in the data folder
    module: str  # `python -m module` executes the run
    flags: tuple[str, ...]  # for a new run
    resume_flags: tuple[str, ...]  # for --resume: the log folder stores the other flags
    minutes: float  # estimated duration on one core; 0: unknown
    n_iter: int
    settings: dict[str, Any] = field(default_factory=dict)  # for comparison with an existing run
    state: str = WAITING
    folder: Path | None = None  # the log folder
    started: float = 0.0  # time.monotonic() when the current process was started
    first_iteration: int = 0  # of the current process
    error: str = ""
    losses: int = 0  # machines lost so far
    kills: int = 0  # kills in a row without a new checkpoint
    asked_to_end: tuple[str, str] | None = None  # state and error to set once the process has ended
    asked_at: float = 0.0  # time.monotonic() of the interrupt
    process: Process | None = field(default=None, repr=False)
    lock: TextIO | None = field(default=None, repr=False)


def resolve(agent: str, given: dict[str, Any]) -> Any:
    """Return the config of the `given` flags with presets expanded.

    Raises UsageError: a flag or value is invalid.
    """
    entry = find_agent(agent)
    return flag_tools.from_flat(entry.config_class, expand_flags(entry, given, silent))


def job_of(agent: str, given: dict[str, Any], minutes: float = 0.0) -> Job:
    """Return the job of the run with the `given` flags, which must include exp_name.

    Raises UsageError: a flag or value is invalid.
    """
    entry, config = find_agent(agent), resolve(agent, given)
    if not config.run.env_name:
        raise UsageError("--env_name: must be the id of an environment (see --help)")
    free, flat = flag_tools.flags_free_on_resume(entry.config_class), flag_tools.to_flat(config)
    free_flags_given = {name: value for name, value in given.items() if name in free}
    not_compared = {*flags_without_effect_on_curve(entry.config_class), *free}
    return Job(
        name=given["exp_name"],
        module=entry.module,
        flags=tuple(words_of(given)),
        resume_flags=tuple(words_of({**free_flags_given, "n_iter": config.run.n_iter})),
        minutes=minutes,
        n_iter=config.run.n_iter,
        settings={name: flat[name] for name in flat if name not in not_compared},
    )


def run_of(experiment: Experiment, seed: int) -> Job:
    """Return the job of a run. Raises UsageError: a flag of the experiment is invalid."""
    parser = flag_tools.OneLineParser(add_help=False)
    flag_tools.add_flags(parser, find_agent(experiment.script).config_class)
    presets.add_flag(parser)
    try:
        given = flag_tools.parse_values(parser, experiment.words(seed))
    except UsageError as error:
        raise UsageError(f"{experiment.name}: {error}") from error
    return job_of(experiment.script, given, experiment.minutes)


def words_of(given: dict[str, Any]) -> list[str]:
    """Return flags and their values as command-line words."""
    words: list[str] = []
    for name, value in given.items():
        truth = {True: f"--{name}", False: f"--no-{name}"}
        words.append(truth[value] if isinstance(value, bool) else f"--{name}={value}")
    return words


def begin(job: Job, data_dir: Path, launcher: Launcher, share: Share) -> None:
    """Start or resume a job.

    The job is RUNNING afterwards, HELD if another process has it, DONE if nothing is left to do, or
    FAILED with an error.
    """
    lock = open_lock(data_dir / f".{job.name}.lock")
    is_ours = True  # also on a file system that does not support locks
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # another queue holds the job, or a run that outlived its queue
        is_ours = not isinstance(error, BlockingIOError)
    found = folders_of(data_dir, job.name)
    job.folder = found[-1] if found else None
    # is_held() locks a folder for a moment. Without our lock it could disturb a run that starts.
    if is_ours and not any(map(is_held, found)):
        locate(job, found)
    else:
        job.state = HELD
    if job.state != WAITING:
        lock.close()
        return
    if job.folder:
        # Its flags equal the job's flags, which the user gave, so it imports no other module.
        words = [*job.resume_flags, "--resume", str(job.folder), "--trust"]
    else:
        words = [*job.flags, "--data_dir", str(data_dir)]
    job.process = launcher.start(job.module, words, log_of(job, data_dir), lock, share)
    job.state, job.lock, job.started = RUNNING, lock, time.monotonic()


def end(job: Job, state: str, error: str = "") -> None:
    """Interrupt a RUNNING job so that it can be resumed later.

    The job gets `state` and `error` once its process has ended.
    """
    assert job.process is not None
    if job.asked_to_end is None:
        job.asked_to_end, job.asked_at = (state, error), time.monotonic()
        job.process.interrupt()


def update_job(job: Job, data_dir: Path) -> None:
    """Update the state of a RUNNING job."""
    assert job.process is not None and job.lock is not None
    code = job.process.poll()
    if job.folder is None:
        job.folder = next(reversed(folders_of(data_dir, job.name)), None)
    if code is None:
        if job.asked_to_end and time.monotonic() > job.asked_at + PATIENCE_SECONDS:
            job.process.kill()
        return
    job.lock.close()
    asked, job.asked_to_end = job.asked_to_end, None
    if code == 0:
        job.state, job.error = (DONE, "") if _is_complete(job) else (FAILED, ENDED_EARLY)
    elif asked:
        job.state, job.error = asked
    elif code == LOST:  # another machine can resume it
        job.losses += 1
        job.state = WAITING if job.losses < LOSSES else FAILED
        if job.state == FAILED:
            reason = f": {job.process.lost_because}" if job.process.lost_because else ""
            job.error = f"the machine it ran on was lost {LOSSES} times{reason}"
    elif code < 0:
        _retry(job, data_dir, f"killed by signal {-code}")
    elif code == InterruptedRunError.exit_code:
        _retry(job, data_dir, "interrupted from outside the queue")
    else:
        job.state = FAILED
        job.error = last_line(log_of(job, data_dir)) or f"exit code {code}"


def _is_complete(job: Job) -> bool:
    """Return whether the last iteration is in the checkpoint or in the curve."""
    if job.folder is None:
        return False
    flags = flags_of(job.folder)
    if flags.get("checkpoint_freq", 1) > 0:
        with contextlib.suppress(UsageError):
            return iterations_done(job.folder) >= job.n_iter
    last, frequency = job.n_iter - 1, flags.get("scalar_log_freq", 1)
    if frequency < 1:
        return True  # the run saves neither checkpoints nor a curve
    row = last_row(job.folder / PROGRESS)
    return bool(row) and int(row[ITERATION]) >= last - last % frequency


def _retry(job: Job, data_dir: Path, error: str) -> None:
    """Set a killed job to WAITING, or to FAILED after KILLS kills without a new checkpoint."""
    first = job.first_iteration
    locate(job, folders_of(data_dir, job.name))
    if job.state == WAITING:
        job.kills = 0 if job.first_iteration > first else job.kills + 1
        if job.kills >= KILLS:
            job.state, job.error = FAILED, error


def log_of(job: Job, data_dir: Path) -> Path:
    """Return the file that receives the output of the run."""
    return data_dir / f"{job.name}.log"


def folders_of(data_dir: Path, name: str) -> list[Path]:
    """Return the log folders of the run `name`, newest last."""
    folders = data_dir.glob(f"hw4_{name}_*")
    found = [folder for folder in folders if flags_of(folder).get("exp_name") == name]
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def iterations_done(folder: Path) -> int:
    """Return the number of iterations in the checkpoint of a log folder.

    Raises UsageError: the checkpoint is unreadable.
    """
    if not (folder / CHECKPOINT).exists():
        return 0
    state = read_checkpoint(folder, "cpu", lazily=True, argument="log folder")
    return int(state["counters"]["next_iteration"])


def last_line(file: Path) -> str:
    """Return the last non-empty line of a log, or "" if there is none."""
    try:
        with open_regular(file) as stream:
            stream.seek(max(0, file.stat().st_size - 2000))
            lines = stream.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.split("\r")[-1] for line in reversed(lines) if line.strip()), "")
    return one_line(last)


def locate(job: Job, folders: Sequence[Path]) -> None:
    """Find the log folder with the most iterations, and set the job to WAITING, DONE or FAILED."""
    job.state, job.error = WAITING, ""
    try:
        found = [(iterations_done(folder), folder) for folder in folders]
    except UsageError as error:  # this version cannot read the checkpoint
        job.state, job.error = FAILED, str(error)
        return
    if not found:
        return
    job.first_iteration, job.folder = max(found, key=lambda pair: pair[0])
    flags = flags_of(job.folder)
    # The run may come from a version that lacked a flag. The flag is then not compared.
    settings = job.settings.items()
    other = [name for name, value in settings if flags.get(name, value) != value]
    if other:
        name = other[0]
        job.state = FAILED
        job.error = (
            f"--{name} {job.settings[name]}: {job.folder} was run with {flags.get(name)}; must be "
            "the same, or choose another --data_dir"
        )
    elif job.first_iteration > job.n_iter:
        job.state = FAILED
        job.error = (
            f"--n_iter {job.n_iter}: {job.folder} already has {job.first_iteration} iterations; "
            f"must be at least {job.first_iteration}, or choose another --data_dir"
        )
    elif job.first_iteration == job.n_iter:
        job.state = DONE
