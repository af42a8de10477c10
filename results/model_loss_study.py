"""What the means of an ensemble learn, by what they are fitted by.

    python results/model_loss_study.py LOGDIR

LOGDIR is of a run of either program. New ensembles of the run's settings, of points, and of
Gaussians with either --model_loss, are fitted once to all transitions of its replay but the last
fifth, and judged on that, which later policies came to. Writes results/study/model_loss_NAME.json.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cs285.agents.mb_agent import MBAgent
from cs285.analysis.diagnosis.rebuild import rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.ff_model import FFModel

SCRIPT, TARGET = "model_loss_study.py", Path(__file__).parent / "study"
SEEDS = (1, 2, 3)  # of initialisation and minibatches
JUDGED_ON = 0.2  # of the transitions, the newest
KINDS: Mapping[str, Mapping[str, str]] = {
    "deterministic": {"model": "deterministic"},
    "Gaussians, --model_loss nll": {"model": "probabilistic", "model_loss": "nll"},
    "Gaussians, --model_loss column_nll": {"model": "probabilistic", "model_loss": "column_nll"},
}


def fit_and_evaluate(
    task: TaskSpec, config: ModelConfig, seed: int, data: Transitions
) -> dict[str, float]:
    """Return the elites' errors and their coverage, of an ensemble fitted to the older of `data`.

    An error is the geometric mean over columns of the mean squared errors, in units of the
    targets' variance: on what was learned from, and on the rest.
    """
    older = round((1 - JUDGED_ON) * len(data.rewards))
    learned = Transitions(*(column[:older] for column in data))
    rest = Transitions(*(column[older:] for column in data))
    agent = MBAgent(task, config, PlannerConfig(), seed, torch.device("cpu"))
    agent.replay_buffer.add(learned)
    steps = len(agent.train(0)["Training Loss"])
    model = agent.model
    assert isinstance(model, FFModel)
    errors = {
        name: model.validation_errors(part)[model.elites].mean().item()
        for name, part in (("error on what was learned", learned), ("error", rest))
    }
    shares = {name: share.item() for name, share in model.coverage(rest).items()}
    return errors | shares | {"gradient steps": steps}


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    config, task, _, agent, _ = rebuild(parser.parse_args(argv).folder, no_gpu=True)
    data = getattr(agent, "mb_agent", agent).replay_buffer.all()
    found: dict[str, list[dict[str, float]]] = {}
    for kind, flags in KINDS.items():
        model = dataclasses.replace(config.model, **flags)
        found[kind] = [fit_and_evaluate(task, model, seed, data) for seed in SEEDS]
        print(f"{kind}: {[round(each['error'], 4) for each in found[kind]]}", flush=True)
    name = config.run.exp_name
    about = {
        "transitions": len(data.rewards),
        "judged_on": JUDGED_ON,
        "model": dataclasses.asdict(config.model),
        "kinds": {kind: dict(flags) for kind, flags in KINDS.items()},
        "fits": found,
    }
    write_study(TARGET / f"model_loss_{name}.json", SCRIPT, name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
