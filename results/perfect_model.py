"""Measure the return that a run's planner reaches with a perfect model, the simulator itself.

    python results/perfect_model.py LOGDIR

LOGDIR is the log folder of a run of questions 2 to 5, of a planner experiment, or of PETS on
Pendulum-v1. The script repeats the run's last three evaluations with the same planner and the same
initial states, but evaluates every candidate in a copy of the simulator. If the run's model is
deterministic, the planner also draws the same random numbers. The gap between the run's return and
this return is model error; the gap from there to the best possible return is planner error. The
script writes NAME_perfect.json next to the run's export.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from gymnasium.envs.classic_control import PendulumEnv
from numpy.typing import NDArray
from torch import Tensor

from cs285.analysis.rebuild import read_run
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.config.flags import OneLineParser
from cs285.config.planner import PlannerConfig
from cs285.envs import make_env
from cs285.envs.obstacles import Obstacles
from cs285.infrastructure.replay_buffer import Path as Episode
from cs285.policies.base_policy import Memory
from cs285.policies.planners import PLANNERS
from cs285.policies.planners.sampling import SamplingContext

SCRIPT = "perfect_model.py"
TARGET = Path(__file__).parent
EVALUATIONS = 3
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class PerfectMPC:
    """MPC with the simulator as the model; it runs one episode at a time."""

    device = torch.device("cpu")

    def __init__(self, real: Any, imagined: Any, config: PlannerConfig) -> None:
        """Store `real`, the env of the episode, and `imagined`, a copy to try candidates in."""
        self.real, self.imagined, self.config = real.unwrapped, imagined.unwrapped, config
        box = real.action_space
        self.limits = torch.from_numpy(box.low), torch.from_numpy(box.high)

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """Return the best plan's first action (1, A) for obs (1, O)."""
        context = SamplingContext(*self.limits, self.config, memories)
        plan = PLANNERS[self.config.mpc_action_sampling_strategy](self.returns_of, context)
        return plan[:, 0].numpy()

    def returns_of(self, sequences: Tensor) -> Tensor:
        """Return the returns (1, N) of sequences (1, N, H, A).

        Rewards after a termination count, too.
        """
        state = get_state(self.real)
        returns = np.zeros(sequences.shape[:2])
        for index, acs in enumerate(sequences[0].numpy()):
            set_state(self.imagined, state)
            returns[0, index] = sum(float(self.imagined.step(action)[1]) for action in acs)
        return torch.from_numpy(returns)


def get_state(env: Any) -> NDArray[np.float64]:
    """Return the full state of the simulator."""
    if isinstance(env, Obstacles):
        return env.current
    if isinstance(env, PendulumEnv):
        return env.state
    state = np.empty(mujoco.mj_stateSize(env.model, STATE))
    mujoco.mj_getState(env.model, env.data, state, STATE)
    return state


def set_state(env: Any, state: NDArray[np.float64]) -> None:
    """Set `env` to a state of another instance of the same task."""
    if isinstance(env, Obstacles):
        env.current = state
    elif isinstance(env, PendulumEnv):
        env.state = state
    else:
        mujoco.mj_setState(env.model, env.data, state, STATE)


def repeat_evaluations(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR", help="log folder of the run")
    folder = parser.parse_args(argv).folder
    _, config = read_run(folder)
    run = config.run
    real, imagined = (make_env(run.task, run.ep_len) for _ in range(2))
    imagined.reset(seed=0)
    policy = PerfectMPC(real, imagined, config.planner)
    evaluations: list[float] = []
    for iteration in range(run.n_iter)[-EVALUATIONS:]:
        paths: list[Episode] = []
        while sum(path.length for path in paths) < run.eval_batch_size:
            key = EpisodeKey(run.seed, "eval", iteration, len(paths))
            paths += run_episodes([real], policy, [key])
        evaluations.append(float(np.mean([path.total_reward for path in paths])))
        print(f"evaluation of iteration {iteration}: {evaluations[-1]:.4g}", flush=True)
    about = {"Eval_AverageReturn": evaluations, "mean": float(np.mean(evaluations))}
    target = TARGET / run.exp_name.split("_")[0] / f"{run.exp_name}_perfect.json"
    write_study(target, SCRIPT, argv, run.exp_name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, repeat_evaluations, None))
