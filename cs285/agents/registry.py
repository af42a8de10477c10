"""The agents that can be trained, by name: one entry is all that a new agent needs.

`launch`, `presets`, `sweep`, `reproduce` and `diagnose` know agents only by their entries. An agent
of your own registers itself in its module, and is named MODULE:NAME where a tool asks for one
(docs/extending.md).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs285.config import presets
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig, resolve_batch_size
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording.progress import Notify

if TYPE_CHECKING:  # quick --help: torch and the simulators are imported when an agent is built
    import torch

    from cs285.agents.base_agent import BaseAgent
    from cs285.envs.registration import TaskSpec


@dataclass(frozen=True)
class AgentEntry:
    """What the tools need of an agent."""

    name: str  # as --script and the lists of experiments have it
    module: str  # what `python -m` runs to train it; registers it when imported
    config_class: type  # its groups are the agent's flags; `run` (RunConfig) must be among them
    build: Callable[[Any, TaskSpec, torch.device], BaseAgent]  # of a config
    # {flag: value} of the flags given -> those to run with; what they come to is reported
    resolve: Callable[[dict[str, Any], Notify], dict[str, Any]] = lambda given, notify: given
    presets: Path = presets.FOLDER  # its named settings, TOML files

    @property
    def full_name(self) -> str:
        """What `find_agent` finds it by."""
        return self.name if self.module.startswith("cs285.") else f"{self.module}:{self.name}"

    @property
    def script(self) -> str:
        """The file that trains it, as config.json has it."""
        return f"{self.module.rsplit('.', 1)[-1]}.py"

    @property
    def words(self) -> list[str]:
        """The words that begin its command, as typed at the top of the checkout."""
        is_ours = self.module.startswith("cs285.")
        return ["python", f"scripts/{self.script}"] if is_ours else ["python", "-m", self.module]


AGENTS: dict[str, AgentEntry] = {}


def register(entry: AgentEntry) -> AgentEntry:
    """Make an agent known to the tools, and return its entry."""
    AGENTS[entry.name] = entry
    return entry


def find_own_modules() -> None:
    """Let an agent MODULE:NAME be imported from the current folder, as `python -m` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def find_agent(name: str) -> AgentEntry:
    """Return the agent NAME, or MODULE:NAME, whose module is imported first.

    Raises UsageError: there is none.
    """
    module, _, own = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(f"agent {name}: cannot import {module} ({error})") from error
    if own not in AGENTS or (module and AGENTS[own].module != module):
        raise UsageError(f"agent {name}: must be {', '.join(AGENTS)}, or MODULE:NAME")
    return AGENTS[own]


def agent_of_run(content: dict[str, Any]) -> AgentEntry:
    """Return the agent of a run from its config.json. Raises KeyError, UsageError: it has none."""
    if "agent" in content:
        return find_agent(content["agent"])
    by_script = {entry.script: entry for entry in AGENTS.values()}  # runs before 2026-11-28
    return by_script[content["script"]]


def expand_flags(
    entry: AgentEntry, given: dict[str, Any], notify: Notify = print
) -> dict[str, Any]:
    """Return the flags that `given` ones come to, presets with them. Raises UsageError."""
    resolved = entry.resolve(given, notify)
    return presets.expand(entry.name, entry.config_class, resolved, notify, entry.presets)


def _build_mb(config: MBConfig, task: TaskSpec, device: torch.device) -> BaseAgent:
    from cs285.agents.mb_agent import MBAgent

    run = config.run
    return MBAgent(task, config.model, config.planner, run.seed, device, run.compile)


def _build_mbpo(config: MBPOConfig, task: TaskSpec, device: torch.device) -> BaseAgent:
    from cs285.agents.mbpo_agent import MBPOAgent

    return MBPOAgent(task, config, device)


register(AgentEntry("mb", "cs285.scripts.run_hw4_mb", MBConfig, _build_mb))
register(
    AgentEntry("mbpo", "cs285.scripts.run_hw4_mbpo", MBPOConfig, _build_mbpo, resolve_batch_size)
)
