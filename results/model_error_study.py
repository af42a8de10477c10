"""Measure how the ensemble's open-loop error depends on the horizon and the amount of data.

    python results/model_error_study.py LOGDIR

LOGDIR is the log folder of a finished run of question 6 (q6_cheetah_rlen10_sharp_seed1). The script
fits new ensembles to the first 5000, 10000, 20000 and 50000 env steps of the run's replay buffer.
The first 5000 env steps are random actions; the others come from an improving policy. Each ensemble
is evaluated on new episodes of the final policy and of random actions. The script writes
results/study/model_error.csv and model_error.json.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cs285.agents.mb_agent import MBAgent
from cs285.analysis.diagnosis.model_error import OpenLoop, open_loop_errors
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.config.flags import OneLineParser
from cs285.config.model import ModelConfig
from cs285.infrastructure.pytorch_util import make_adam, make_generator
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions
from cs285.models.ff_model import FFModel
from cs285.models.training import fit
from cs285.policies.base_policy import RandomPolicy

SCRIPT = "model_error_study.py"
TARGET = Path(__file__).parent / "study" / "model_error.csv"
SIZES = (5000, 10000, 20000, 50000)  # env steps of training data
SEEDS = (1, 2, 3)  # for the initialisation and the minibatches
FIT_STEPS, HORIZON, EPISODES, STRIDE = 3000, 50, 3, 7
COLUMNS = ("env_steps", "seed", "data", "horizon", "error", "spread", "no_change")


def fit_new(data: Transitions, learns_reward: bool, config: ModelConfig, seed: int) -> FFModel:
    """Return a new ensemble with the settings in `config`, fitted to `data` (B rows) only."""
    sizes, init = (data.obs.shape[1], data.acs.shape[1]), make_generator(seed, "study init")
    model = FFModel(*sizes, config, learns_reward, init)
    replay = ReplayBuffer(len(data.rewards), *sizes)
    replay.add(data)
    optimizer = make_adam(model.parameters(), config.learning_rate)
    fit(model, optimizer, replay, config, make_generator(seed, "study batches"))
    return model


def rows_of(loop: OpenLoop, env_steps: int, seed: int, data: str) -> list[list[Any]]:
    """Return one row per horizon, with the medians over the starts."""
    medians = [
        np.median(values, 0)
        for values in (loop.errors_of_mean(), loop.spreads(), loop.errors_of_no_change())
    ]
    return [
        [env_steps, seed, data, step, *(f"{value:.5g}" for value in values)]
        for step, values in enumerate(zip(*medians, strict=True), start=1)
    ]


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR", help="log folder of the run")
    folder = parser.parse_args(argv).folder
    rebuilt = rebuild(folder, no_gpu=True)
    config, task, env = rebuilt.config, rebuilt.task, rebuilt.env
    model_config = dataclasses.replace(config.model, num_agent_train_steps_per_iter=FIT_STEPS)
    agent = agent_of(rebuilt, MBAgent, folder)
    replay, learns_reward = agent.replay_buffer.all(), agent.task_model.learns_reward
    keys = [EpisodeKey(1, "study", 0, number) for number in range(EPISODES)]
    policies = {
        "policy": rebuilt.agent.eval_policies["Eval"],
        "random": RandomPolicy(task.ac_low, task.ac_high),
    }
    paths = {
        name: [path for key in keys for path in run_episodes([env], policy, [key])]
        for name, policy in policies.items()
    }
    rows: list[list[Any]] = []
    for env_steps in SIZES:
        data = replay.between(0, env_steps)
        for seed in SEEDS:
            model = fit_new(data, learns_reward, model_config, seed)
            for name, each in paths.items():
                loop = open_loop_errors(model, each, HORIZON, STRIDE)
                # All models share one unit, the std of the whole replay buffer, to be comparable.
                unit = np.where(loop.unit > 0, replay.obs.std(0).numpy(), np.nan)
                rows += rows_of(loop._replace(unit=unit), env_steps, seed, name)
            print(f"{env_steps} env steps, seed {seed}: done", flush=True)
    TARGET.parent.mkdir(exist_ok=True)
    with TARGET.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
    about = {
        "model": dataclasses.asdict(model_config),
        "episodes": EPISODES,
        "stride": STRIDE,
    }
    write_study(TARGET.with_suffix(".json"), SCRIPT, argv, config.run.exp_name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
