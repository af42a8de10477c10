"""Study whether an average of the policy's weights acts better than the weights of the last update.

    python results/policy_averaging_study.py LOGDIR [--repeats 10] [--rate 0.005]

LOGDIR is the log folder of a run of MBPO. Its agent trains for one more iteration from the last
checkpoint, several times with different seeds. After each time, the policy with the last weights
and the policy with the moving average of the weights act in the same episodes. The script writes
results/study/policy_averaging_NAME.json.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs285.agents.mbpo_agent import MBPOAgent
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.collection.collector import Collector, make_backend
from cs285.config.flags import OneLineParser, whole_number
from cs285.envs import make_env
from cs285.envs.env_watch import THIS_PROCESS
from cs285.policies.sac_policy import SACActor

SCRIPT, TARGET = "policy_averaging_study.py", Path(__file__).parent / "study"
EPISODES = 10


def compare(folder: Path, rate: float, seed: int) -> tuple[str, dict[str, list[float]]]:
    """Train for one more iteration; return the run's name and the returns of both policies."""
    run = rebuild(folder, no_gpu=True, sac_policy_averaging=rate, seed=seed)
    agent = agent_of(run, MBPOAgent, folder)
    agent.train(run.counters["next_iteration"])
    sac, config = agent.sac_agent, run.config.run
    policies = {"last": SACActor(sac.policy, sac.device, True), "average": sac.eval_policy}
    env_factory = functools.partial(make_env, config.task, config.ep_len)
    backend = make_backend(env_factory, sac.device, 1, EPISODES)
    collector, returns = Collector(backend, seed, run.task.ep_len), {}
    try:
        for name, policy in policies.items():
            with THIS_PROCESS.watched(config.env_timeout):
                paths = collector.collect(policy, 0, "evaluate", 0, min_episodes=EPISODES).paths
            returns[name] = [round(path.total_reward, 3) for path in paths]
    finally:
        collector.close()
    return config.exp_name, returns


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    parser.add_argument("--repeats", type=whole_number(1), default=10, metavar="N")
    parser.add_argument("--rate", type=float, default=0.005)
    given = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    for seed in range(given.repeats):
        name, returns = compare(given.folder, given.rate, seed)
        found.append(returns)
        means = {policy: round(sum(each) / len(each)) for policy, each in returns.items()}
        print(f"seed {seed}: {means}", flush=True)
    about = {"rate": given.rate, "found": found}
    write_study(TARGET / f"policy_averaging_{name}.json", SCRIPT, argv, name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
