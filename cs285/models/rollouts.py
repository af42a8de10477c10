"""Model rollouts: a policy acts in the ensemble from many real states in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.base_model import DynamicsModel
from cs285.models.propagation import advance, check_propagation, draw_split
from cs285.models.task_model import TaskModel

# (obs (B, O), random generator) -> the policy's actions (B, A)
ActionsOf = Callable[[Tensor, torch.Generator], Tensor]


class Rollouts(NamedTuple):
    """R imagined transitions, and statistics of their rollouts."""

    data: Transitions  # (R, ...)
    mean_length: Tensor  # (), steps
    mean_reward: Tensor  # (), per step
    dropped: Tensor  # (), rollouts cut short by a non-finite state or reward


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
    """Follow a policy for at most `length` steps from each of B states `start` (B, O).

    With `propagation` "mean", the next state is the mean over the ensemble. With "random_member", a
    random member predicts the next state of each row, and samples it if the model predicts
    distributions. `task` returns the rewards and terminations. A rollout ends after a terminal
    transition, which it keeps, or before a non-finite transition, which it drops. The transitions
    are in the order of their rollouts.

    Raises UsageError: `propagation` is "random_member" and the model has a memory.
    """
    check_propagation(model, propagation)
    step, state = model.planning_step(), model.initial_state(start)
    obs, alive = start, torch.ones(len(start), dtype=torch.bool, device=start.device)
    dropped = torch.zeros((), dtype=torch.long, device=start.device)
    steps, kept = [], []
    for _ in range(length):
        acs = acs_of(obs, generator)
        split = None
        if propagation == "random_member":
            split = draw_split(len(state), len(acs), generator, model.noise_dim)
        state, prediction = advance(model, step, state, acs, split)
        next_obs, (rewards, terminated) = prediction.next_obs, task.outcome(prediction, acs)
        terminated = torch.zeros_like(alive) if terminated is None else terminated
        finite = next_obs.isfinite().all(-1) & rewards.isfinite()
        dropped += (alive & ~finite).sum()
        alive = alive & finite
        steps.append(Transitions(obs, acs, rewards, next_obs, terminated))
        kept.append(alive)
        obs, alive = next_obs, alive & ~terminated
    keep = torch.stack(kept, 1)  # (B, length)
    kept_rows = keep.flatten().nonzero()[:, 0]  # waits for the GPU to count the rows
    columns = (torch.stack(column, 1).flatten(0, 1) for column in zip(*steps, strict=True))
    data = Transitions(*columns).each(lambda column: column.index_select(0, kept_rows))
    mean_length = keep.sum(1).float().mean()
    mean_reward = data.rewards.sum() / max(len(data.rewards), 1)
    return Rollouts(data, mean_length, mean_reward, dropped.float())
