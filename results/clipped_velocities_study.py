"""Study how well a model predicts transitions whose observed velocities are clipped.

    python results/clipped_velocities_study.py LOGDIR [--limit 10]

LOGDIR is the log folder of a run with a model. The model of the previous checkpoint predicts the
transitions that were collected after its fit. They are split by whether a coordinate reaches the
limit before the step, after it, both times or never. On Hopper-v5 and Walker2d-v5, only velocities
reach 10, and are clipped there. The script writes results/study/clipped_velocities_NAME.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs285.agents.mb_agent import MBAgent
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.base_model import DynamicsModel

SCRIPT, TARGET = "clipped_velocities_study.py", Path(__file__).parent / "study"


def errors(model: DynamicsModel, data: Transitions) -> Tensor:
    """Return the squared error (B,) of the elites' predictions, in units of the change's variance.

    It is the mean over the elites and the columns that change.
    """
    acs = data.acs.expand(model.members, *data.acs.shape)
    with torch.no_grad():
        _, prediction = model.step(model.initial_state(data.obs), acs)
    variance = (data.next_obs - data.obs).var(0)
    by_column = (prediction.next_obs - data.next_obs).square() / variance
    return by_column[..., variance > 0].mean((0, 2))


def mb_agent_of(folder: Path, checkpoint: str) -> tuple[str, MBAgent]:
    """Return the name of a run, and its agent with the model and the transitions."""
    run = rebuild(folder, no_gpu=True, checkpoint=checkpoint)
    return run.config.run.exp_name, agent_of(run, MBAgent, folder)


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    parser.add_argument("--limit", type=float, default=10.0)
    given = parser.parse_args(argv)
    name, earlier = mb_agent_of(given.folder, "previous")
    _, later = mb_agent_of(given.folder, "last")
    data = later.replay_buffer.newest(len(later.replay_buffer) - len(earlier.replay_buffer))
    error = errors(earlier.model, data)
    before, after = ((obs.abs() >= given.limit).any(1) for obs in (data.obs, data.next_obs))
    groups = {
        "never": ~before & ~after,
        "after the step": ~before & after,
        "both times": before & after,
        "before the step": before & ~after,
    }
    found: dict[str, Any] = {
        group: {
            "share": round(float(rows.float().mean()), 4),
            "error": round(float(error[rows].mean()), 5),
            "share of error": round(float(error[rows].sum() / error.sum()), 4),
        }
        for group, rows in groups.items()
        if rows.any()
    }
    for group, figures in found.items():
        print(f"at the limit {group}: {figures}")
    about = {"limit": given.limit, "transitions": len(error), "groups": found}
    write_study(TARGET / f"clipped_velocities_{name}.json", SCRIPT, argv, name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
