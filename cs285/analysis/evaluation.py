"""Evaluate the trained agent of a run on new episodes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cs285.analysis.rebuild import rebuild
from cs285.infrastructure.errors import UsageError

POLICIES = ("policy", "planner", "random")


class Evaluation(NamedTuple):
    """The episodes of an evaluation."""

    returns: NDArray[np.float64]  # (N,), undiscounted
    lengths: NDArray[np.int64]  # (N,), env steps
    terminated: NDArray[np.bool_]  # (N,); the other episodes reached the time limit


def evaluate(
    folder: Path,
    episodes: int,
    seed: int = 1,
    policy: str | None = None,
    num_workers: int | None = None,
    trusted: bool = False,
) -> Evaluation:
    """Return `episodes` new episodes with the agent in the last checkpoint of a log folder.

    `policy` is "policy", "planner", "random", or None for the policy that the run evaluated. The
    episodes depend on `seed`, not on `num_workers`. Raises UsageError: there is no such policy, or
    the folder is not the log folder of a run with a checkpoint, or needs to be `trusted`. Raises
    RunError: an episode fails.
    """
    from cs285.collection.collector import Collector, make_backend
    from cs285.envs import make_env
    from cs285.infrastructure.recording.progress import CollectionProgress

    changed = {"mbpo_eval_planner": True} if policy == "planner" else {}
    run = rebuild(folder, trusted=trusted, **changed)
    run.env.close()
    config = run.config.run
    ep_len = config.ep_len or run.task.ep_len
    env_factory = functools.partial(make_env, config.env_name, ep_len)
    chosen = _choose(folder, run, policy)
    backend = make_backend(env_factory, chosen.device, num_workers, episodes, config.env_timeout)
    collector = Collector(backend, seed, ep_len)
    try:
        with CollectionProgress("evaluating", episodes * ep_len) as progress:
            paths = collector.collect(chosen, 0, "evaluate", 0, progress, episodes).paths
    finally:
        collector.close()
    return Evaluation(
        np.array([path.total_reward for path in paths]),
        np.array([path.length for path in paths]),
        np.array([path.terminated[-1] for path in paths]),
    )


def _choose(folder: Path, run: Any, name: str | None) -> Any:
    """Return the policy called `name`. Raises UsageError: the agent has none."""
    from cs285.policies.base_policy import RandomPolicy, is_planner

    if name == "random":
        return RandomPolicy(run.task.ac_low, run.task.ac_high)
    policies = run.agent.eval_policies
    if name is None:
        return policies["Eval"]
    kinds = {"planner" if is_planner(each) else "policy": each for each in policies.values()}
    if name not in kinds:
        raise UsageError(
            f"--policy {name}: must be {' or '.join([*kinds, 'random'])} for the run in {folder}"
        )
    return kinds[name]
