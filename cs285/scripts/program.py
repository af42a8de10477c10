"""What sets the two programs that train agents apart from each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cs285.infrastructure.progress import Say


def _as_given(given: dict[str, Any], say: Say) -> dict[str, Any]:
    return given


class Program(NamedTuple):
    """One of the two: its flags, and the agent that they ask for."""

    name: str  # mb or mbpo
    config_class: Any
    build_agent: Callable[[Any, Any, Any], Any]  # (config, TaskSpec, torch.device) -> BaseAgent
    # {flag name: value} of the flags given -> those to run with; what they come to is said
    settle: Callable[[dict[str, Any], Say], dict[str, Any]] = _as_given

    @property
    def script(self) -> str:
        """Return the name of its file, as config.json has it."""
        return f"run_hw4_{self.name}.py"

    @property
    def module(self) -> str:
        """Return the module that `python -m` runs it by."""
        return f"cs285.scripts.run_hw4_{self.name}"
