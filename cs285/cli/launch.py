"""Launch a run from a command line. Every expected failure is a one-line error.

Torch and the simulators are imported only after the flags are parsed. Therefore, --help and flag
errors appear without delay, and the fork server of the workers can import torch in parallel.
"""

from __future__ import annotations

import functools
import importlib
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

from cs285.agents.registry import AgentEntry, check_trust, expand_flags, find_agent
from cs285.cli.messages import one_line_errors
from cs285.cli.script import add_trust_flag, run_script
from cs285.config import flags as flag_tools
from cs285.config import presets
from cs285.config.ineffective import describe_ineffective
from cs285.infrastructure.default_dtype import float32_default
from cs285.infrastructure.errors import UNGUARDED, UsageError, as_no_memory, printable
from cs285.infrastructure.interrupts import import_torch
from cs285.infrastructure.lock import lock_folder
from cs285.infrastructure.recording.rendering import choose_renderer, disable_renderer
from cs285.infrastructure.recording.tracking import check_installed
from cs285.infrastructure.run_folder import (
    CHECKPOINT,
    CONFIG,
    WHICH,
    create_run_folder,
    has_results,
    read_config,
    record_resume,
)
from cs285.infrastructure.value_types import shortened


class Prepared(NamedTuple):
    """What a run needs to know about its task and machine."""

    task: Any  # TaskSpec
    device: Any  # torch.device


Callback = Callable[[int, Mapping[str, float]], None]  # gets the iteration and its scalars
LAST = "last"  # the checkpoint that --resume uses by default


