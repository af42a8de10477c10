"""Helpers of the checks: comparison with a message, and fakes for the neighbours of a blank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from cs285.assignment.blanks import WrongError
from cs285.infrastructure.value_types import shortened
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.policies.base_policy import Memory

Mistakes = Sequence[tuple[str, Any]]  # (a description, the value that this mistake gives)


def require(condition: Any, message: str) -> None:
    """Raise WrongError with `message` unless `condition` holds."""
    if not condition:
        raise WrongError(message)


def expect(
    what: str, got: Any, expected: Any, mistakes: Mistakes = (), tolerance: float = 1e-5
) -> None:
    """Raise WrongError unless `got` equals `expected` up to `tolerance`.

    `expected` is a number, an array or a tensor. If it is a tensor, `got` must be a tensor of the
    same dtype, because the code that uses it needs one. NaN equals NaN. If `got` equals the value
    of one of the `mistakes`, the message names it.
    """
    if isinstance(expected, torch.Tensor):
        require_tensor(what, got, expected.dtype)
    right = _array(expected)
    values = _array(got)
    if values is None or right is None:
        if got is not expected:
            raise WrongError(f"{what}: expected {shown(expected)}, got {shown(got)}")
        return
    if values.shape == right.shape and _close(values, right, tolerance):
        return
    likely = ""
    for text, value in mistakes:
        other = _array(value)
        if other is not None and other.shape == values.shape and _close(values, other, tolerance):
            likely = f"; likely mistake: {text}"
            break
    if values.shape != right.shape:
        sizes = f"expected the shape {right.shape}, got {values.shape}"
        raise WrongError(f"{what}: {sizes}{likely}")
    raise WrongError(f"{what}: expected {shown(expected)}, got {shown(got)}{likely}")


def require_tensor(what: str, got: Any, dtype: torch.dtype = torch.float32) -> None:
    """Raise WrongError unless `got` is a tensor with this dtype."""
    kind = f"must be a tensor with dtype {dtype}"
    text = "None" if got is None else f"{type(got).__name__} {shown(got)}"
    require(isinstance(got, torch.Tensor), f"{what}: {kind}, got {text}")
    require(got.dtype == dtype, f"{what}: {kind}, got {got.dtype}")


def returned(function: str, got: Any, count: int = 1, kind: type = object) -> Any:
    """Return what a function returned. Raises WrongError unless it is `count` values, or a `kind`.

    With `count` 1, the value may be anything but None.
    """
    require(got is not None, f"`{function}` returned None")
    number = len(got) if isinstance(got, tuple) else 1
    require(count in (1, number), f"`{function}` must return {count} values, got {number}")
    name = type(got).__name__
    require(isinstance(got, kind), f"`{function}` must return a {kind.__name__}, got a {name}")
    return got


@contextmanager
def unchanged(**inputs: torch.Tensor) -> Iterator[None]:
    """Raise WrongError if code changes one of the tensors that it gets."""
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    yield
    for name, tensor in inputs.items():
        expect(f"`{name}` after the call, which must not change it", tensor, before[name])


def shown(value: Any) -> str:
    """Return a value as short text, with at most eight numbers."""
    array = _array(value)
    if array is None:
        return shortened(value)
    numbers = [f"{number:.5g}" for number in array.flatten()[:8]]
    if array.ndim == 0:
        return numbers[0]
    return f"[{', '.join(numbers)}{', ...' if array.size > 8 else ''}]"


def _array(value: Any) -> np.ndarray | None:
    """Return a number, array, tensor or list of them as float64, or None for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        return None if value is None else np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError):  # the last one from tensors in a list
        return None


def _close(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def gradient(result: torch.Tensor, of: torch.Tensor) -> torch.Tensor | None:
    """Return the gradient of the sum of `result`, or None if it does not depend on `of`."""
    if not result.requires_grad:
        return None
    return torch.autograd.grad(result.sum(), of, allow_unused=True, retain_graph=True)[0]


def generator(seed: int = 1) -> torch.Generator:
    """Return a seeded generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def memories(count: int) -> list[Memory]:
    """Return the memories of `count` environments, with different generators."""
    return [Memory(generator(seed)) for seed in range(1, count + 1)]


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Replace attributes of a module or an object, and restore them afterwards."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


class ShiftingModel(DynamicsModel):
    """Known dynamics with one state per gain: member i predicts s' = s + gain_i * (sum of a).

    The reward is the first column of the noise, or 0 without noise.
    """

    def __init__(self, *gains: float) -> None:
        super().__init__()
        self.members = len(gains)
        self.gains = torch.tensor(gains)[:, None, None]

    def step(
        self, state: torch.Tensor, acs: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Prediction]:
        """See DynamicsModel."""
        require(
            state.dim() == acs.dim() == 3 and state.shape[:2] == acs.shape[:2],
            f"a step of the model needs states (M, R, S) and actions (M, R, A), got "
            f"{tuple(state.shape)} and {tuple(acs.shape)}",
        )
        next_obs = state + self.gains * acs.sum(-1, keepdim=True)
        rewards = torch.zeros(next_obs.shape[:-1]) if noise is None else noise[..., 0]
        return next_obs, Prediction(next_obs, rewards, None)


class Affine(nn.Module):
    """Statistics that normalise by (x - shift) / scale, and record what they are fitted to."""

    def __init__(self, dim: int, shift: float, scale: float) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale
        self.std = torch.ones(dim)
        self.fitted: list[torch.Tensor] = []

    def fit(self, columns: torch.Tensor) -> None:
        """Record the columns."""
        self.fitted.append(columns)

    def normalize(self, columns: torch.Tensor) -> torch.Tensor:
        """Return (columns - shift) / scale."""
        return (columns - self.shift) / self.scale

    def denormalize(self, columns: torch.Tensor) -> torch.Tensor:
        """Return columns * scale + shift."""
        return columns * self.scale + self.shift
