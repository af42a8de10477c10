"""Train the MBPO agent: SAC on real transitions and on those of an ensemble model (question 6)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cs285.infrastructure.config import MBPOConfig, RunConfig
from cs285.infrastructure.flags import check_values
from cs285.infrastructure.progress import Say
from cs285.infrastructure.sac_config import SACConfig
from cs285.scripts.launch import launch
from cs285.scripts.program import Program


def build_agent(config: MBPOConfig, task: Any, device: Any) -> Any:
    """Return the MBPOAgent of this config for `task` on `device`."""
    from cs285.agents.mbpo_agent import MBPOAgent

    return MBPOAgent(task, config, device)


def settle(given: dict[str, Any], say: Say = print) -> dict[str, Any]:
    """Say what the given flags come to, and return those to run with.

    --sac_batch_size takes the place of a --batch_size that is not given. Raises UsageError: a value
    of the two is not allowed. On --resume all was settled when the run began.
    """
    if "resume" in given:
        return given
    check_values(RunConfig, given)
    check_values(SACConfig, given)
    if "sac_batch_size" not in given:
        return given
    if "batch_size" in given:
        say(
            f"--batch_size {given['batch_size']} env steps are collected per iteration; it wins "
            f"over --sac_batch_size {given['sac_batch_size']}"
        )
    return {"batch_size": given["sac_batch_size"], **given}


PROGRAM = Program("mbpo", MBPOConfig, build_agent, settle)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return launch(PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main())
