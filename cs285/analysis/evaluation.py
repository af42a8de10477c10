"""Evaluate the trained agent of a run on new episodes."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cs285.analysis.rebuild import Rebuilt, best_if_alone, read_run, rebuild
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
    checkpoint: str | None = None,
    video: Path | None = None,
    render: str | None = None,
) -> Evaluation:
    """Return `episodes` new episodes with the agent in a checkpoint of a log folder.

    `policy` is "policy", "planner", "random", or None for the policy that the run evaluated.
    `checkpoint` is explained in `rebuild`; None means `best_if_alone`. The first episode is written
    to the file `video`, mp4 or GIF. `render` "human" shows all episodes in a window. The episodes
    depend on `seed`, not on `num_workers`.

    Raises UsageError: there is no such policy or checkpoint, the task cannot be drawn, or the
    folder is not the log folder of a run, or needs to be `trusted`. Raises RunError: an episode
    fails.
    """
    from cs285.collection.collector import Collector, make_backend
    from cs285.collection.episodes import EpisodeKey, film
    from cs285.envs import make_env
    from cs285.envs.checked_env import close_env
    from cs285.envs.env_watch import THIS_PROCESS
    from cs285.infrastructure.recording.progress import CollectionProgress
    from cs285.infrastructure.recording.video import write_video

    changed, which = {}, checkpoint or best_if_alone(folder)
    if policy == "planner":
        with contextlib.suppress(UsageError):  # a run without a model has no planner
            read_run(folder, trusted, which, mbpo_eval_planner=True)
            changed = {"mbpo_eval_planner": True}
    run = rebuild(folder, trusted=trusted, checkpoint=which, **changed)
    close_env(run.env)
    config = run.config.run
    chosen = _choose(folder, run, policy)
    for flag, mode in (("--video", video and "rgb_array"), ("--render", render)):
        modes = run.env.metadata.get("render_modes", [])
        if mode and mode not in modes:
            raise UsageError(
                f"{flag}: must be omitted, because {config.env_name} has only the render modes "
                f"{', '.join(map(str, modes)) or 'none'}"
            )
    env_factory = functools.partial(make_env, config.task, config.ep_len, render)
    num_workers = 1 if render else num_workers
    backend = make_backend(env_factory, chosen.device, num_workers, episodes, config.env_timeout)
    collector = Collector(backend, seed, run.task.ep_len)
    try:
        shown = CollectionProgress("evaluating", episodes * run.task.ep_len)
        with THIS_PROCESS.watched(config.env_timeout), shown as progress:
            paths = collector.collect(chosen, 0, "evaluate", 0, progress, episodes).paths
    finally:
        collector.close()
    if video:
        env = make_env(config.task, config.ep_len, "rgb_array")
        try:
            with THIS_PROCESS.watched(config.env_timeout):
                drawn = film(env, chosen, EpisodeKey(seed, "evaluate", 0, 0))
        finally:
            close_env(env)
        write_video(video, *drawn)
    return Evaluation(
        np.array([path.total_reward for path in paths]),
        np.array([path.length for path in paths]),
        np.array([path.terminated[-1] for path in paths]),
    )


def _choose(folder: Path, run: Rebuilt, name: str | None) -> Any:
    """Return the policy called `name`. Raises UsageError: the agent in the checkpoint has none."""
    from cs285.policies.base_policy import RandomPolicy, is_planner

    if name == "random":
        return RandomPolicy(run.task.ac_low, run.task.ac_high)
    policies = run.agent.eval_policies
    if name is None:
        return policies["Eval"]
    if run.parts is not None and "model" not in run.parts:  # it has no weights for a planner
        policies = {"Eval": policies["Eval"]}
    kinds = {"planner" if is_planner(each) else "policy": each for each in policies.values()}
    if name not in kinds:
        raise UsageError(
            f"--policy {name}: must be {' or '.join([*kinds, 'random'])} for the run in {folder}"
        )
    return kinds[name]
