"""Train the model-based agent: an ensemble dynamics model and an MPC policy (questions 1 to 5)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cs285.infrastructure.config import MBConfig
from cs285.scripts.launch import launch
from cs285.scripts.program import Program


def build_agent(config: MBConfig, task: Any, device: Any) -> Any:
    """Return the MBAgent of this config for `task` on `device`."""
    from cs285.agents.mb_agent import MBAgent

    run = config.run
    return MBAgent(task, config.model, config.planner, run.seed, device, run.compile)


PROGRAM = Program("mb", MBConfig, build_agent)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return launch(PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main())
