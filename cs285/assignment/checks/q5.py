"""Checks of question 5: elites, the cross-entropy method and iCEM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cs285.assignment.checks.support import expect, memories, require, returned, unchanged
from cs285.config.planner import PlannerConfig
from cs285.policies.planners import PLANNERS
from cs285.policies.planners.sampling import SamplingContext, weighted_statistics

LOW, HIGH = torch.tensor([-1.0]), torch.tensor([20.0])


@dataclass(frozen=True)
class Scripted(SamplingContext):
    """A context with given populations, which records how the Gaussian ones are drawn."""

    populations: tuple[Tensor, ...] = ()  # the first one is uniform
    drawn: list[tuple[float, float]] = field(default_factory=list)  # mean and std, each time

    def uniform(self) -> Tensor:
        """Return the first population."""
        return self.populations[0]

    def gaussian(self, mean: Tensor, std: Tensor) -> Tensor:
        """Return the next population, and the last one after that."""
        self.drawn.append((float(mean.flatten()[0]), float(std.flatten()[0])))
        return self.populations[min(len(self.drawn), len(self.populations) - 1)]


def elites() -> None:
    """Check weighted statistics, by hand."""
    sequences = torch.tensor([1.0, 4.0, 100.0])[None, :, None, None].repeat(2, 1, 2, 1)
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    with unchanged(sequences=sequences, weights=weights):
        got = weighted_statistics(sequences, weights)
    mean, std = returned("weighted_statistics", got, 2)
    wrong: list[tuple[str, Any]] = [
        ("weight the sequences", torch.full((2, 2, 1), 35.0)),
        (
            "the weights have a sum of 1 already",
            torch.tensor([2.5, 100])[:, None, None].expand(2, 2, 1) / 3,
        ),
    ]
    expected = torch.tensor([2.5, 100.0])[:, None, None].expand(2, 2, 1)
    expect("mean of 1, 4 and 100 with weights 1/2, 1/2 and 0", mean, expected, wrong)
    deviations = torch.tensor([1.5, 0.0])[:, None, None].expand(2, 2, 1)
    wrong = [
        ("take the root of the variance", deviations.square()),
        (
            "subtract the mean, then square",
            torch.tensor([8.5, 1e4])[:, None, None].sqrt().expand(2, 2, 1),
        ),
        ("the deviations must be weighted, too", sequences.std(1, correction=0)),
    ]
    expect("std of the same", std, deviations, wrong)


def cem() -> None:
    """Check the refits with scripted populations, and the optimum of a quadratic."""
    for alpha, mean in ((1.0, 4.0), (0.25, 1.75), (0.0, 1.0)):
        context = _scripted(2, 1, alpha, [1.0, 9.0], [4.0, 9.0])
        plan = PLANNERS["cem"](_lowest_first, context)
        old = 1 - alpha
        wrong = [
            ("alpha weights the new elites, not the old mean", [[[1 * alpha + 4 * old]]]),
            ("alpha is ignored", [[[4.0]]]),
            ("refit to cem_num_elites elites, not to the whole population", [[[6.5]]]),
            ("there are cem_iterations populations, and the uniform one is the first", [[[1.0]]]),
        ]
        expect(f"plan with alpha {alpha:g}", plan, [[[mean]]], wrong)
        number = len(context.drawn)
        require(
            number == 1,
            f"Gaussian populations for cem_iterations 2: expected 1 after the uniform one, got "
            f"{number}",
        )
        expect("mean and std of the first Gaussian population", context.drawn[0], [1.0, 0.0])
    context = _scripted(3, 2, 0.5, [1.0, 3.0, 9.0], [4.0, 5.0, 9.0], [6.0, 8.0, 9.0])
    plan = PLANNERS["cem"](_lowest_first, context)
    first = [("refit to cem_num_elites elites, not to the whole population", [13 / 3, 3.4])]
    expect("mean and std after the first refit", context.drawn[0], [2.0, 1.0], first)
    std = [("the std moves by alpha, too", [3.25, 0.5])]
    expect("mean and std after the second refit", context.drawn[1], [3.25, 0.75], std)
    expect("plan after the third refit", plan, [[[5.125]]])
    _check_optimum()


def _check_optimum() -> None:
    """Check that CEM finds the optimum of a quadratic in an uneven box."""
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 10.0])
    target = torch.tensor([0.3, 7.0])
    sizes: list[int] = []

    def returns_of(sequences: Tensor) -> Tensor:
        sizes.append(sequences.shape[1])
        return -((sequences - target) / (high - low)).square().sum((2, 3))

    config = PlannerConfig(
        mpc_horizon=2,
        mpc_num_action_sequences=500,
        mpc_action_sampling_strategy="cem",
        cem_iterations=8,
        cem_num_elites=20,
    )
    draw = memories(1)[0].generator
    population = low + torch.rand(1, 500, 2, 2, generator=draw) * (high - low)

    class Drawn(Scripted):
        def gaussian(self, mean: Tensor, std: Tensor) -> Tensor:
            noise = torch.randn(1, 500, 2, 2, generator=draw)
            return (mean[:, None] + std[:, None] * noise).clamp(low, high)

    plan = PLANNERS["cem"](returns_of, Drawn(low, high, config, memories(1), None, (population,)))
    expect("optimum of a quadratic", plan / 10, (target / 10).expand(1, 2, 2), tolerance=0.02)
    require(sizes == [500] * 8, f"sizes of the populations: expected 8 times 500, got {sizes}")


def icem() -> None:
    """Check the sizes of the populations and the optimum of a quadratic."""
    target, sizes = 7.0, list[int]()
    last: list[Tensor] = []

    def returns_of(sequences: Tensor) -> Tensor:
        sizes.append(sequences.shape[1])
        last[:] = [sequences]
        return -(sequences - target).square().sum((2, 3))

    config = PlannerConfig(
        mpc_horizon=3,
        mpc_num_action_sequences=100,
        mpc_action_sampling_strategy="icem",
        cem_iterations=4,
        cem_num_elites=10,
        icem_decay=2.0,
    )
    context = SamplingContext(LOW, HIGH, config, memories(1))
    plan = PLANNERS["icem"](returns_of, context)
    wrong = [
        ("the reused elites are candidates, too", [100, 50, 25, 21]),
        ("the last iteration adds the mean", [103, 53, 28, 23]),
        ("the population must not shrink in the first iteration", [53, 28, 23, 24]),
        ("the population must not shrink below 2 * cem_num_elites", [103, 53, 28, 16]),
        ("the population must shrink by icem_decay", [103, 103, 103, 104]),
    ]
    expect("numbers of candidates", sizes, [103, 53, 28, 24], wrong)
    values = -(last[0] - target).square().sum((2, 3))
    expect("plan: the best of the last population", plan[0], last[0][0, int(values.argmax())])
    expect("optimum of a quadratic", plan / 10, torch.full((1, 3, 1), 0.7), tolerance=0.1)


def _lowest_first(sequences: Tensor) -> Tensor:
    return -sequences.sum((2, 3))


def _scripted(iterations: int, elites: int, alpha: float, *populations: list[float]) -> Scripted:
    config = PlannerConfig(
        mpc_horizon=1,
        mpc_num_action_sequences=len(populations[0]),
        mpc_action_sampling_strategy="cem",
        cem_iterations=iterations,
        cem_num_elites=elites,
        cem_alpha=alpha,
    )
    tensors = tuple(torch.tensor(each)[None, :, None, None] for each in populations)
    return Scripted(LOW, HIGH, config, memories(1), None, tensors)
