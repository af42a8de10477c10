"""Checks of question 2: candidate sequences, imagined returns and random shooting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cs285.assignment.blanks import WrongError
from cs285.assignment.checks.support import (
    ShiftingModel,
    expect,
    memories,
    require,
    require_tensor,
    returned,
)
from cs285.config.planner import PlannerConfig
from cs285.models.task_model import TaskModel
from cs285.policies.MPC_policy import Draws, MPCPolicy
from cs285.policies.planners import PLANNERS
from cs285.policies.planners.sampling import SamplingContext, best_sequences

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 10.0])


@dataclass(frozen=True)
class Scripted(SamplingContext):
    """A context whose uniform population is given."""

    population: Tensor | None = None

    def uniform(self) -> Tensor:
        """Return the given population."""
        assert self.population is not None
        return self.population.clone()


def uniform() -> None:
    """Check bounds, moments and the independence of environments."""
    config = PlannerConfig(mpc_horizon=3, mpc_num_action_sequences=4000)
    drawn = SamplingContext(LOW, HIGH, config, memories(3)).uniform()
    shape = (3, 4000, 3, 2)
    require_tensor("sequences", drawn)
    require(
        tuple(drawn.shape) == shape,
        f"sequences: expected the shape (B, N, H, A) = {shape}, got {tuple(drawn.shape)}",
    )
    inside = bool(((drawn >= LOW) & (drawn <= HIGH)).all())
    least, most = drawn.amin((0, 1, 2)), drawn.amax((0, 1, 2))
    unscaled = float(most[1]) <= 1
    require(
        inside and not unscaled,
        "sequences must fill the box [-1, 1] x [0, 10], got "
        f"[{least[0]:.2f}, {most[0]:.2f}] x [{least[1]:.2f}, {most[1]:.2f}]",
    )
    expect("mean of the actions", drawn.mean((0, 1, 2)) / 10, [0, 0.5], tolerance=0.02)
    spread = torch.tensor([2.0, 10.0]) / 12**0.5
    expect("std / expected std", drawn.flatten(0, 2).std(0) / spread, [1, 1], tolerance=0.03)
    alone = SamplingContext(LOW, HIGH, config, memories(2)[1:]).uniform()
    require(
        torch.equal(alone[0], drawn[1]),
        "environment 2 alone got other sequences: draw from the generator of its memory only",
    )
    require(not torch.equal(drawn[0], drawn[1]), "all environments got the same sequences")


def returns() -> None:
    """Check the returns of two members in two environments, against loops over numbers."""
    gains, starts = (1.0, 3.0), (0.5, -1.0)
    sequences = torch.tensor(
        [
            [[[1.0], [2.0]], [[-1.0], [0.5]], [[0.0], [-3.0]]],
            [[[2.0], [-1.0]], [[0.3], [0.1]], [[1.0], [1.0]]],
        ]
    )

    def result(pre: bool = False, last: bool = False, mean: bool = False) -> np.ndarray:
        totals = np.zeros((2, 3))
        for b, n in np.ndindex(2, 3):
            states = [starts[b]] * 2
            for step in range(2):
                action = float(sequences[b, n, step, 0])
                after = [s + g * action for s, g in zip(states, gains, strict=True)]
                after = [sum(after) / 2] * 2 if mean else after
                scored = states if pre else after
                reward = sum(-(s**2) - 10 * action for s in scored) / 2
                totals[b, n] = reward if last else totals[b, n] + reward
                states = after
        return totals

    config = PlannerConfig(mpc_horizon=2, mpc_num_action_sequences=3)
    task = TaskModel(get_reward=_reward, ends_plans=False)
    box = np.ones(1, np.float32)
    policy = MPCPolicy(ShiftingModel(*gains), task, -box, box, config, torch.device("cpu"))
    states = torch.tensor(starts)[None, :, None].expand(2, 2, 1)
    right = result()
    expected = torch.tensor(right, dtype=torch.float32)
    swapped = right.reshape(3, 2).T
    wrong = [
        ("the reward belongs to the state after the step", result(pre=True)),
        ("each member follows its own states: average at the end only", result(mean=True)),
        ("add the rewards of all steps", result(last=True)),
        ("the mean over the members, not the sum", 2 * right),
        ("the actions are mixed up: row b * N + n belongs to candidate n of env b", swapped),
        ("the sum over the steps, not the mean", right / 2),
    ]
    got = policy.evaluate_sequences(states, sequences, Draws())
    expect("returns (B, N)", got, expected, wrong)
    policy.particles = 2
    got = policy.evaluate_sequences(states, sequences, Draws())
    expect("returns (B, N) with 2 particles per member", got, expected, wrong)


def _reward(obs: Any, acs: Any) -> tuple[Any, Any]:
    return -(obs[..., 0] ** 2) - 10 * acs[..., 0], torch.ones(obs.shape[:-1], dtype=torch.bool)


def best() -> None:
    """Check the order, the weights and the treatment of NaN and infinity."""
    inf, nan = torch.inf, torch.nan
    values = torch.tensor([[3.0, 1.0, 2.0, nan], [inf, -5.0, -7.0, -inf]])
    sequences = torch.arange(8.0).view(2, 4, 1, 1).expand(2, 4, 3, 2)

    def best_of(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        got = best_sequences(lambda _: values, sequences[: len(values)], count)
        chosen, weights = returned("best_sequences", got, 2)
        shape = (len(values), count, 3, 2)
        require_tensor("sequences", chosen)
        require_tensor("weights", weights)
        require(
            tuple(chosen.shape) == shape,
            f"sequences: expected the shape {shape}, got {tuple(chosen.shape)}",
        )
        return chosen[..., 0, 0], weights

    chosen, weights = best_of(values, 2)
    wrong = [
        ("the best have the highest returns", [[1, 2], [6, 5]]),
        ("the best come first", [[2, 0], [6, 5]]),
        ("NaN and inf are not good returns", [[3, 0], [4, 5]]),
        ("+inf is no finite return", [[0, 2], [4, 5]]),
        ("choose in every environment from its own sequences", [[0, 2], [1, 2]]),
    ]
    expect("numbers of the 2 best of 4 sequences", chosen, [[0, 2], [5, 6]], wrong)
    unit = [("the weights must have a sum of 1", [[1, 1], [1, 1]])]
    expect("weights of the 2 best", weights, [[0.5, 0.5], [0.5, 0.5]], unit)
    _, weights = best_of(values, 3)
    third = 1 / 3
    unequal = [
        ("a non-finite return must have the weight 0", [[third] * 3, [third] * 3]),
        ("the weights must have a sum of 1", [[third] * 3, [third, third, 0]]),
    ]
    expect("weights of the 3 best", weights, [[third] * 3, [0.5, 0.5, 0]], unequal)
    _, weights = best_of(torch.full((1, 4), nan), 2)
    require(
        bool(weights.isnan().all()),
        f"weights without a finite return: expected NaN, got {weights.tolist()}",
    )


def shoot() -> None:
    """Check random shooting against the best of its own population, found by a loop."""
    population = torch.rand(2, 50, 3, 2, generator=memories(1)[0].generator)
    target = torch.tensor([[0.2, 0.9], [0.7, 0.1]])

    def returns_of(sequences: Tensor) -> Tensor:
        return -(sequences - target[:, None, None]).square().sum((2, 3))

    config = PlannerConfig(mpc_horizon=3, mpc_num_action_sequences=50)
    context = Scripted(LOW, HIGH, config, memories(2), population=population)
    plan = returned("random_shooting", PLANNERS["random"](returns_of, context))
    values = returns_of(population)
    ranked = [sorted(range(50), key=row.tolist().__getitem__) for row in values]
    rows, worst = [row[-1] for row in ranked], [row[0] for row in ranked]
    expected = torch.stack([population[b, n] for b, n in enumerate(rows)])
    if plan.dim() == 4:
        raise WrongError(
            f"plan: expected the shape (2, 3, 2), got {tuple(plan.shape)}; likely mistake: "
            "drop the dimension of the count"
        )
    lowest = torch.stack([population[b, n] for b, n in enumerate(worst)])
    wrong = [
        ("this is the sequence with the lowest return", lowest),
        ("this is the first candidate", population[:, 0]),
        ("choose in every environment from its own sequences", population[[0, 0], rows]),
        ("random shooting returns one candidate, not a mean", population.mean(1)),
    ]
    expect("plan", plan, expected, wrong)
    plan = PLANNERS["random"](lambda sequences: torch.full((2, 50), torch.nan), context)
    require(bool(plan.isnan().all()), "if no return is finite, the plan must be NaN")
