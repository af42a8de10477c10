"""CPU time and peak memory of a late trial of PILCO: the cart-pole with 240 transitions.

Run `python -m benchmarks.pilco`. The fit and the search have one thread, so their CPU time hardly
depends on other processes.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

from benchmarks.timing import write
from cs285.agents.pilco_agent import PilcoAgent
from cs285.agents.registry import expand_flags, find_agent
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.config.flags import from_flat
from cs285.config.pilco import PilcoConfig
from cs285.envs import inspect_task, make_env
from cs285.networks.cpu_tuning import tune_cpu
from cs285.policies.base_policy import RandomPolicy

TRIALS = 6


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    tune_cpu()
    entry = find_agent("pilco")
    flags = expand_flags(entry, {"preset": "pilco_cartpole"}, lambda line: None)
    config = from_flat(PilcoConfig, flags)
    task = inspect_task(config.run.task)
    agent = PilcoAgent(task, config, torch.device("cpu"))
    policy = RandomPolicy(task.ac_low, task.ac_high)
    for number in range(TRIALS):
        env = make_env(config.run.task, task.ep_len)
        paths = run_episodes([env], policy, [EpisodeKey(1, "train", number, 0)])
        agent.add_to_replay_buffer(paths, number)
    rows = agent.replay_buffer.newest(config.pilco.pilco_max_rows)
    fit = seconds(lambda: agent.model.fit(rows, config.pilco.pilco_gp_line_searches))
    search = seconds(lambda: agent._search(0))
    write(
        "pilco",
        {
            "shape": f"{len(rows.obs)} transitions, {agent.horizon} predicted steps",
            "unit": "CPU seconds",
            "fit of the Gaussian processes": round(fit, 1),
            "policy search": round(search, 1),
            "peak memory in MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        },
    )


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
