"""A run with a model as its checkpoint has it: from its log folder alone, to look at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from cs285.agents.registry import AgentEntry, agent_of_run
from cs285.config import flags as flag_tools
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.old_names import translate_flags
from cs285.infrastructure.run_folder import CHECKPOINT, CONFIG

ALLOWED = "allowed: the log folder of a run with a checkpoint"


class Rebuilt(NamedTuple):
    """A run at its checkpoint."""

    config: Any  # the agent's
    task: Any  # TaskSpec
    env: Any
    agent: Any  # BaseAgent
    counters: dict[str, Any]


def rebuild(folder: Path, no_gpu: bool = False) -> Rebuilt:
    """Return the run in `folder` as its checkpoint has it. Raises UsageError."""
    from cs285.envs import inspect_task, make_env
    from cs285.infrastructure.pytorch_util import select_device
    from cs285.networks.cpu_tuning import tune_cpu

    entry, config = read_run(folder)
    tune_cpu()
    run, flags = config.run, flag_tools.to_flat(config)
    task = inspect_task(run.env_name, flags.get("learned_reward", False))
    device = select_device(no_gpu or run.no_gpu, run.which_gpu)
    agent = entry.build(config, task, device)
    env = make_env(run.env_name, run.ep_len or task.ep_len)
    return Rebuilt(config, task, env, agent, _restore(folder, agent, device))


def read_run(folder: Path) -> tuple[AgentEntry, Any]:
    """Return the agent of the run in `folder`, and its config.

    Raises UsageError: it is no log folder, has no checkpoint, or its run has no model.
    """
    try:
        content = json.loads((folder / CONFIG).read_text())
        entry, flags = agent_of_run(content), translate_flags(content["flags"])
        # Any GPU will do, and what it is rebuilt for is too short for compiling.
        flags |= {"compile": False, "which_gpu": 0}
        config: Any = flag_tools.from_flat(entry.config_class, flags)
    except OSError as error:
        raise UsageError(f"LOGDIR {folder}: {error.strerror} ({CONFIG}); {ALLOWED}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"LOGDIR {folder}: its {CONFIG} is of no run; {ALLOWED}") from error
    if flags.get("num_agent_train_steps_per_iter") == 0:
        raise UsageError(
            f"LOGDIR {folder}: its run has no model (--num_agent_train_steps_per_iter 0); allowed: "
            "the log folder of a run with 1 or more"
        )
    if not (folder / CHECKPOINT).exists():
        raise UsageError(f"LOGDIR {folder}: it has no {CHECKPOINT}; {ALLOWED}")
    return entry, config


def _restore(folder: Path, agent: Any, device: Any) -> dict[str, Any]:
    """Bring the agent to the run's checkpoint, and return its counters. Raises UsageError."""
    from cs285.infrastructure.checkpoint import load_checkpoint

    try:
        state = load_checkpoint(folder / CHECKPOINT, device)
        agent.load_state_dict(state["agent"])
        return state["counters"]
    except UsageError as error:
        raise UsageError(str(error).replace("--resume", f"LOGDIR {folder}")) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"LOGDIR {folder}: its {CHECKPOINT} is of another run than its {CONFIG}; {ALLOWED}"
        ) from error
