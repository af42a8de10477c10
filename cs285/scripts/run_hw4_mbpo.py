"""Train the MBPO agent: SAC on real transitions and on those of an ensemble model (question 6)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from cs285.infrastructure.config import (
    MBPOConfig,
    PlannerConfig,
    RolloutConfig,
    RunConfig,
)
from cs285.infrastructure.flags import check_values
from cs285.infrastructure.sac_config import SACConfig
from cs285.scripts.launch import launch

NEED_NO_ROLLOUTS = ("mbpo_rollout_length", "mbpo_refit_every", "mbpo_eval_planner")


def build_agent(config: MBPOConfig, task: Any, device: Any) -> Any:
    """Return the MBPOAgent of this config for `task` on `device`."""
    from cs285.agents.mbpo_agent import MBPOAgent

    return MBPOAgent(task, config, device)


def settle(given: dict[str, Any]) -> dict[str, Any]:
    """Say what the given flags come to, and return those to run with.

    --sac_batch_size takes the place of a --batch_size that is not given. Raises UsageError: a value
    of the two is not allowed. On --resume all was settled when the run began.
    """
    if "resume" in given:
        return given
    check_values(RunConfig, given)
    check_values(SACConfig, given)
    if not given.get("mbpo_eval_planner"):
        _say_unused(given, PlannerConfig, "as --mbpo_eval_planner is not given")
    if given.get("mbpo_rollout_length") == 0:
        _say_unused(given, RolloutConfig, "as --mbpo_rollout_length is 0", NEED_NO_ROLLOUTS)
    if "sac_batch_size" not in given:
        return given
    if "batch_size" in given:
        print(
            f"--batch_size {given['batch_size']} env steps are collected per iteration; it wins "
            f"over --sac_batch_size {given['sac_batch_size']}"
        )
    return {"batch_size": given["sac_batch_size"], **given}


def _say_unused(given: dict[str, Any], group: type, reason: str, but: tuple[str, ...] = ()) -> None:
    """Name the flags of a group that were given another value than their default, to no effect."""
    unused = [
        field.name
        for field in dataclasses.fields(group)
        if given.get(field.name, field.default) != field.default and field.name not in but
    ]
    if unused:
        print(f"--{', --'.join(unused)}: without effect, {reason}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return launch("run_hw4_mbpo.py", MBPOConfig, build_agent, argv, settle)


if __name__ == "__main__":
    sys.exit(main())
