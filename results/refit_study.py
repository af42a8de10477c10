"""Compare ways to refit the probabilistic ensemble while the replay buffer grows.

    python results/refit_study.py LOGDIR [--every 2500]

LOGDIR is the log folder of a run of run_hw4_mbpo.py; only its real transitions are used. For each
combination of loss and floor of the validation error, one ensemble is fitted to the first 5000
transitions, and refitted each time that --every more have come. After each fit it predicts the next
transitions, which a later policy collected. The script writes results/study/refit_NAME.json, and
skips the combinations that this file already has. The committed file also has shorter epochs, of
at most 32 gradient steps; its commit still had them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from cs285.agents.mbpo_agent import MBPOAgent
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser, whole_number
from cs285.config.model import ModelConfig
from cs285.config.presets import read
from cs285.infrastructure.pytorch_util import make_adam, make_generator
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models import ff_model, training
from cs285.models.ff_model import FFModel

SCRIPT, TARGET = "refit_study.py", Path(__file__).parent / "study"
FIRST = 5000  # transitions in the first fit
LOSSES = ("nll", "mse")
FLOORS = (1e-3, 1e-6)


def refit(data: Transitions, every: int, loss: str) -> list[dict[str, float]]:
    """Return a row per fit: its data, steps and seconds, and its errors on the next transitions.

    Errors are mean squared errors in units of the targets' variance: the arithmetic and the
    geometric mean over columns, averaged over the elites.
    """
    flags = read("probabilistic")["flags"] | {"model_loss": loss}
    known = ModelConfig.__dataclass_fields__
    config = ModelConfig(**{name: value for name, value in flags.items() if name in known})
    generator = make_generator(1, "refit study init")
    model = FFModel(data.obs.shape[1], data.acs.shape[1], config, True, generator)
    optimizer, rows = make_adam(model.parameters(), config.learning_rate), []
    for end in range(FIRST, len(data.rewards) - every + 1, every):
        learned = data.between(0, end)
        coming = data.between(end, end + every)
        begun = time.perf_counter()
        metrics = training.fit_until_converged(
            model, optimizer, learned, config, make_generator(1, "refit study", end)
        )
        seconds = time.perf_counter() - begun
        with torch.no_grad():
            mse = model._errors(coming)[0][model.elites].square().mean(1)
        rows.append(
            {
                "transitions": end,
                "gradient steps": len(metrics["Training Loss"]) - 1,
                "epochs": metrics["Fit Epochs"].item(),
                "seconds": round(seconds, 1),
                "training loss": metrics["Training Loss"][-1].item(),
                "validation loss": metrics["Validation Loss"].item(),
                "mean error": mse.mean().item(),
                "geometric mean error": mse.log().mean(1).exp().mean().item(),
            }
        )
    return rows


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    parser.add_argument("--every", type=whole_number(1), default=2500, metavar="N")
    given = parser.parse_args(argv)
    rebuilt = rebuild(given.folder, no_gpu=True)
    agent, run = agent_of(rebuilt, MBPOAgent, given.folder), rebuilt.config.run
    data = agent.sac_agent.replay_buffer.all()
    name = run.exp_name
    file = TARGET / f"refit_{name}.json"
    found: dict[str, Any] = json.loads(file.read_text())["refits"] if file.exists() else {}
    for loss, floor in product(LOSSES, FLOORS):
        ff_model.VALIDATION_FLOOR = floor
        label = f"{loss}, epoch a pass, floor {floor:g}"
        if label in found:
            continue
        found[label] = refit(data, given.every, loss)
        print(label, *map(json.dumps, found[label][-2:]), sep="\n  ", flush=True)
        about = {"env_name": run.env_name, "every": given.every, "refits": found}
        write_study(file, SCRIPT, argv, name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
