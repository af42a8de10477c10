"""Launch a run from a command line. Every expected failure is a one-line error.

Torch and the simulators are imported only after the flags are parsed. Therefore, --help and flag
errors appear without delay, and the fork server of the workers can import torch in parallel.
"""

from __future__ import annotations

import functools
import importlib
import math
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from cs285.agents.registry import AgentEntry, expand_flags, find_agent
from cs285.cli.messages import one_line_errors
from cs285.config import flags as flag_tools
from cs285.config import presets
from cs285.config.ineffective import describe_ineffective
from cs285.infrastructure.errors import InterruptedRunError, RunError, UsageError
from cs285.infrastructure.recording.rendering import choose_renderer, disable_renderer
from cs285.infrastructure.run_folder import (
    CHECKPOINT,
    CONFIG,
    PROGRESS,
    WHICH,
    create_run_folder,
    lock_folder,
    read_config,
    record_resume,
)

LAST = "last"  # the checkpoint that --resume uses by default


def launch(agent: str, argv: Sequence[str] | None) -> int:
    """Train a registered agent and return the exit code.

    It is 0 (success), 1 (the run failed), 2 (bad input) or 130 (Ctrl-C).
    """
    entry = find_agent(agent)
    try:
        given = flag_tools.parse_values(_parser(entry), argv)
        if given.get("preset") == presets.LIST:
            print(presets.describe(entry.name, entry.presets))
            return 0
        values = expand_flags(entry, given)
        resumed, which = values.pop("resume", None), values.pop("checkpoint", None)
        if resumed is None:
            if which is not None:
                raise UsageError(f"--checkpoint {which}: must be given together with --resume")
            config: Any = flag_tools.from_flat(entry.config_class, values)
            for line in describe_ineffective(
                given, config, flag_tools.defaults(entry.config_class)
            ):
                print(line)
            start_run(entry, config)
        else:
            resume(entry, Path(resumed), values, which or LAST)
    except UsageError as error:
        print(f"{entry.script}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except RunError as error:
        print(f"{entry.script}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{entry.script}: interrupted before the run started", file=sys.stderr)
        return InterruptedRunError.exit_code
    return 0


def start_run(entry: AgentEntry, config: Any) -> None:
    """Check the config, create the log folder and run. Raises RunError: one of these fails."""
    run = config.run
    if not run.env_name:
        raise UsageError("--env_name: must be the id of an environment (see --help)")
    parts = _prepare(config)
    from cs285.cli.advice import describe_compiling

    if hint := describe_compiling(config, parts[1]):
        print(hint)
    flags = flag_tools.to_flat(config)
    folder = create_run_folder(
        run.data_dir, run.exp_name, run.env_name, entry.script, entry.full_name, flags
    )
    print(f"logging to {folder}", flush=True)
    try:
        _train(entry, config, folder, parts)
    except UsageError:  # for example, the disk is full
        # Do not leave a folder without results.
        if not any((folder / name).exists() for name in (CHECKPOINT, PROGRESS)):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def resume(entry: AgentEntry, folder: Path, given: dict[str, Any], which: str = LAST) -> None:
    """Resume the run in `folder` with its own flags, from its last or its previous checkpoint.

    The `given` flags must have the same values as before, except those that cannot change past
    results. Raises RunError: a flag differs, the run cannot be resumed, or it fails.
    """
    saved = read_config(folder, entry.script)
    free = flag_tools.flags_free_on_resume(entry.config_class)
    for name, value in given.items():
        if name not in free and value != saved.get(name):
            raise UsageError(
                f"--{name} {value}: must be {saved.get(name)}, as when the run started; --resume "
                f"can change only {', '.join(sorted(free))}"
            )
    try:
        config: Any = flag_tools.from_flat(entry.config_class, {**saved, **given})
    except TypeError as error:
        raise UsageError(
            f"--resume {folder}: its {CONFIG} has values of a wrong type; must be the log folder "
            f"of a run of {entry.script}"
        ) from error
    if saved.get("checkpoint_freq") == -1 and not (folder / CHECKPOINT).exists():
        raise UsageError(
            f"--resume {folder}: must be the log folder of a run with a checkpoint; this run had "
            "--checkpoint_freq -1"
        )
    parts = _prepare(config)
    print(f"resuming {folder}", flush=True)
    _train(entry, config, folder, parts, which)


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
    presets.add_flag(parser)
    flag_tools.add_flags(parser, entry.config_class)
    return parser


def _prepare(config: Any) -> tuple[Any, Any, int]:
    """Check the task and the device, and return (task, device, maximum episode length).

    Raises UsageError: this machine or this task cannot run the config.
    """
    run = config.run
    chosen_renderer = disable_renderer()
    if run.num_workers != 1:
        multiprocessing.set_forkserver_preload(["cs285.collection.worker_pool"])
        # The fork server imports torch in parallel, on another core. It starts with Ctrl-C
        # blocked, so that neither it nor its children receive it.
        resource_tracker.ensure_running()  # otherwise the next call starts it and unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    from cs285.envs import inspect_task
    from cs285.infrastructure.pytorch_util import select_device
    from cs285.networks.compilation import check_compiler
    from cs285.networks.cpu_tuning import tune_cpu

    tune_cpu()
    flags = flag_tools.to_flat(config)  # an agent without a model lacks the flags below
    task = inspect_task(run.env_name, flags.get("learned_reward", False), flags.get("termination"))
    if run.video_log_freq > 0:
        choose_renderer(run.env_name, chosen_renderer)
    device = select_device(run.no_gpu, run.which_gpu)
    if run.compile:
        check_compiler(device)
    return task, device, run.ep_len or task.ep_len


def _train(
    entry: AgentEntry, config: Any, folder: Path, parts: Any, resumed_from: str | None = None
) -> None:
    """Train in `folder` with the `parts` that `_prepare` returned. Raises RunError: it fails.

    `resumed_from` is the checkpoint of a resumed run: "last" or "previous".
    """
    from cs285.cli.advice import Advice
    from cs285.envs import make_env
    from cs285.infrastructure.interrupts import Interrupts
    from cs285.infrastructure.rl_trainer import RL_Trainer
    from cs285.policies.base_policy import RandomPolicy

    run, (task, device, ep_len) = config.run, parts
    interrupts, trainer = Interrupts(), None
    env_factory = functools.partial(make_env, run.env_name, ep_len)
    collector, evaluator = _make_collectors(run, env_factory, device, ep_len)
    try:
        with (
            one_line_errors(folder, lambda: trainer.unsaved_iterations if trainer else 0),
            interrupts.handled(),
            lock_folder(folder),
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
                advise=Advice(config, task),
                which_checkpoint=resumed_from or LAST,
                interrupts=interrupts,
                get_success=task.get_success,
            )
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
        return ContinuingCollector(env_factory, run.seed, cores, timeout), evaluator
    return evaluator, evaluator
