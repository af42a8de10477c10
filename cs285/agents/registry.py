"""The registry of agents by name. A new agent needs one entry.

`launch`, `presets`, `sweep`, `reproduce` and `diagnose` know an agent only through its entry. A
user-defined agent registers itself in its module; scripts call it MODULE:NAME (docs/extending.md).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs285.config import presets
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig, resolve_flags
from cs285.config.pilco import PilcoConfig
from cs285.infrastructure.errors import RunError, UsageError
from cs285.infrastructure.recording.progress import Notify
from cs285.infrastructure.value_types import shortened

if TYPE_CHECKING:  # --help stays fast: building an agent imports torch and the simulators
    import torch

    from cs285.agents.base_agent import BaseAgent
    from cs285.envs.registration import TaskSpec


@dataclass(frozen=True)
class AgentEntry:
    """What the scripts need to know about an agent."""

    name: str  # its name for --script and in the lists of experiments
    module: str  # registers the agent on import; `python -m MODULE` trains it
    config_class: type  # its groups are the agent's flags; one must be `run` (RunConfig)
    build: Callable[[Any, TaskSpec, torch.device], BaseAgent]  # from an instance of config_class
    # maps the given {flag: value} to the flags of the run, and reports changes by Notify
    resolve: Callable[[dict[str, Any], Notify], dict[str, Any]] = lambda given, notify: given
    presets: Path = presets.FOLDER  # folder of its presets, as TOML files

    @property
    def full_name(self) -> str:
        """The name that `find_agent` takes: NAME, or MODULE:NAME for a user-defined agent."""
        return self.name if self.module.startswith("cs285.") else f"{self.module}:{self.name}"

    @property
    def script(self) -> str:
        """The file name of the script that trains the agent, as in config.json."""
        return f"{self.module.rsplit('.', 1)[-1]}.py"

    @property
    def words(self) -> list[str]:
        """The first words of the agent's command line, typed in the repository root."""
        is_built_in = self.module.startswith("cs285.")
        return (
            ["python", f"scripts/{self.script}"] if is_built_in else ["python", "-m", self.module]
        )


AGENTS: dict[str, AgentEntry] = {}  # by full name


def register(entry: AgentEntry) -> AgentEntry:
    """Add an agent to the registry and return its entry."""
    AGENTS[entry.full_name] = entry
    return entry


def add_current_folder_to_path() -> None:
    """Make the modules of the current folder importable, as `python -m` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def check_trust(argument: str, name: str, trusted: bool, named: Container[str] = ()) -> None:
    """Check that using `name`, read from a file, runs no code of somebody else.

    MODULE:REST imports MODULE. That needs no trust if the user `named` it, too, or if it is
    imported already. Raises UsageError, which names the `argument` and its value: it needs trust.
    """
    module, _, _ = name.rpartition(":")
    if module and not (trusted or name in named or module in sys.modules):
        raise UsageError(
            f"{argument}: it imports the module {shortened(module)} ({shortened(name)}); must be "
            "passed with --trust, if you trust its author"
        )


def find_agent(name: str) -> AgentEntry:
    """Return the entry of the agent NAME. MODULE:NAME imports the module first.

    NAME alone also finds the newest user-defined agent of this name in an imported module. Raises
    UsageError: the module cannot be imported or there is no such agent.
    """
    module, _, _ = name.rpartition(":")
    if module:
        try:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ImportError("not the name of a module")
            importlib.import_module(module)
        except RunError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"agent {name}: cannot import {module} ({type(error).__name__}: {error}); must be "
                "MODULE:NAME of an importable module"
            ) from error
    by_name = AGENTS if module else {entry.name: entry for entry in AGENTS.values()} | AGENTS
    if name not in by_name:
        raise UsageError(f"agent {name}: must be {', '.join(AGENTS)}, or MODULE:NAME")
    return by_name[name]


def agent_of_run(content: dict[str, Any]) -> AgentEntry:
    """Return the agent of a run, from the `content` of its config.json.

    Raises UsageError: there is no such agent.
    """
    # Runs before 2026-11-28 recorded only the script.
    by_script = {entry.script: name for name, entry in AGENTS.items()}
    return find_agent(content.get("agent", by_script.get(content["script"], content["script"])))


def expand_flags(
    entry: AgentEntry, given: dict[str, Any], notify: Notify = print
) -> dict[str, Any]:
    """Return all flags that the `given` flags and their presets set.

    Raises UsageError: a preset or a value is invalid.
    """
    resolved = entry.resolve(given, notify)
    return presets.expand(entry.name, entry.config_class, resolved, notify, entry.presets)


def _build_mb(config: MBConfig, task: TaskSpec, device: torch.device) -> BaseAgent:
    from cs285.agents.mb_agent import MBAgent

    run = config.run
    return MBAgent(task, config.model, config.planner, run.seed, device, run.compile)


def _build_mbpo(config: MBPOConfig, task: TaskSpec, device: torch.device) -> BaseAgent:
    from cs285.agents.mbpo_agent import MBPOAgent

    return MBPOAgent(task, config, device)


def _build_pilco(config: PilcoConfig, task: TaskSpec, device: torch.device) -> BaseAgent:
    from cs285.agents.pilco_agent import PilcoAgent

    return PilcoAgent(task, config, device)


register(AgentEntry("mb", "cs285.scripts.run_hw4_mb", MBConfig, _build_mb))
register(AgentEntry("mbpo", "cs285.scripts.run_hw4_mbpo", MBPOConfig, _build_mbpo, resolve_flags))
register(AgentEntry("pilco", "cs285.scripts.run_pilco", PilcoConfig, _build_pilco))
