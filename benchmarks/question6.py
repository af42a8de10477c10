"""Run time of question 6 (rlen10) as a share of the homework-style loop's run time.

Run `python -m benchmarks.question6` on an idle machine.

The speed of a shared machine changes within minutes, so two long runs in sequence are not
comparable. The script therefore computes both run times from parts that take turns: a gradient step
of the fit, a SAC iteration (model rollout, adding its transitions to the buffer, update) and an env
step. The homework's SAC iteration slows down as its replay buffer grows. The script times it at
four buffer sizes and interpolates. Evaluation, logging and checkpoints are not included;
benchmarks.end_to_end measures them for this repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks import dynamics_fit
from benchmarks.model_rollouts import LENGTH, MEMBERS, MODEL_SIZE, POLICY_SIZE
from benchmarks.planning import ENV, random_data
from benchmarks.reference.homework_mbpo import env_steps, sac_iteration
from benchmarks.timing import Contender, rates, write

ITERATIONS, ENV_STEPS, FIT_STEPS, SAC_ITERATIONS = 10, 5000, 1500, 5000
# The homework has one buffer for real and imagined transitions.
REPLAY_ROWS = (30_000, 140_000, 305_000, 525_000)
BLOCK, STEPS = 100, 500
FIT = dynamics_fit.SHAPES["E 3 batch 512 2x250"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="measured rounds")
    contenders: dict[str, Contender] = {
        "homework-style fit gradient step": partial(dynamics_fit.separate, *FIT),
        "fit gradient step": partial(dynamics_fit.ours, *FIT),
        "SAC iteration": sac_iterations,
        "homework-style env step": partial(env_steps, STEPS),
        "env step": collection,
        **{
            f"homework-style SAC iteration, {n} rows": partial(sac_iteration, n)
            for n in REPLAY_ROWS
        },
    }
    measured = rates(contenders, parser.parse_args().repeats)
    seconds = {name: 1 / np.array(values) for name, values in measured.items()}  # each (rounds,)
    ours = run_seconds(
        seconds["fit gradient step"],
        ITERATIONS * SAC_ITERATIONS * seconds["SAC iteration"],
        seconds["env step"],
    )
    held = [ENV_STEPS * (i + 1) + (i + 0.5) * SAC_ITERATIONS * LENGTH for i in range(ITERATIONS)]
    timed = [seconds[f"homework-style SAC iteration, {rows} rows"] for rows in REPLAY_ROWS]
    sac = [
        SAC_ITERATIONS * np.interp(held, REPLAY_ROWS, by_rows).sum()
        for by_rows in np.stack(timed, 1)
    ]
    homework = run_seconds(
        seconds["homework-style fit gradient step"],
        np.array(sac),
        seconds["homework-style env step"],
    )
    content = {
        "shape": f"{ENV}, {ITERATIONS} iterations of {ENV_STEPS} env steps, {FIT_STEPS} fit "
        f"gradient steps and {SAC_ITERATIONS} SAC iterations",
        "torch_threads": torch.get_num_threads(),
        "milliseconds": {
            name: round(1000 * float(np.median(values)), 3) for name, values in seconds.items()
        },
        "run_seconds": round(float(np.median(ours)), 1),
        "homework_style_run_seconds": round(float(np.median(homework)), 1),
        "share_of_homework_style_time": round(float(np.median(ours / homework)), 3),
    }
    write("question6", content)


def run_seconds(fit_step: np.ndarray, sac: np.ndarray, env_step: np.ndarray) -> np.ndarray:
    """Return the seconds of a run (rounds,), computed from its parts.

    `fit_step` and `env_step` are the seconds of one step (rounds,). `sac` is the seconds of all SAC
    iterations of a run (rounds,).
    """
    return ITERATIONS * (FIT_STEPS * fit_step + ENV_STEPS * env_step) + sac


def sac_iterations() -> Callable[[], int]:
    """Return work that runs SAC iterations and their model rollouts, with full buffers."""
    from cs285.agents.mbpo_agent import MBPOAgent
    from cs285.config.flags import from_flat
    from cs285.config.mbpo import MBPOConfig
    from cs285.envs import inspect_task
    from cs285.infrastructure.replay_buffer import unpack

    flags = {
        "ensemble_size": MEMBERS,
        "size": MODEL_SIZE,
        "sac_size": POLICY_SIZE,
        "sac_n_iter": BLOCK,
        "mbpo_rollout_length": LENGTH,
        "mbpo_model_buffer_size": 2 * SAC_ITERATIONS * LENGTH,
    }
    task, real = inspect_task(ENV), random_data()
    agent = MBPOAgent(task, from_flat(MBPOConfig, flags), torch.device("cpu"))
    for _ in range(ITERATIONS * ENV_STEPS // len(real.rewards)):
        agent.sac_agent.replay_buffer.add(real)
    agent.mb_agent.model.fit_statistics(real)
    learner = agent.sac_agent

    def work() -> int:
        agent.next_fit = learner.iterations_done + BLOCK
        learner.train_on(agent.draw_mixed, learner.config.sac_n_iter)["Critic Loss"].item()
        return BLOCK

    work()
    imagined = agent.model_buffer.rows.repeat(100, 1)  # full, as for most of a run
    agent.model_buffer.add(unpack(imagined, task.ob_dim, task.ac_dim), learner.iterations_done)
    return work


def collection() -> Callable[[], int]:
    """Return work that collects two episodes with the SAC policy, as a run does."""
    from cs285.agents.sac_agent import SACAgent
    from cs285.collection.collector import Collector, make_backend
    from cs285.config.sac import SACConfig
    from cs285.envs import inspect_task, make_env

    device = torch.device("cpu")
    agent = SACAgent(inspect_task(ENV), SACConfig(sac_size=POLICY_SIZE), 1, device)
    backend = make_backend(partial(make_env, ENV, STEPS), device, None, ENV_STEPS // STEPS)
    collector = Collector(backend, seed=1, ep_len=STEPS)

    def work() -> int:
        paths, _ = collector.collect(agent.actor, 2 * STEPS, "train", 0)
        return sum(path.length for path in paths)

    return work


if __name__ == "__main__":
    main()
