"""Imagined transitions: a policy acts in the ensemble, from many real states at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.base_model import DynamicsModel
from cs285.models.propagation import step_with_mean, step_with_random_member
from cs285.models.task_model import TaskModel

# (obs (B, O), generator of its draws) -> the actions (B, A) of a policy
ActionsOf = Callable[[Tensor, torch.Generator], Tensor]


class Rollouts(NamedTuple):
    """M imagined transitions, and how the rollouts they come from went."""

    data: Transitions  # (M, ...)
    mean_length: Tensor  # (), steps
    mean_reward: Tensor  # (), per step
    dropped: Tensor  # (), rollouts cut short since a member's state or reward was not finite


@torch.no_grad()
def roll_out(
    model: DynamicsModel,
    acs_of: ActionsOf,
    task: TaskModel,
    start: Tensor,
    length: int,
    propagation: str,
    generator: torch.Generator,
) -> Rollouts:
    """Follow a policy for `length` steps from each of B states `start` (B, O).

    The next state is the "mean" over the ensemble, or for each row that of a "random_member", drawn
    from its distribution where it has one. `task` says what of rewards and ends is known. A rollout
    ends after a terminal transition, which it keeps, and before a non-finite one, which it does
    not. Rows come rollout by rollout.
    """
    if model.has_memory and propagation == "random_member":
        raise UsageError(
            "--mbpo_propagation random_member: must be mean: members do not share memories"
        )
    step, state = model.planning_step(), model.initial_state(start)
    obs, alive = start, torch.ones(len(start), dtype=torch.bool, device=start.device)
    dropped = torch.zeros((), dtype=torch.long, device=start.device)
    steps, kept = [], []
    for _ in range(length):
        acs = acs_of(obs, generator)
        if propagation == "mean":
            state, prediction = step_with_mean(model, step, state, acs)
        else:
            state, prediction = step_with_random_member(
                step, state, acs, generator, model.noise_dim
            )
        next_obs, (rewards, ends) = prediction.next_obs, task.outcome(prediction, acs)
        terminated = torch.zeros_like(alive) if ends is None else ends
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
