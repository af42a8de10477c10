"""Compare the planners' returns with the same learned model.

    python results/planner_study.py LOGDIR

LOGDIR is the log folder of a finished run of run_hw4_mb.py on a homework task. Every planner uses
the run's final model and runs the same number of new episodes from the same initial states, so only
the planner differs. The script writes results/study/planners_NAME.json.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cs285.agents.mb_agent import MBAgent
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.config.flags import OneLineParser
from cs285.config.planner import PlannerConfig
from cs285.policies.MPC_policy import MPCPolicy

SCRIPT, TARGET = "planner_study.py", Path(__file__).parent / "study"
EPISODES = 3
ICEM: Mapping[str, Any] = {
    "mpc_action_sampling_strategy": "icem",
    "mpc_num_action_sequences": 100,
}
PLANNERS: Mapping[str, Mapping[str, Any]] = {
    "random shooting, 1000 candidates": {"mpc_action_sampling_strategy": "random"},
    "CEM, 1000 candidates": {"mpc_action_sampling_strategy": "cem"},
    "MPPI, 1000 candidates": {"mpc_action_sampling_strategy": "mppi"},
    "MPPI, temperature 1": {"mpc_action_sampling_strategy": "mppi", "mppi_temperature": 1.0},
    "MPPI, initial std 0.5": {"mpc_action_sampling_strategy": "mppi", "mpc_init_std": 0.5},
    "iCEM, 100 candidates": ICEM,
    "iCEM, noise beta 0": {**ICEM, "icem_noise_beta": 0.0},
    "iCEM, noise beta 2": {**ICEM, "icem_noise_beta": 2.0},
    "iCEM, initial std 0.5": {**ICEM, "mpc_init_std": 0.5},
    "iCEM, 10 elites": {**ICEM, "cem_num_elites": 10},
}


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR", help="log folder of the run")
    folder = parser.parse_args(argv).folder
    rebuilt = rebuild(folder, no_gpu=True)
    config, task, env = rebuilt.config, rebuilt.task, rebuilt.env
    agent = agent_of(rebuilt, MBAgent, folder)
    horizon = config.planner.mpc_horizon
    returns: dict[str, list[float]] = {}
    for name, flags in PLANNERS.items():
        planner = PlannerConfig(mpc_horizon=horizon, **flags)
        policy = MPCPolicy(
            agent.model, agent.task_model, task.ac_low, task.ac_high, planner, agent.device
        )
        keys = [EpisodeKey(config.run.seed, "planner study", 0, n) for n in range(EPISODES)]
        paths = [path for key in keys for path in run_episodes([env], policy, [key])]
        returns[name] = [path.total_reward for path in paths]
        print(f"{name}: {np.mean(returns[name]):.4g}", flush=True)
    name = config.run.exp_name
    about = {
        "env_steps_an_episode": task.ep_len,
        "horizon": horizon,
        "planners": {name: dict(flags) for name, flags in PLANNERS.items()},
        "returns": returns,
    }
    write_study(TARGET / f"planners_{name}.json", SCRIPT, argv, name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
