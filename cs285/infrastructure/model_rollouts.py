"""Imagined transitions: a policy acts in the ensemble, from many real states at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cs285.envs.registration import RewardFunction
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.ff_model import FFModel, Predict
from cs285.policies.sac_policy import SACPolicy


class Rollouts(NamedTuple):
    """M imagined transitions, and how the rollouts they come from went."""

    data: Transitions  # (M, ...)
    mean_length: Tensor  # (), steps
    mean_reward: Tensor  # (), per step
    dropped: Tensor  # (), rollouts cut short since a member's state or reward was not finite


@torch.no_grad()
def roll_out(
    model: FFModel,
    policy: SACPolicy,
    get_reward: RewardFunction | None,
    start: Tensor,
    length: int,
    propagation: str,
    generator: torch.Generator,
) -> Rollouts:
    """Follow `policy` for `length` steps from each of B states `start` (B, O).

    The next state is the "mean" over the ensemble, or for each row that of a "random_member". The
    reward is the model's where it learns one, else `get_reward` of the post-step observation, which
    also says where an episode ends. A rollout ends after a terminal transition, which it keeps, and
    before a non-finite one, which it does not. Rows come rollout by rollout.
    """
    predict = model.predictor()
    E = model.ensemble_size
    obs, alive = start, torch.ones(len(start), dtype=torch.bool, device=start.device)
    dropped = torch.zeros((), dtype=torch.long, device=start.device)
    steps, kept = [], []
    for _ in range(length):
        noise_shape = (len(obs), policy.ac_dim)
        noise = torch.randn(noise_shape, generator=generator, device=obs.device)
        acs = policy.to_task(policy.sample(policy.scale_obs(obs), noise).acs)
        if propagation == "mean":
            next_obs, rewards = predict_mean(predict, E, obs, acs)
        else:
            next_obs, rewards = predict_random_member(predict, E, obs, acs, generator)
        terminated = torch.zeros_like(alive)
        if get_reward is not None:
            known_rewards, dones = get_reward(next_obs, acs)
            terminated = dones.bool()
            rewards = rewards if model.learns_reward else known_rewards
        finite = next_obs.isfinite().all(-1) & rewards.isfinite()
        dropped += (alive & ~finite).sum()
        alive = alive & finite
        steps.append(Transitions(obs, acs, rewards, next_obs, terminated))
        kept.append(alive)
        obs, alive = next_obs, alive & ~terminated
    keep = torch.stack(kept, 1)  # (B, length)
    kept_rows = keep.flatten().nonzero()[:, 0]  # a GPU is waited for here, to know how many
    columns = (torch.stack(column, 1).flatten(0, 1) for column in zip(*steps, strict=True))
    data = Transitions(*(column.index_select(0, kept_rows) for column in columns))
    mean_length = keep.sum(1).float().mean()
    mean_reward = data.rewards.sum() / max(len(data.rewards), 1)
    return Rollouts(data, mean_length, mean_reward, dropped.float())


def predict_mean(predict: Predict, E: int, obs: Tensor, acs: Tensor) -> tuple[Tensor, Tensor]:
    """obs (B, O), acs (B, A) -> next observations (B, O), rewards (B,): means over E members."""
    next_obs, rewards = predict(obs.expand(E, -1, -1), acs.expand(E, -1, -1))
    return next_obs.mean(0), rewards.mean(0)


def predict_random_member(
    predict: Predict, E: int, obs: Tensor, acs: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """obs (B, O), acs (B, A) -> next observations (B, O), rewards (B,) of a member for each row.

    A random partition gives every member an equal share of the rows, so that each row is computed
    once, not E times.
    """
    B, share = len(obs), -(-len(obs) // E)
    slots = torch.randperm(E * share, generator=generator, device=obs.device)[:B]
    rows = torch.zeros(E * share, dtype=torch.long, device=obs.device)  # a spare slot repeats row 0
    rows[slots] = torch.arange(B, device=obs.device)
    rows = rows.view(E, share)
    next_obs, rewards = predict(obs[rows], acs[rows])
    return next_obs.flatten(0, 1)[slots], rewards.flatten()[slots]
