"""Time of each phase of double-horizon MBPO with the networks of its preset, on Hopper.

Run `python -m benchmarks.value_expansion` on an idle machine. The CPU time hardly depends on other
processes, so it can be compared on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.timing import write
from cs285.agents.expanded_sac_agent import ExpandedSACAgent
from cs285.agents.mbpo_agent import MBPOAgent
from cs285.agents.registry import expand_flags, find_agent
from cs285.agents.value_expansion import expanded_actor_loss, expanded_critic_loss
from cs285.config.flags import from_flat
from cs285.config.mbpo import MBPOConfig
from cs285.config.presets import read
from cs285.critics.sac_critic import NO_DRAWS
from cs285.envs import TaskSpec
from cs285.envs.terminations import hopper
from cs285.infrastructure.replay_buffer import Path
from cs285.models.training import Fit
from cs285.networks.cpu_tuning import tune_cpu

OB_DIM, AC_DIM, ROWS = 11, 3, 5000
NEVER = 10**9  # SAC iterations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30, help="measured calls of each phase")
    arguments = parser.parse_args()
    tune_cpu()
    threads, repeats = torch.get_num_threads(), arguments.repeats
    found = {
        "eager": measure(phases(make_agent(False)), repeats),
        "parts of an eager update": measure(parts(make_agent(False)), repeats),
        "compiled": measure(phases(make_agent(True)), repeats),
    }
    torch.set_num_threads(1)
    found["compiled, one thread"] = measure(phases(make_agent(True)), repeats)
    found["seconds per 1000 env steps, compiled, without evaluation"] = {
        f"{threads} threads": seconds(found["compiled"]),
        "one thread": seconds(found["compiled, one thread"]),
    }
    about = {"shape": f"O {OB_DIM} A {AC_DIM}, --preset dhmbpo", "unit": "median milliseconds"}
    write("value_expansion", {**about, "torch_threads": threads, **found})


def make_agent(compile: bool, device: str = "cpu") -> MBPOAgent:
    """Return an agent after a short fit, with a filled model buffer."""
    ones = np.ones(AC_DIM, np.float32)
    task = TaskSpec(OB_DIM, AC_DIM, -ones, ones, None, 1000, hopper)
    short = {"num_agent_train_steps_per_iter": 30, "sac_n_iter_initial": 1}
    given = {"preset": "dhmbpo", "compile": compile, "mbpo_critic_iters_after_fit": 0, **short}
    flags = expand_flags(find_agent("mbpo"), given, lambda line: None)
    agent = MBPOAgent(task, from_flat(MBPOConfig, flags), torch.device(device))
    random = np.random.default_rng(0)
    obs = 0.1 * random.normal(size=(ROWS + 1, OB_DIM)).astype(np.float32)
    obs[:, 0] += 1.2
    acs = random.uniform(-1, 1, (ROWS, AC_DIM)).astype(np.float32)
    rewards = random.normal(size=ROWS).astype(np.float32)
    agent.add_to_replay_buffer([Path(obs[:-1], acs, rewards, obs[1:], np.zeros(ROWS, bool))], 0)
    agent.train(0)
    return agent


def draw_rows(agent: MBPOAgent) -> torch.Tensor:
    """Return the packed rows (1, B, D) of one update."""
    rows = agent.model_buffer.rows
    return rows[torch.randint(len(rows), (1, agent.sac_agent.config.sac_train_batch_size))]


def phases(agent: MBPOAgent) -> dict[str, Callable[[], object]]:
    sac, model, rows = agent.sac_agent, agent.mb_agent, draw_rows(agent)
    data, config = model.replay_buffer.all(), model.config
    assert model.optimizer is not None
    generator = torch.Generator().manual_seed(1)
    fit = Fit(model.model, model.optimizer, data, model.update, generator)
    indices = torch.randint(ROWS, (config.ensemble_size, config.train_batch_size))

    def update(waits_until: int) -> object:
        sac.actor_waits_until = waits_until
        return list(sac._updates_on(rows, 1000))

    return {
        "update": lambda: update(0),
        "update of the critic only": lambda: update(NEVER),
        "random draws of an update, included above": lambda: list(sac._batches(rows, 1)),
        "distribution rollouts, every 20 updates": agent._imagine,
        "gradient step of a fit": lambda: fit.step(indices),
    }


def parts(agent: MBPOAgent) -> dict[str, Callable[[], object]]:
    """Split an update without its optimisers, draws and target networks."""
    sac, rows = agent.sac_agent, draw_rows(agent)
    policy, critic, discount = sac.policy, sac.critic, sac.config.sac_discount
    obs, draws, _ = next(sac._batches(rows, 1))
    scaled, temperature = policy.scale_obs(obs), torch.tensor(0.1)
    assert isinstance(sac, ExpandedSACAgent)
    expansion = sac.expansion
    rollout = expansion.roll_out(policy, obs, draws)

    def learn_critic() -> object:
        found = expanded_critic_loss(
            rollout, scaled, critic, sac.target_critic, NO_DRAWS, temperature, discount
        )
        return torch.autograd.grad(found.loss, critic.network.vector)

    def learn_actor() -> object:
        found = expanded_actor_loss(rollout, critic, sac.log_temperature, discount, -3.0)
        return torch.autograd.grad(found.loss, policy.network.vector, retain_graph=True)

    return {
        "training rollout": lambda: expansion.roll_out(policy, obs, draws),
        "critic: target, loss and gradient": learn_critic,
        "policy: loss and gradient": learn_actor,
    }


def measure(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Return the median wall-clock and CPU milliseconds of each call, after one warm-up call."""
    found = {}
    for name, work in works.items():
        work()
        times = []
        for _ in range(repeats):
            begun = time.perf_counter(), time.process_time()
            work()
            times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        wall, cpu = (
            round(1000 * statistics.median(column), 2) for column in zip(*times, strict=True)
        )
        found[name] = {"wall-clock": wall, "CPU": cpu}
    return found


def seconds(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the seconds of 1000 env steps: the fit, and all updates with their rollouts."""
    flags = read("dhmbpo")["flags"]
    updates = flags["sac_n_iter"] + flags["mbpo_critic_iters_after_fit"]
    counts = {
        "update": flags["sac_n_iter"],
        "update of the critic only": flags["mbpo_critic_iters_after_fit"],
        "distribution rollouts, every 20 updates": updates / flags["mbpo_rollout_every"],
        "gradient step of a fit": flags["num_agent_train_steps_per_iter"],
    }
    return {
        clock: round(sum(count * found[name][clock] for name, count in counts.items()) / 1000, 1)
        for clock in ("wall-clock", "CPU")
    }


if __name__ == "__main__":
    main()
