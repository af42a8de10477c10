"""Planning decisions per second on cheetah: this repository, homework-style loop, mbrl-lib.

Run `python -m benchmarks.planning` on an idle machine. First install the peer libraries with
`pip install -r requirements-peers.txt && pip install --no-deps mbrl==0.2.0`.

All contenders step the real simulator. This repository and the homework predict each candidate with
all E = 3 members. mbrl-lib uses one random member per particle, so it makes a third of the
predictions with 1 particle and the same number with 3 particles. The last section collects one PETS
episode on Pendulum on one core and on all cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.reference.homework_mpc import HomeworkMPC, build_models
from benchmarks.timing import Contender, rates, sgemm, summarize, write
from cs285.agents.mb_agent import MBAgent
from cs285.collection.collector import Collector, InProcess, available_cores
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.collection.worker_pool import WorkerPool
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs import inspect_task, make_env
from cs285.infrastructure.replay_buffer import Transitions, stack_paths
from cs285.policies.base_policy import RandomPolicy

ENV, HORIZON, SEQUENCES, MEMBERS, SIZE = "cheetah-cs285-v0", 15, 1000, 3, 250
CEM_ITERATIONS, ELITES = 4, 5
GPU_ENVS = 10
BASELINE, PEAK = "homework-style loop", "sgemm peak"
OB_DIM, AC_DIM = 21, 6
WIDTHS = (OB_DIM + AC_DIM, SIZE, SIZE, OB_DIM)
PETS_ENV = "Pendulum-v1"
PETS_MODEL: Mapping[str, Any] = {  # the settings of --model probabilistic
    "model": "probabilistic", "model_loss": "nll", "ensemble_size": 7, "num_elites": 5,
    "n_layers": 4, "size": 200, "activation": "swish", "holdout_ratio": 0.2,
}  # fmt: skip
ONE_CORE = "here, 1 core"
# Forward passes of one population. A multiplication and an addition count as two operations.
GFLOP = 2 * sum(a * b for a, b in pairwise(WIDTHS)) * MEMBERS * SEQUENCES * HORIZON / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds")
    parser.add_argument("--decisions", type=int, default=40, help="decisions per round")
    arguments = parser.parse_args()
    content: dict[str, object] = {
        "shape": f"{ENV} N {SEQUENCES} H {HORIZON} E {MEMBERS} 2x{SIZE}",
        "unit": "decisions per second (planning and one env step)",
        "torch_threads": torch.get_num_threads(),
        "GFLOP per population": round(GFLOP, 2),
    }
    for strategy, populations, tuned in (
        ("random", 1, True),
        ("cem", CEM_ITERATIONS, True),
        ("random", 1, False),
        ("cem", CEM_ITERATIONS, False),
    ):
        decisions = max(4, arguments.decisions // populations)
        contenders = make_contenders(strategy, populations, decisions)
        measured = rates(contenders, arguments.repeats, tuned)
        peaks = measured.pop(PEAK)
        summary: dict[str, dict[str, float]] = summarize(measured, BASELINE)
        for name, row in summary.items():
            if "GPU" in name:  # the sgemm peak is measured on the CPU
                continue
            share = 1 / MEMBERS if "1 particle" in name else 1.0
            ours = zip(measured[name], peaks, strict=True)
            shares = [rate * GFLOP * share * populations / peak for rate, peak in ours]
            row["share_of_sgemm_peak"] = round(float(np.median(shares)), 3)
        section = strategy if tuned else f"{strategy}, default torch settings"
        content[f"{section}, sgemm peak in GFLOP per s"] = round(float(np.median(peaks)), 1)
        content[section] = summary
    cores, pets_decisions = available_cores(), max(4, arguments.decisions // 4)
    pets = {
        name: partial(one_pets_episode, pets_decisions, count)
        for name, count in ((ONE_CORE, 1), (f"here, {cores} cores", cores))
    }
    content["one PETS episode"] = summarize(rates(pets, arguments.repeats), ONE_CORE)
    write("planning", content)


def make_contenders(strategy: str, populations: int, decisions: int) -> dict[str, Contender]:
    """Return the contenders. Each plans `decisions` env steps per round on the same task."""
    contenders: dict[str, Contender] = {
        PEAK: sgemm,
        BASELINE: partial(homework_loop, strategy, decisions),
        "here, 1 worker": partial(collector, strategy, decisions, 1),
        "here, 2 workers": partial(collector, strategy, decisions, 2),
    }
    if torch.cuda.is_available():
        for compile in (False, True):
            name = f"here, GPU, {GPU_ENVS} envs{', --compile' * compile}"
            contenders[name] = partial(in_lockstep, strategy, decisions, "cuda", compile)
    for particles in (1, MEMBERS):
        name = f"mbrl-lib CEM, {particles} particle{'s' * (particles > 1)}"
        contenders[name] = partial(mbrl_loop, populations, decisions, particles)
    return contenders


def random_data(env: str = ENV) -> Transitions:
    task = inspect_task(env)
    random = RandomPolicy(task.ac_low, task.ac_high)
    return stack_paths(run_episodes([make_env(env, 1000)], random, [EpisodeKey(0, "data", 0, 0)]))


def make_agent(strategy: str, device: str, compile: bool = False) -> MBAgent:
    planner = PlannerConfig(
        mpc_horizon=HORIZON,
        mpc_num_action_sequences=SEQUENCES,
        mpc_action_sampling_strategy=strategy,
        cem_iterations=CEM_ITERATIONS,
    )
    model = ModelConfig(ensemble_size=MEMBERS, size=SIZE)
    agent = MBAgent(inspect_task(ENV), model, planner, 1, torch.device(device), compile)
    agent.model.fit_statistics(random_data().each(lambda column: column.to(device)))
    return agent


def collector(strategy: str, decisions: int, workers: int) -> Callable[[], int]:
    return collect_with(make_agent(strategy, "cpu"), ENV, decisions, workers)


def collect_with(agent: MBAgent, env: str, decisions: int, workers: int) -> Callable[[], int]:
    """Return work that collects `decisions` env steps in worker processes."""
    # One episode per worker keeps all workers busy until the end.
    ep_len = decisions // workers
    pool = Collector(WorkerPool(partial(make_env, env, ep_len), workers), seed=1, ep_len=ep_len)

    def work() -> int:
        paths, _ = pool.collect(agent.actor, decisions, "train", 0)
        return sum(path.length for path in paths)

    return work


def one_pets_episode(decisions: int, cores: int) -> Callable[[], int]:
    """Return work that collects one episode in this process, as PETS does between two fits."""
    task = inspect_task(PETS_ENV)
    agent = MBAgent(task, ModelConfig(**PETS_MODEL), PlannerConfig(), 1, torch.device("cpu"))
    agent.model.fit_statistics(random_data(PETS_ENV))
    backend = InProcess(partial(make_env, PETS_ENV, decisions), 1, cores)
    collector = Collector(backend, seed=1, ep_len=decisions)

    def work() -> int:
        paths, _ = collector.collect(agent.actor, decisions, "train", 0)
        return sum(path.length for path in paths)

    return work


def in_lockstep(strategy: str, decisions: int, device: str, compile: bool) -> Callable[[], int]:
    """Return work that steps all envs in lockstep and plans for them in one batch on `device`."""
    agent = make_agent(strategy, device, compile)
    backend = InProcess(partial(make_env, ENV, decisions), GPU_ENVS)
    pool = Collector(backend, seed=1, ep_len=decisions)

    def work() -> int:
        paths, _ = pool.collect(agent.actor, decisions * GPU_ENVS, "train", 0)
        return sum(path.length for path in paths)

    return work


def step_through(decide: Callable[[np.ndarray], Any], decisions: int) -> Callable[[], int]:
    """Return work that steps one env with the actions of `decide`: (O,) -> (A,)."""
    env = make_env(ENV, decisions)

    def work() -> int:
        obs, _ = env.reset(seed=1)
        for _ in range(decisions):
            obs, *_ = env.step(decide(np.asarray(obs, np.float32)))
        return decisions

    return work


def homework_loop(strategy: str, decisions: int) -> Callable[[], int]:
    """Return work that steps one env and plans with HomeworkMPC on all torch threads."""
    task, data = inspect_task(ENV), random_data()
    models = build_models(data, MEMBERS, SIZE)
    assert task.get_reward is not None
    iterations = CEM_ITERATIONS if strategy == "cem" else 0
    box = (task.ac_low, task.ac_high)
    planner = HomeworkMPC(models, task.get_reward, *box, HORIZON, SEQUENCES, iterations, ELITES)
    return step_through(planner.get_action, decisions)


def mbrl_loop(populations: int, decisions: int, particles: int) -> Callable[[], int]:
    """Return work that steps one env and plans with CEM and the ReLU ensemble of mbrl-lib."""
    from mbrl.models import GaussianMLP, ModelEnv, OneDTransitionRewardModel
    from mbrl.planning import CEMOptimizer

    task, data, device = inspect_task(ENV), random_data(), torch.device("cpu")
    network = GaussianMLP(
        OB_DIM + AC_DIM, OB_DIM, device, num_layers=2, ensemble_size=MEMBERS, hid_size=SIZE,
        deterministic=True, propagation_method="random_model",
    )  # fmt: skip
    model = OneDTransitionRewardModel(network, normalize=True, learned_rewards=False)
    model.input_normalizer.update_stats(torch.cat([data.obs, data.acs], 1).numpy())

    def reward(acs: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        assert task.get_reward is not None
        return task.get_reward(next_obs, acs)[0][:, None]

    def never_terminated(acs: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(acs), 1, dtype=torch.bool)

    model_env = ModelEnv(make_env(ENV), model, never_terminated, reward, torch.Generator())
    candidates = SEQUENCES - SEQUENCES % MEMBERS  # mbrl-lib needs a multiple of the members
    bounds = [np.tile(side, (HORIZON, 1)).tolist() for side in (task.ac_low, task.ac_high)]
    cem = CEMOptimizer(
        populations, ELITES / candidates, candidates, *bounds, 0.0, device,
        return_mean_elites=True, clipped_normal=True,
    )  # fmt: skip

    def decide(obs: np.ndarray) -> np.ndarray:
        plan = cem.optimize(
            lambda sequences: model_env.evaluate_action_sequences(sequences, obs, particles),
            torch.zeros(HORIZON, AC_DIM),
        )
        return plan[0].numpy()

    return step_through(decide, decisions)


if __name__ == "__main__":
    main()
