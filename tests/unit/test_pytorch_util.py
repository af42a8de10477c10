"""Tests of gradient steps, Adam, and seeded streams."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cs285.infrastructure.pytorch_util import (
    adam_step,
    derive_seed,
    make_adam,
    make_generator,
    reset_moments,
    take_step,
)


def make_parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = make_generator(1, "parameters")
    shapes: list[tuple[int, ...]] = [(300,), (4, 5), ()]
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def loss_of(parameters: list[nn.Parameter], step: int) -> Tensor:
    """Return a loss whose gradients vary in size and sign by step; some are zero."""
    total = torch.zeros((), dtype=torch.float64)
    for number, parameter in enumerate(parameters):
        scale = 10.0 ** ((step + number) % 5 - 2)
        generator = make_generator(2, "loss", step, number)
        target = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        total = total + scale * ((parameter - target).relu() ** 2).sum()
    return total


def plain_adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, rate, fused=False, foreach=False)


def learn(step_of: Any, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for step in range(30):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (30 - step)  # as a schedule does
        optimizer.zero_grad()
        loss_of(parameters, step).backward()
        step_of(optimizer)


def assert_same_state(found: torch.optim.Optimizer, expected: torch.optim.Optimizer) -> None:
    by_number = [optimizer.state_dict()["state"] for optimizer in (found, expected)]
    assert by_number[0].keys() == by_number[1].keys()
    for left, right in zip(*(states.values() for states in by_number), strict=True):
        assert left.keys() == right.keys()
        for name in left:
            torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=1e-6)


def test_adam_step_equals_torch_adam() -> None:
    ours, theirs = make_parameters(), make_parameters()
    optimizer, expected = make_adam(ours, 1e-2), plain_adam(theirs, 1e-2)
    learn(adam_step, optimizer, ours)
    learn(lambda adam: adam.step(), expected, theirs)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert_same_state(optimizer, expected)


def test_adam_step_skips_a_parameter_without_a_gradient() -> None:
    used, unused = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = make_adam([used, unused], 0.1)
    used.square().sum().backward()
    adam_step(optimizer)
    assert (used < 1).all() and (unused == 1).all()


def test_make_adam_equals_torch_adam_from_the_first_step() -> None:
    ours, theirs = make_parameters(), make_parameters()
    optimizer, expected = make_adam(ours, 1e-2), plain_adam(theirs, 1e-2)
    for adam, parameters in ((optimizer, ours), (expected, theirs)):
        for step in range(3):
            take_step(adam, loss_of(parameters, step))
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert_same_state(optimizer, expected)


def test_restored_adam_takes_the_same_steps() -> None:
    ours, theirs = make_parameters(), make_parameters()
    original, restored = make_adam(ours, 1e-2), make_adam(theirs, 1e-2)
    take_step(original, loss_of(ours, 0))
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    with torch.no_grad():
        for target, source in zip(theirs, ours, strict=True):
            target.copy_(source)
    for adam, parameters in ((original, ours), (restored, theirs)):
        take_step(adam, loss_of(parameters, 1))
    for found, wanted in zip(theirs, ours, strict=True):
        assert torch.equal(found, wanted)


def test_step_changes_only_the_parameters_of_its_optimiser() -> None:
    mine, others = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 2.0))
    fixed = torch.ones(3)
    take_step(make_adam([mine], 0.1), (mine * others * fixed).sum())
    torch.testing.assert_close(mine.detach(), torch.full((3,), 0.9))
    assert others.tolist() == [2, 2, 2]
    assert others.grad is None  # no gradient accumulates for another optimiser


def test_gradients_do_not_accumulate_over_steps() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    sgd = torch.optim.SGD([parameter], 1.0)
    for _ in range(2):
        take_step(sgd, parameter.sum())
    assert parameter.tolist() == [-2, -2]


def test_streams_differ_by_seed_purpose_and_counters() -> None:
    keys: list[tuple[Any, ...]] = [
        (1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1), (1, "a", 0, 1), (1, "a", 1, 0, 2)
    ]  # fmt: skip
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds == [derive_seed(*key) for key in keys]
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("counters", [(), (3,), (3, 4)])
def test_stream_is_reproducible(counters: tuple[int, ...]) -> None:
    first, second = (torch.randn(5, generator=make_generator(1, "x", *counters)) for _ in range(2))
    assert torch.equal(first, second)


def test_adam_with_reset_moments_steps_like_a_new_one() -> None:
    ours, theirs = make_parameters(), make_parameters()
    optimizer = make_adam(ours, 1e-2)
    take_step(optimizer, loss_of(ours, 0))
    reset_moments(optimizer)
    with torch.no_grad():
        for target, source in zip(theirs, ours, strict=True):
            target.copy_(source)
    for adam, parameters in ((optimizer, ours), (make_adam(theirs, 1e-2), theirs)):
        take_step(adam, loss_of(parameters, 1))
    for found, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(found, wanted)
