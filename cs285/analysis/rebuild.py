"""Rebuild a run and its agent from the checkpoint in its log folder, for analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cs285.agents.registry import AgentEntry, agent_of_run, check_trust
from cs285.config import flags as flag_tools
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.interrupts import import_torch
from cs285.infrastructure.run_folder import (
    CONFIG,
    WHICH,
    checkpoint_name,
    checkpoints_in,
    has_checkpoint,
    read_config,
)

A = TypeVar("A")
MUST_BE = "must be the log folder of a run with a checkpoint"


class Rebuilt(NamedTuple):
    """A run in the state of its checkpoint."""

    config: Any  # of the agent
    task: Any  # TaskSpec
    env: Any
    agent: Any  # BaseAgent
    counters: dict[str, Any]
    parts: tuple[str, ...] | None  # of the agent that the checkpoint has; None: all


def best_if_alone(folder: str | Path) -> str:
    """Return "last", or "best" for a folder that has only what acting needs."""
    return "last" if has_checkpoint(Path(folder)) else "best"


def rebuild(
    folder: str | Path,
    no_gpu: bool = False,
    trusted: bool = False,
    checkpoint: str = "last",
    **changed: Any,
) -> Rebuilt:
    """Return the run in the log folder `folder`, restored from its last checkpoint.

    `checkpoint` names another one: "previous", "best" (see `best_if_alone`), or the number of an
    iteration. `changed` replaces flags that do not change what the checkpoint holds.

    Raises UsageError: see read_run; or the checkpoint cannot be loaded.
    """
    import_torch()
    from cs285.envs import inspect_task, make_env
    from cs285.envs.env_watch import THIS_PROCESS
    from cs285.infrastructure.pytorch_util import select_device
    from cs285.networks.cpu_tuning import tune_cpu

    folder = Path(folder)
    entry, config = read_run(folder, trusted, checkpoint, **changed)
    tune_cpu()
    run, flags = config.run, flag_tools.to_flat(config)
    device = select_device(no_gpu or run.no_gpu, run.which_gpu)
    with THIS_PROCESS.watched(run.env_timeout):
        task = inspect_task(run.task, run.ep_len, flags.get("learned_reward", False))
        agent = entry.build(config, task, device)
    restored = _restore(folder, agent, device, checkpoint)
    return Rebuilt(config, task, make_env(run.task, run.ep_len), agent, *restored)


def agent_of(run: Rebuilt, kind: type[A], folder: Path) -> A:
    """Return the agent of class `kind`: the run's agent, or the MBAgent of an MBPOAgent.

    Raises UsageError: the run in `folder` has another agent.
    """
    for found in (run.agent, getattr(run.agent, "mb_agent", None)):
        if isinstance(found, kind):
            return found
    raise UsageError(
        f"LOGDIR {folder}: must be the log folder of a run with {kind.__name__}, not "
        f"{type(run.agent).__name__}"
    )


def read_run(
    folder: Path, trusted: bool = False, checkpoint: str = "last", **changed: Any
) -> tuple[AgentEntry, Any]:
    """Return the agent entry and the config of the run in `folder`, with `changed` flags.

    Raises UsageError: `folder` is not a log folder, has no checkpoint, or needs to be `trusted`
    (`check_trust`).
    """
    about = f"LOGDIR {folder}"
    content = read_config(folder)
    check_trust(about, content.get("agent", ""), trusted)
    # Analysis may run on any GPU, and is too short to be worth compiling.
    flags = content["flags"] | {"compile": False, "which_gpu": 0} | changed
    try:
        entry = agent_of_run(content)
        config: Any = flag_tools.from_flat(entry.config_class, flags)
    except UsageError as error:
        raise UsageError(f"{about}: its {CONFIG}: {error}") from error
    for name in config.run.modules:
        check_trust(about, name, trusted)
    if not (folder / checkpoint_name(checkpoint)).exists():
        found = checkpoints_in(folder)
        if checkpoint != "last" and found:
            raise UsageError(
                f"--checkpoint {checkpoint}: must be {' or '.join(found)} for the run in {folder}"
            )
        instead = f", or pass --checkpoint {' or '.join(found)}" * bool(found)
        raise UsageError(f"{about}: it has no {checkpoint_name(checkpoint)}; {MUST_BE}{instead}")
    return entry, config


def _restore(
    folder: Path, agent: Any, device: Any, which: str
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Load the checkpoint into the agent, and return the `counters` and `parts` of the run.

    Raises UsageError: the checkpoint is unreadable, or does not match the agent.
    """
    from cs285.infrastructure.checkpoint import read_checkpoint

    try:
        state = read_checkpoint(folder, device, argument="LOGDIR", which=which)
        if which in WHICH:
            agent.load_state_dict(state["agent"])
            return state["counters"], None
        agent.load_parameters(state["agent"])
        return state["counters"], tuple(state["agent"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"LOGDIR {folder}: its {checkpoint_name(which)} and {CONFIG} belong to different runs; "
            f"{MUST_BE}"
        ) from error
