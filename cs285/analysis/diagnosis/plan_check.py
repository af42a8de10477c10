"""What the model promises of a plan, against what comes of it.

At S states of the policy's own episodes: the plan of H actions that it makes there, the rewards
that the model predicts for it, those of acting the very plan out in the simulator, and those that
the agent really got, deciding anew at each step.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from cs285.agents.base_agent import Diagnosed
from cs285.analysis.diagnosis.model_error import OpenLoop, correlation, window_starts
from cs285.collection.episodes import Episode, EpisodeKey
from cs285.infrastructure.pytorch_util import from_numpy, make_generator, to_numpy
from cs285.infrastructure.replay_buffer import Path
from cs285.models.base_model import DynamicsModel
from cs285.models.evaluation import imagine
from cs285.models.propagation import step_with_mean
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Memory, Policy, is_planner
from cs285.policies.MPC_policy import MPCPolicy

ACTED_OUT, REPLANNED = "plan acted out", "replanning"


class Plans(NamedTuple):
    """B plans of H actions, and what the model expects of them."""

    acs: NDArray[np.float32]  # (B, H, A)
    states: NDArray[np.float32]  # (B, H + 1, O), the given ones first, then those expected
    rewards: NDArray[np.float32]  # (B, H), of the post-step states


# (paths, starts (B, 2): number of the path, env step in it) -> the B plans there
MakePlans = Callable[[Sequence[Path], NDArray[np.int64]], Plans]


class RecordedMPC:
    """An MPC policy that keeps the plans it acts on, of one episode after the other."""

    def __init__(self, policy: MPCPolicy) -> None:
        self.policy, self.device = policy, policy.device
        self.plans: list[NDArray[np.float32]] = []  # (1, H, A) each, in the order of decisions

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """obs (1, O) -> the plan's first action (1, A)."""
        self.plans.append(to_numpy(self.policy.plan(obs, memories)))
        return self.plans[-1][:, 0]

    def plans_at(self, paths: Sequence[Path], starts: NDArray[np.int64]) -> Plans:
        """Return the plans that were made at `starts` of `paths`, all that it has acted in.

        States and rewards are members' means.
        """
        first = np.cumsum([0, *(path.length for path in paths)])
        acs = np.concatenate([self.plans[first[number] + step] for number, step in starts])
        obs = observations_at(paths, starts)
        imagined = imagine(self.policy.model, obs, acs, self.policy.task)
        return Plans(acs, imagined.observations.mean(0), imagined.rewards.mean(0))


@torch.inference_mode()
def policy_plans(
    model: DynamicsModel,
    task: TaskModel,
    policy: Policy,
    horizon: int,
    seed: int,
    paths: Sequence[Path],
    starts: NDArray[np.int64],
) -> Plans:
    """Act `policy` out in the model for `horizon` steps from the states at `starts` of `paths`.

    The next state is the mean over the members, as in MBPO's rollouts. Rewards are
    those of `task`.
    """
    step, device = model.planning_step(), model.device
    obs = observations_at(paths, starts)
    memories = _memories(seed, len(obs), policy.device)
    states, actions, rewards = [from_numpy(obs, device)], [], []
    state = model.initial_state(states[0])
    for _ in range(horizon):
        acs = from_numpy(policy.get_action(to_numpy(states[-1]), memories), device)
        state, predicted = step_with_mean(model, step, state, acs)
        states.append(predicted.next_obs)
        actions.append(acs)
        rewards.append(task.outcome(predicted, acs).rewards)
    columns = (to_numpy(torch.stack(column, 1)) for column in (actions, states, rewards))
    return Plans(*columns)


def plans_of(subject: Diagnosed, seed: int) -> tuple[Policy, MakePlans]:
    """Return the policy to run, and what makes its plans: its own, or its acts in the model."""
    if is_planner(subject.policy):
        recorded = RecordedMPC(cast(MPCPolicy, subject.policy))
        return recorded, recorded.plans_at
    make_plans = functools.partial(
        policy_plans, subject.model, subject.task, subject.policy, subject.plan_horizon, seed
    )
    return subject.policy, make_plans


