"""Compare settings of the fit on the transitions of a run: which one limits the model's accuracy?

    python results/fit_settings_study.py LOGDIR

LOGDIR is the log folder of a run of run_hw4_mb.py. For each setting, an ensemble is fitted again
and again to the transitions that the run had after each iteration, with the run's other flags.
After each fit it predicts the transitions of the next iteration. The script writes
results/study/fit_settings_NAME.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from cs285.agents.mb_agent import MBAgent
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser
from cs285.config.model import ModelConfig
from cs285.infrastructure.pytorch_util import make_adam, make_generator
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions
from cs285.models import training
from cs285.models.ff_model import FFModel

SCRIPT, TARGET = "fit_settings_study.py", Path(__file__).parent / "study"
SEEDS, LAST = (1, 2, 3), 4  # the error is the mean over the last fits
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "--model_init torch": {"model_init": "torch"},
    "--model_init he": {"model_init": "he"},
    "--learning_rate_schedule falling": {"learning_rate_schedule": "falling"},
    "--model_loss column_nll": {"model_loss": "column_nll"},
    "--preset sharp": {"learning_rate_schedule": "falling", "model_loss": "column_nll"},
    "--learning_rate 0.003": {"learning_rate": 0.003},
    "--learning_rate 0.01": {"learning_rate": 0.01},
    "--train_batch_size 2048": {"train_batch_size": 2048},
    "--num_agent_train_steps_per_iter 100": {"num_agent_train_steps_per_iter": 100},
}


def errors(data: Transitions, ends: Sequence[int], config: ModelConfig, seed: int) -> list[float]:
    """Return each column's mean squared error on the next transitions.

    It is in units of the column's variance in the data of the fit, and the mean over the members
    and over the last fits. A column that was constant in these data has error 0.
    """
    generator = make_generator(seed, "fit settings")
    sizes = data.obs.shape[1], data.acs.shape[1]
    model = FFModel(*sizes, config, False, generator)
    optimizer, found = make_adam(model.parameters(), config.learning_rate), []
    for start, end in pairwise(ends):
        replay = ReplayBuffer(start, *sizes)
        replay.add(data.between(0, start))
        training.fit(model, optimizer, replay, config, generator)
        coming = data.between(start, end)
        with torch.no_grad():
            means, *_ = model.outputs(coming)
            targets = model.target_stats.normalize(coming.next_obs - coming.obs)
            varies = model.target_stats.std > 0
            found.append(((means - targets) * varies).square().mean((0, 1)))
    return torch.stack(found[-LAST:]).mean(0).tolist()


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    folder = parser.parse_args(argv).folder
    rebuilt = rebuild(folder, no_gpu=True)
    data, config = agent_of(rebuilt, MBAgent, folder).replay_buffer.all(), rebuilt.config
    run = config.run
    ends = range(run.batch_size_initial, len(data.rewards) + 1, run.batch_size)
    found = {}
    for label, changed in SETTINGS.items():
        setting = replace(config.model, **changed)
        by_seed = torch.tensor([errors(data, ends, setting, seed) for seed in SEEDS])
        found[label] = [round(error, 4) for error in by_seed.mean(0).tolist()]
        print(f"{label}: {found[label]}", flush=True)
    about = {"env_name": run.env_name, "seeds": SEEDS, "error of each column": found}
    write_study(TARGET / f"fit_settings_{run.exp_name}.json", SCRIPT, argv, run.exp_name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
