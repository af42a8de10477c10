"""Compare a run's final policy in its task with the same policy in the run's models.

    python results/imagined_falls_study.py LOGDIR [--steps 500]

LOGDIR is the log folder of a run with a learned model. The policy of the last checkpoint acts in
the task, in the model of the previous checkpoint, which the policy learned from, and in the model
of the last checkpoint, which is fitted to the newest data, too. A random member predicts each step.
The script writes the lengths of the episodes to results/study/imagined_falls_NAME.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

import cs285
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser, whole_number

SCRIPT, TARGET = "imagined_falls_study.py", Path(__file__).parent / "study"
EPISODES = 12


def lengths(agent: cs285.Agent, env: gym.Env[Any, Any], steps: int) -> list[int]:
    """Return the lengths of EPISODES episodes, which end after `steps` env steps at most."""
    found = []
    for seed in range(EPISODES):
        obs, _ = env.reset(seed=seed)
        agent.reset()
        taken, is_over = 0, False
        while taken < steps and not is_over:
            obs, _, terminated, truncated, _ = env.step(agent.predict(obs))
            taken, is_over = taken + 1, terminated or truncated
        found.append(taken)
    return found


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    parser.add_argument("--steps", type=whole_number(1), default=500, metavar="N")
    given = parser.parse_args(argv)
    agent, before = (cs285.load(given.folder, which) for which in ("last", "previous"))
    run = agent.config.run
    envs = {
        "task": cs285.envs.make_env(run.task, run.ep_len or agent.task.ep_len),
        "model of the previous checkpoint": before.model_env("random"),
        "model of the last checkpoint": agent.model_env("random"),
    }
    about: dict[str, Any] = {"env_name": run.env_name, "steps": given.steps}
    for name, env in envs.items():
        found = lengths(agent, env, given.steps)
        ended = sum(length < given.steps for length in found)
        about[name] = {"lengths": found, "ended early": ended}
        print(f"{name}: {ended} of {EPISODES} episodes ended early", flush=True)
    write_study(TARGET / f"imagined_falls_{run.exp_name}.json", SCRIPT, run.exp_name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