def observations_at(paths: Sequence[Path], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the observations at `starts` (B, 2) of `paths`, (B, O)."""
    return np.stack([paths[number].obs[step] for number, step in starts])


def _memories(seed: int, count: int, device: torch.device) -> list[Memory]:
    return [Memory(make_generator(seed, "diagnose plans", n, device=device)) for n in range(count)]


def execute_plan(
    env: gym.Env, key: EpisodeKey, path: Path, step: int, acs: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return to env step `step` of `path`, the episode of `key`, and act out `acs` (H, A) there.

    Returns the rewards (H,): NaN after the episode's end, and all NaN where the simulator does not
    come back to that state, since it is not a function of seed and actions.
    """
    episode = Episode(env, key)
    rewards = np.full(len(acs), np.nan, np.float32)
    for action in path.acs[:step]:
        if episode.running:
            episode.step(action)
    if not (episode.running and np.array_equal(episode.obs[-1], path.obs[step])):
        return rewards
    for action in acs:
        if episode.running:
            episode.step(action)
    acted = episode.rewards[step:]
    rewards[: len(acted)] = acted
    return rewards


class PlanCheck(NamedTuple):
    """S plans, and the rewards at each step of what came of them."""

    starts: NDArray[np.int64]  # (S, 2): number of the path, env step in it
    plans: Plans  # of S
    acted_out: NDArray[np.float32]  # (S, H), see execute_plan
    replanned: NDArray[np.float32]  # (S, H)


def check_plans(
    make_plans: MakePlans,
    horizon: int,
    env: gym.Env,
    keys: Sequence[EpisodeKey],
    paths: Sequence[Path],
    at_most: int,
) -> PlanCheck:
    """Plan at about `at_most` states of `paths`, the policy's episodes of `keys`, evenly spaced.

    They are states with `horizon` steps ahead, the plans' H; where there are none, the plans are
    cut to the longest path: compare `acted_out.shape`.
    """
    H = min(horizon, max(path.length for path in paths))
    starts = window_starts(paths, H)
    starts = starts[:: -(-len(starts) // at_most)]
    acs, states, rewards = make_plans(paths, starts)
    plans = Plans(acs[:, :H], states[:, : H + 1], rewards[:, :H])
    acted_out = [
        execute_plan(env, keys[p], paths[p], t, plan)
        for (p, t), plan in zip(starts, plans.acs, strict=True)
    ]
    replanned = np.stack([paths[p].rewards[t : t + H] for p, t in starts])
    return PlanCheck(starts, plans, np.stack(acted_out), replanned)


class Agreement(NamedTuple):
    """Predicted returns against realised ones, of S' plans over the steps that both have."""

    predicted: NDArray[np.float64]  # (S',)
    realised: NDArray[np.float64]  # (S',)

    @property
    def bias(self) -> float:
        """The mean of predicted less realised: positive where the model promises too much."""
        return float((self.predicted - self.realised).mean()) if len(self.predicted) else np.nan

    @property
    def correlation(self) -> float:
        """Pearson's; NaN where one of the two is constant."""
        return correlation(self.predicted, self.realised)


def agreement(predicted: NDArray[np.floating], realised: NDArray[np.floating]) -> Agreement:
    """Sum rewards (S, H) over the steps at which the realised are not NaN; without any: left out.

    The model does not end an episode, so what it predicts beyond the real end is not counted.
    """
    happened = ~np.isnan(realised)
    returns = (
        np.where(happened, rewards, 0).sum(1, np.float64) for rewards in (predicted, realised)
    )
    return Agreement(*(each[happened.any(1)] for each in returns))


class Findings(NamedTuple):
    """All that a diagnosis measured, by the kind of data: that of the policy comes first."""

    paths: dict[str, list[Path]]
    loops: dict[str, OpenLoop]
    check: PlanCheck  # on the policy's paths
    horizon: int  # of the open loops, as asked for, env steps
    plan_horizon: int  # of the plans, likewise

    @property
    def agreements(self) -> dict[str, Agreement]:
        """Predicted against realised returns, by how they were realised."""
        check = self.check
        return {
            ACTED_OUT: agreement(check.plans.rewards, check.acted_out),
            REPLANNED: agreement(check.plans.rewards, check.replanned),
        }

    def npz(self) -> bytes:
        """Return the arrays as an .npz file; their shapes are those of the classes they are of."""
        check = self.check
        arrays: dict[str, Any] = {
            "plan_starts": check.starts,
            "predicted": check.plans.rewards,
            "acted_out": check.acted_out,
            "replanned": check.replanned,
        }
        for name, loop in self.loops.items():
            prefix = name.split()[0]
            arrays |= {
                f"{prefix}_starts": loop.starts,
                f"{prefix}_unit": loop.unit,
                f"{prefix}_errors": loop.errors_by_member(),
                f"{prefix}_errors_of_mean": loop.errors_of_mean(),
                f"{prefix}_spreads": loop.spreads(),
                f"{prefix}_errors_of_no_change": loop.errors_of_no_change(),
                f"{prefix}_rank_correlation": loop.rank_correlation(),
            }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()
