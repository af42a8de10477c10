"""Compare the prediction errors of ensembles that are fitted with different losses.

    python results/model_loss_study.py LOGDIR

LOGDIR is the log folder of a run of run_hw4_mb.py or run_hw4_mbpo.py. The script fits new ensembles
with the run's settings: a deterministic one, and a probabilistic one with each --model_loss. They
are fitted once to the run's replay buffer without its newest fifth. The newest fifth, which the
later policies collected, is the held-out data. The script writes
results/study/model_loss_NAME.json.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cs285.agents.mb_agent import MBAgent
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.ff_model import FFModel

SCRIPT, TARGET = "model_loss_study.py", Path(__file__).parent / "study"
SEEDS = (1, 2, 3)  # for the initialisation and the minibatches
HELD_OUT = 0.2  # share of the transitions, the newest
KINDS: Mapping[str, Mapping[str, str]] = {
    "deterministic": {"model": "deterministic", "model_loss": "mse"},
    "probabilistic, --model_loss nll": {"model": "probabilistic", "model_loss": "nll"},
    "probabilistic, --model_loss column_nll": {
        "model": "probabilistic",
        "model_loss": "column_nll",
    },
}


def fit_and_evaluate(
    task: TaskSpec, config: ModelConfig, seed: int, data: Transitions
) -> dict[str, float]:
    """Fit an ensemble to the older transitions, and return the errors and coverage of its elites.

    An error is the geometric mean over columns of the mean squared error, in units of the targets'
    variance. Coverage is measured on the held-out transitions.
    """
    older = round((1 - HELD_OUT) * len(data.rewards))
    training_data = data.between(0, older)
    held_out = data.between(older, len(data.rewards))
    agent = MBAgent(task, config, PlannerConfig(), seed, torch.device("cpu"))
    agent.replay_buffer.add(training_data)
    metrics = agent.train(0)
    steps = len(metrics["Training Loss"]) - ("Fit Epochs" in metrics)  # then the best weights
    model = agent.model
    assert isinstance(model, FFModel)
    errors = {
        name: model.validation_errors(part)[model.elites].mean().item()
        for name, part in (("training error", training_data), ("held-out error", held_out))
    }
    found = model.evaluate(held_out)
    shares = {name: found[name].item() for name in found if name.startswith("Coverage")}
    return errors | shares | {"gradient steps": steps}


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR", help="log folder of the run")
    folder = parser.parse_args(argv).folder
    rebuilt = rebuild(folder, no_gpu=True)
    config, task = rebuilt.config, rebuilt.task
    data = agent_of(rebuilt, MBAgent, folder).replay_buffer.all()
    found: dict[str, list[dict[str, float]]] = {}
    for kind, flags in KINDS.items():
        model = dataclasses.replace(config.model, **flags)
        found[kind] = [fit_and_evaluate(task, model, seed, data) for seed in SEEDS]
        print(f"{kind}: {[round(each['held-out error'], 4) for each in found[kind]]}", flush=True)
    name = config.run.exp_name
    about = {
        "transitions": len(data.rewards),
        "held_out": HELD_OUT,
        "model": dataclasses.asdict(config.model),
        "kinds": {kind: dict(flags) for kind, flags in KINDS.items()},
        "fits": found,
    }
    write_study(TARGET / f"model_loss_{name}.json", SCRIPT, argv, name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
