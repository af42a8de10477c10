"""Comparison of the returns that the model predicts for plans with actual returns.

The policy makes plans of H actions at S states of its episodes, and the model predicts their
rewards. They are compared with the rewards of executing the plan in the simulator, and with the
rewards of the episode itself, in which the policy decides again at every env step.
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
from cs285.models.open_loop import imagine
from cs285.models.propagation import step_with_mean
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Memory, Policy, is_planner
from cs285.policies.MPC_policy import MPCPolicy

EXECUTED, REPLANNED = "plan executed", "real episode"


class Plans(NamedTuple):
    """B plans of H actions, with the states and rewards that the model predicts."""

    acs: NDArray[np.float32]  # (B, H, A)
    states: NDArray[np.float32]  # (B, H + 1, O), the start state and the predicted states
    rewards: NDArray[np.float32]  # (B, H), for the post-step states


# (paths, starts (B, 2): index of the path, env step in the path) -> the B plans at the starts
MakePlans = Callable[[Sequence[Path], NDArray[np.int64]], Plans]


class RecordedMPC:
    """Record the plans of an MPC policy, which runs one episode after another."""

    def __init__(self, policy: MPCPolicy) -> None:
        self.policy, self.device = policy, policy.device
        self.plans: list[NDArray[np.float32]] = []  # (1, H, A) each, one per env step

    def get_action(
        self, obs: NDArray[np.float32], memories: Sequence[Memory]
    ) -> NDArray[np.float32]:
        """Return the first action (1, A) of the plan for obs (1, O)."""
        self.plans.append(to_numpy(self.policy.plan(obs, memories)))
        return self.plans[-1][:, 0]

    def plans_at(self, paths: Sequence[Path], starts: NDArray[np.int64]) -> Plans:
        """Return the recorded plans at `starts` of `paths`, which must be all recorded episodes.

        States and rewards are means over the members.
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
    """Run `policy` in the model for `horizon` env steps from the states at `starts` of `paths`.

    The next state is the mean over the members, as with --mbpo_propagation mean. `task`
    gives the rewards.
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
    """Return the policy to run and the function that makes its plans.

    A planner returns its own plans. The plans of other policies are their actions in the model.
    """
    if is_planner(subject.policy):
        recorded = RecordedMPC(cast(MPCPolicy, subject.policy))
        return recorded, recorded.plans_at
    make_plans = functools.partial(
        policy_plans, subject.model, subject.task, subject.policy, subject.plan_horizon, seed
    )
    return subject.policy, make_plans


def observations_at(paths: Sequence[Path], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the observations at `starts` (B, 2) of `paths`: (B, O)."""
    return np.stack([paths[number].obs[step] for number, step in starts])


def _memories(seed: int, count: int, device: torch.device) -> list[Memory]:
    return [Memory(make_generator(seed, "diagnose plans", n, device=device)) for n in range(count)]


def execute_plan(
    env: gym.Env, key: EpisodeKey, path: Path, step: int, acs: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Replay `path`, the episode of `key`, up to env step `step`, and execute `acs` (H, A) there.

    Return the rewards (H,), with NaN after the episode has terminated or been truncated. All
    rewards are NaN if the replay does not lead to the same state, because the simulator is not
    determined by its seed and actions.
    """
    episode = Episode(env, key)
    rewards = np.full(len(acs), np.nan, np.float32)
    episode.execute(path.acs[:step])
    if not (episode.running and np.array_equal(episode.obs[-1], path.obs[step])):
        return rewards
    episode.execute(acs)
    acted = episode.rewards[step:]
    rewards[: len(acted)] = acted
    return rewards


class PlanCheck(NamedTuple):
    """S plans, and the actual rewards at their env steps."""

    starts: NDArray[np.int64]  # (S, 2): index of the path, env step in the path
    plans: Plans  # B = S
    executed: NDArray[np.float32]  # (S, H), of the executed plans, see execute_plan
    replanned: NDArray[np.float32]  # (S, H), of the real episodes


def check_plans(
    make_plans: MakePlans,
    horizon: int,
    env: gym.Env,
    keys: Sequence[EpisodeKey],
    paths: Sequence[Path],
    at_most: int,
) -> PlanCheck:
    """Plan at up to `at_most` evenly spaced states of `paths`, the policy's episodes of `keys`.

    Each state has H env steps ahead. H is `horizon`, or the length of the longest path if that is
    shorter; the plans are then cut to H.
    """
    H = min(horizon, max(path.length for path in paths))
    starts = window_starts(paths, H)
    starts = starts[:: -(-len(starts) // at_most)]
    acs, states, rewards = make_plans(paths, starts)
    plans = Plans(acs[:, :H], states[:, : H + 1], rewards[:, :H])
    executed = [
        execute_plan(env, keys[p], paths[p], t, plan)
        for (p, t), plan in zip(starts, plans.acs, strict=True)
    ]
    replanned = np.stack([paths[p].rewards[t : t + H] for p, t in starts])
    return PlanCheck(starts, plans, np.stack(executed), replanned)


class Agreement(NamedTuple):
    """Predicted and actual returns of S' plans, over the env steps that both have."""

    predicted: NDArray[np.float64]  # (S',)
    actual: NDArray[np.float64]  # (S',)

    @property
    def bias(self) -> float:
        """The mean of predicted minus actual; it is positive if the model overestimates."""
        return float((self.predicted - self.actual).mean()) if len(self.predicted) else np.nan

    @property
    def correlation(self) -> float:
        """Pearson's correlation; NaN if one of the two is constant."""
        return correlation(self.predicted, self.actual)


def agreement(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> Agreement:
    """Sum both rewards (S, H) over the env steps whose actual reward is not NaN.

    Plans without any such step are left out. Imagined episodes do not terminate here, so
    predicted rewards after the last real env step are ignored.
    """
    happened = ~np.isnan(actual)
    returns = (np.where(happened, rewards, 0).sum(1, np.float64) for rewards in (predicted, actual))
    return Agreement(*(each[happened.any(1)] for each in returns))


class Findings(NamedTuple):
    """The measurements of a diagnosis. The keys name the kind of episodes, the policy's first."""

    paths: dict[str, list[Path]]
    loops: dict[str, OpenLoop]
    check: PlanCheck  # on the paths of the policy
    horizon: int  # requested for `loops`, in env steps
    plan_horizon: int  # requested for `check`, in env steps

    @property
    def agreements(self) -> dict[str, Agreement]:
        """Predicted and actual returns, by the source of the actual returns."""
        check = self.check
        return {
            EXECUTED: agreement(check.plans.rewards, check.executed),
            REPLANNED: agreement(check.plans.rewards, check.replanned),
        }

    def npz(self) -> bytes:
        """Return the arrays as an .npz file, with the shapes given in OpenLoop and PlanCheck."""
        check = self.check
        arrays: dict[str, Any] = {
            "plan_starts": check.starts,
            "predicted": check.plans.rewards,
            "executed": check.executed,
            "replanned": check.replanned,
        }
        for name, loop in self.loops.items():
            prefix = name.split()[0]
            arrays |= {
                f"{prefix}_starts": loop.starts,
                f"{prefix}_unit": loop.unit,
                f"{prefix}_errors": loop.errors_by_dimension(),
                f"{prefix}_errors_of_mean": loop.errors_of_mean(),
                f"{prefix}_spreads": loop.spreads(),
                f"{prefix}_errors_of_no_change": loop.errors_of_no_change(),
                f"{prefix}_rank_correlation": loop.rank_correlation(),
            }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()