def launch(agent: str, argv: Sequence[str] | None) -> int:
    """Train a registered agent and return the exit code.

    It is 0 (success), 1 (the run failed), 2 (bad input) or 130 (Ctrl-C).
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker imports the user's script, which calls this function without a guard.
        os._exit(UNGUARDED)
    entry = find_agent(agent)

    def work(words: Sequence[str]) -> int:
        execute(entry, words)
        return 0

    # An OSError that `one_line_errors` does not know may be a bug in the user's agent.
    return run_script(entry.script, work, argv, shortens_os_errors=False)


@float32_default()
def execute(
    entry: AgentEntry, argv: Sequence[str] | None, callback: Callback | None = None
) -> Path | None:
    """Start or resume the run that a command line describes; return its log folder.

    Return None if the command line only asks for a list of presets or a check.
    `callback(iteration, scalars)` is called after each logged iteration. Raises RunError: the
    input is bad, or the run fails.
    """
    given = flag_tools.parse_values(_parser(entry), argv)
    if given.get("preset") == presets.LIST:
        print(presets.describe(entry.name, entry.presets))
        return None
    values = expand_flags(entry, given)
    resumed, which = values.pop("resume", None), values.pop("checkpoint", None)
    trusted, is_dry = values.pop("trust", False), values.pop("dry_run", False)
    if is_dry and resumed is not None:
        raise UsageError("--dry_run: must not be given together with --resume")
    if resumed == "":  # Path("") is the current folder
        raise UsageError("--resume '': must be the log folder of a run")
    if resumed is not None:
        return resume(entry, Path(resumed), values, which or LAST, trusted, callback)
    if which is not None:
        raise UsageError(f"--checkpoint {which}: must be given together with --resume")
    if trusted:
        raise UsageError("--trust: must be given together with --resume")
    config: Any = flag_tools.from_flat(entry.config_class, values)
    for line in describe_ineffective(given, config, flag_tools.defaults(entry.config_class)):
        print(line)
    if is_dry:
        _build(entry, config)
        return None
    return start_run(entry, config, callback)


def start_run(entry: AgentEntry, config: Any, callback: Callback | None = None) -> Path:
    """Check the config, create the log folder, run, and return the folder.

    Raises RunError: one of these fails.
    """
    run, prepared = config.run, _prepare(config)
    from cs285.cli.advice import describe_compiling

    if hint := describe_compiling(config, prepared.device):
        print(hint)
    flags = flag_tools.to_flat(config)
    folder = create_run_folder(
        run.data_dir, run.exp_name, run.env_name, entry.script, entry.full_name, flags
    )
    try:
        print(f"logging to {folder}", flush=True)
        _train(entry, config, folder, prepared, callback=callback)
    except BaseException:  # for example, the disk is full
        if not has_results(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def resume(
    entry: AgentEntry,
    folder: Path,
    given: dict[str, Any],
    which: str = LAST,
    trusted: bool = False,
    callback: Callback | None = None,
) -> Path:
    """Resume the run in `folder`, and return `folder`.

    The run has its own flags, and continues from its last or its previous checkpoint. The `given`
    flags must have the same values as before, except flags that cannot change past results.
    Raises RunError: a flag differs, the run cannot be resumed, it needs trust (`check_trust`), or
    it fails.
    """
    about = f"--resume {folder}"
    content = read_config(folder, "--resume")
    for file in folder.glob("*.tmp"):
        if file.is_symlink():  # the run would write to another file
            raise UsageError(f"{about}: its {file.name} is a link; must be a log folder without it")
    saved = content["flags"]
    for found, wanted in (
        (content["script"], entry.script),
        (content.get("agent", entry.full_name), entry.full_name),
    ):
        if found != wanted:
            raise UsageError(
                f"{about}: it is a run of {shortened(found)}; must be a run of {wanted}"
            )
    free = flag_tools.flags_free_on_resume(entry.config_class)
    for name, value in given.items():
        if name not in free and value != saved.get(name):
            raise UsageError(
                f"--{name} {value}: must be {saved.get(name)}, as when the run started; --resume "
                f"can change only {', '.join(sorted(free))}"
            )
    try:
        config: Any = flag_tools.from_flat(entry.config_class, {**saved, **given})
    except UsageError as error:
        raise UsageError(f"{about}: its {CONFIG}: {error}") from error
    for name in config.run.modules:
        check_trust(about, name, trusted, given.values())
    if saved.get("checkpoint_freq") == -1 and not (folder / CHECKPOINT).exists():
        raise UsageError(
            f"--resume {folder}: must be the log folder of a run with a checkpoint; this run had "
            "--checkpoint_freq -1"
        )
    prepared = _prepare(config)
    print(f"resuming {printable(str(folder))}", flush=True)
    _train(entry, config, folder, prepared, which, callback)
    return folder


def _parser(entry: AgentEntry) -> flag_tools.OneLineParser:
    description = importlib.import_module(entry.module).__doc__
    parser = flag_tools.OneLineParser(prog=entry.script, description=description)
    parser.add_argument(
        "--resume",
        metavar="LOGDIR",
        default=flag_tools.ABSENT,
        help="resume the run in this log folder with its own flags; the results are the same as "
        "without the interruption",
    )
    parser.add_argument(
        "--checkpoint",
        choices=tuple(WHICH),
        default=flag_tools.ABSENT,
        help="checkpoint to resume from; previous: the one before the last (default: last)",
    )
    add_trust_flag(parser)
    parser.add_argument(
        "--dry_run",
        action="store_true",
        default=flag_tools.ABSENT,
        help="check the flags and the task, build the agent, and start no run",
    )
    presets.add_flag(parser)
    flag_tools.add_flags(parser, entry.config_class)
    return parser


def _prepare(config: Any) -> Prepared:
    """Check the task and the device, and describe them.

    Raises UsageError: this machine or this task cannot run the config.
    """
    run = config.run
    if not run.env_name:
        raise UsageError("--env_name: must be the id of an environment (see --help)")
    chosen_renderer = disable_renderer()
    if run.num_workers != 1:
        multiprocessing.set_forkserver_preload(["cs285.collection.worker_pool"])
        # The fork server imports torch in parallel, on another core. It starts with Ctrl-C
        # blocked, so that neither it nor its children receive it.
        resource_tracker.ensure_running()  # otherwise the next call starts it and unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    import_torch()
    from cs285.envs import inspect_task
    from cs285.envs.env_watch import THIS_PROCESS
    from cs285.infrastructure.pytorch_util import select_device
    from cs285.networks.compilation import check_compiler
    from cs285.networks.cpu_tuning import tune_cpu

    if run.track:
        check_installed(run.track)
    tune_cpu()
    flags = flag_tools.to_flat(config)  # an agent without a model lacks the flags below
    with THIS_PROCESS.watched(run.env_timeout):
        learned_reward, termination = flags.get("learned_reward", False), flags.get("termination")
        task = inspect_task(run.task, run.ep_len, learned_reward, termination)
    if run.video_log_freq > 0:
        choose_renderer(run.task, chosen_renderer)
    device = select_device(run.no_gpu, run.which_gpu)
    if run.compile:
        check_compiler(device)
    return Prepared(task, device)


def _build(entry: AgentEntry, config: Any) -> None:
    """Build the agent of a config, for a check. Raises RunError: that fails."""
    task, device = _prepare(config)
    from cs285.envs.env_watch import THIS_PROCESS

    try:
        with THIS_PROCESS.watched(config.run.env_timeout):
            entry.build(config, task, device)
    except Exception as error:
        if no_memory := as_no_memory(error):
            raise no_memory from error
        raise


def _train(
    entry: AgentEntry,
    config: Any,
    folder: Path,
    prepared: Prepared,
    resumed_from: str | None = None,
    callback: Callback | None = None,
) -> None:
    """Train in `folder` on the prepared task and device. Raises RunError: it fails.

    `resumed_from` is the checkpoint of a resumed run: "last" or "previous".
    """
    from cs285.cli.advice import Advice
    from cs285.envs import make_env
    from cs285.envs.env_watch import THIS_PROCESS
    from cs285.infrastructure.interrupts import Interrupts
    from cs285.infrastructure.rl_trainer import RL_Trainer
    from cs285.policies.base_policy import RandomPolicy

    run, (task, device) = config.run, prepared
    interrupts, trainer, advice = Interrupts(), None, Advice(config, task)
    env_factory = functools.partial(make_env, run.task, run.ep_len)
    collector, evaluator = _make_collectors(run, env_factory, device, task.ep_len)
    try:
        with (
            one_line_errors(folder, lambda: trainer.unsaved_iterations if trainer else 0),
            interrupts.handled(),
            lock_folder(folder),
            THIS_PROCESS.watched(run.env_timeout),
        ):
            trainer = RL_Trainer(
                config=run,
                folder=folder,
                agent=entry.build(config, task, device),
                random_policy=RandomPolicy(task.ac_low, task.ac_high),
                collector=collector,
                evaluator=evaluator,
                env_factory=env_factory,
                render_env_factory=functools.partial(env_factory, render_mode="rgb_array"),
                device=device,
                advise=advice,
                callback=callback,
                which_checkpoint=resumed_from or LAST,
                interrupts=interrupts,
                get_success=task.get_success,
            )
            advice.start(trainer.counters.env_steps)
            first = trainer.counters.next_iteration
            if resumed_from and first < run.n_iter:
                record_resume(folder, flag_tools.to_flat(config), first)
            trainer.run_training_loop()
    finally:
        collector.close()
        evaluator.close()


def _make_collectors(run: Any, env_factory: Any, device: Any, ep_len: int) -> tuple[Any, Any]:
    """Return the collector of training data and the collector of evaluation episodes."""
    from cs285.collection.collector import Collector, make_backend, planning_cores
    from cs285.collection.continuing_collector import ContinuingCollector

    most_steps = run.eval_batch_size
    if not run.continue_episodes:
        most_steps = max(most_steps, run.batch_size_initial, run.batch_size)
    episodes, timeout = math.ceil(most_steps / ep_len), run.env_timeout
    backend = make_backend(env_factory, device, run.num_workers, episodes, timeout)
    evaluator = Collector(backend, run.seed, ep_len)
    if run.continue_episodes:
        cores = planning_cores(device, run.num_workers)
        return ContinuingCollector(env_factory, run.seed, cores), evaluator
    return evaluator, evaluator
