"""Compare the fits of --preset dhmbpo with others, such as early stopping and the authors' fits.

    python results/dhmbpo_fit_study.py LOGDIR [--sizes 5000 6000 7000]

LOGDIR is the log folder of a run of run_hw4_mbpo.py. For each way to fit, an ensemble with the
preset's settings is fitted to its first real transitions, and refitted to more of them. After each
fit it predicts the next 1000 transitions, which a later policy collected. The script writes
results/study/dhmbpo_fit_NAME.json. Times are CPU times of all threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cs285.agents.mbpo_agent import MBPOAgent
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser, whole_number
from cs285.config.model import ModelConfig
from cs285.config.presets import read
from cs285.infrastructure.pytorch_util import make_adam, make_generator, reset_moments
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions
from cs285.models import training
from cs285.models.ff_model import FFModel

SCRIPT, TARGET = "dhmbpo_fit_study.py", Path(__file__).parent / "study"
SIZES, NEXT = [5000, 6000, 7000], 1000  # transitions in the fits, and after each fit
STOPPING = {
    "holdout_ratio": 0.2,
    "learning_rate_schedule": "constant",
    "num_agent_train_steps_per_iter": 100_000,
}
WAYS: dict[str, dict[str, Any]] = {
    "patience 5": STOPPING,
    "patience 2": {**STOPPING, "fit_patience": 2},
    "batch 512": {**STOPPING, "train_batch_size": 512},
    "1000 steps, falling rate": {"num_agent_train_steps_per_iter": 1000},
    "2000 steps, falling rate": {},  # the preset
    "8000 steps, falling rate": {"num_agent_train_steps_per_iter": 8000},
    "2000 steps, constant rate": {"learning_rate_schedule": "constant"},
    "authors": {**STOPPING, "train_batch_size": 2048, "fit_patience": 124},
}
MOST_BATCHES = 5  # in an epoch of the authors
PASSES = training._bootstrap_epochs


def short_epochs(
    E: int, rows: int, config: ModelConfig, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield epochs of at most MOST_BATCHES batches."""
    for epoch in PASSES(E, rows, config, generator):
        yield from epoch.split(MOST_BATCHES)


def refit(
    data: Transitions, way: str, members: int, sizes: Sequence[int]
) -> list[dict[str, float]]:
    """Return a row per fit: its data, steps and CPU seconds, and its errors.

    Errors on the next transitions are mean squared errors in units of the targets' variance: the
    arithmetic and the geometric mean over columns, averaged over the members.
    """
    known = ModelConfig.__dataclass_fields__
    flags = {name: value for name, value in read("dhmbpo")["flags"].items() if name in known}
    config = ModelConfig(**{**flags, "ensemble_size": members, **WAYS[way]})
    training._bootstrap_epochs = short_epochs if way == "authors" else PASSES
    generator = make_generator(1, "fit study init")
    model = FFModel(*sizes_of(data), config, True, generator)
    optimizer, rows = make_adam(model.parameters(), config.learning_rate), []
    for size in sizes:
        replay = ReplayBuffer(size, *sizes_of(data))
        replay.add(data.between(0, size))
        coming = data.between(size, size + NEXT)
        reset_moments(optimizer)
        begun = time.process_time()
        metrics = training.fit(
            model, optimizer, replay, config, make_generator(1, "fit study", size)
        )
        seconds = time.process_time() - begun
        with torch.no_grad():
            mse = model._errors(coming)[0].square().mean(1)
        rows.append(
            {
                "transitions": size,
                "gradient steps": steps_of(metrics),
                **({"epochs": metrics["Fit Epochs"].item()} if "Fit Epochs" in metrics else {}),
                "CPU seconds": round(seconds, 1),
                "mean error": mse.mean().item(),
                "geometric mean error": mse.log().mean(1).exp().mean().item(),
            }
        )
    training._bootstrap_epochs = PASSES
    return rows


def steps_of(metrics: dict[str, Tensor]) -> int:
    """Return the gradient steps of a fit; early stopping adds the metrics of the best weights."""
    return len(metrics["Training Loss"]) - ("Fit Epochs" in metrics)


def sizes_of(data: Transitions) -> tuple[int, int]:
    """Return the numbers of dimensions of observations and actions."""
    return data.obs.shape[1], data.acs.shape[1]


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    parser.add_argument("--members", type=whole_number(1), default=8, metavar="E")
    parser.add_argument("--sizes", type=whole_number(1), nargs="+", default=SIZES, metavar="N")
    given = parser.parse_args(argv)
    rebuilt = rebuild(given.folder, no_gpu=True)
    agent, run = agent_of(rebuilt, MBPOAgent, given.folder), rebuilt.config.run
    data = agent.sac_agent.replay_buffer.all()
    name, found = run.exp_name, {}
    for way in WAYS:
        found[way] = refit(data, way, given.members, given.sizes)
        print(way, *map(json.dumps, found[way]), sep="\n  ", flush=True)
        about = {"env_name": run.env_name, "members": given.members, "fits": found}
        write_study(TARGET / f"dhmbpo_fit_{name}.json", SCRIPT, argv, name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
