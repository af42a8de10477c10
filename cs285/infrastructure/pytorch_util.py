"""Devices, seeded generators, normalisation, and optimiser steps."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cs285.infrastructure.errors import UsageError

# A column is constant, up to float32 rounding, if its std is at most CONSTANT * |mean| + TINY:
# 2 to 4 units in the last place.
CONSTANT, TINY = 2.5e-7, 1e-12


def select_device(no_gpu: bool, which_gpu: int) -> torch.device:
    """Return GPU `which_gpu`, or the CPU with `no_gpu` or without any GPU.

    Raises UsageError: this machine has GPUs, but no GPU `which_gpu`.
    """
    if no_gpu or not torch.cuda.is_available():
        return torch.device("cpu")
    if which_gpu >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UsageError(f"--which_gpu {which_gpu}: must be from 0 to {last} on this machine")
    return torch.device("cuda", which_gpu)


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """Return the 63-bit seed of the stream of draws (seed, purpose, counters).

    A draw does not depend on earlier draws, on the process, or on interruptions. Use the same
    number of counters each time for one purpose, because trailing zeros do not change the seed.
    torch's CPU generator uses only the low 32 bits, so that among 1e5 streams of one purpose
    about one pair is identical.
    """
    key = [seed, zlib.crc32(purpose.encode()), *counters]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(
    seed: int, purpose: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a torch generator on `device` for the stream (seed, purpose, counters)."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, purpose, *counters))


def from_numpy(array: NDArray, device: torch.device | str = "cpu") -> Tensor:
    """Copy an array of any shape to a float32 tensor of the same shape on `device`."""
    return torch.as_tensor(np.array(array, np.float32)).to(device)


def to_numpy(tensor: Tensor) -> NDArray:
    """Return a tensor of any shape as an array; on a GPU this waits for the device."""
    return tensor.detach().cpu().numpy()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device`; a copy to a GPU is asynchronous."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


class Normalizer(nn.Module):
    """Normalises D columns by their mean and std, which are buffers of the module.

    A constant column normalises to 0 and denormalises to its mean.
    """

    mean: Tensor
    std: Tensor
    inverse_std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("inverse_std", torch.ones(dim))

    def fit(self, columns: Tensor) -> None:
        """Set mean and std to the statistics of `columns` (B, D)."""
        std, mean = torch.std_mean(columns.double(), dim=0, correction=0)
        varies = std > CONSTANT * mean.abs() + TINY
        self.mean.copy_(mean)
        self.std.copy_(torch.where(varies, std, 0.0))
        self.inverse_std.copy_(torch.where(varies, 1 / std, 0.0))

    def normalize(self, columns: Tensor) -> Tensor:
        """Map (..., D) in the data's units to (..., D) with zero mean and unit std."""
        return (columns - self.mean) * self.inverse_std

    def denormalize(self, columns: Tensor) -> Tensor:
        """Map (..., D) with zero mean and unit std to (..., D) in the data's units."""
        return torch.addcmul(self.mean, columns, self.std)


def make_adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Return Adam with zero moments, because a compiled step cannot create them."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, learning_rate, fused=True)
    for parameter in _parameters(optimizer):
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        step = torch.zeros((), device=parameter.device)
        optimizer.state[parameter] = {"step": step, **moments}
    return optimizer


def reset_moments(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimiser like a new one, in place, because compiled code refers to its tensors."""
    for state in optimizer.state.values():
        for tensor in state.values():
            tensor.zero_()


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; a tensor, which a compiled step needs, changes in place."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def make_rate_a_tensor(optimizer: torch.optim.Adam) -> None:
    """Make the learning rate a tensor: a compiled step would treat a number as a constant."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one gradient step on `loss` () for the optimiser's parameters only.

    Parameters that the loss does not use keep their values.
    """
    parameters = _parameters(optimizer)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if torch.compiler.is_compiling():
        adam_step(optimizer)
    else:
        optimizer.step()


@torch.no_grad()
def adam_step(optimizer: torch.optim.Optimizer) -> None:
    """Take a step of torch.optim.Adam, written so that a compiler can fuse it with other code.

    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1. Raises TypeError: the optimiser is not Adam, or
    it has weight decay, amsgrad or maximize.
    """
    if type(optimizer) is not torch.optim.Adam:
        raise TypeError(f"{type(optimizer).__name__}: a compiled step must use torch.optim.Adam")
    for group in optimizer.param_groups:
        if group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            raise TypeError("a compiled Adam must have no weight decay, amsgrad or maximize")
        beta1, beta2 = group["betas"]
        for parameter in group["params"]:
            state, gradient = optimizer.state[parameter], parameter.grad
            if gradient is None:
                continue
            step, mean, square = state["step"], state["exp_avg"], state["exp_avg_sq"]
            step.add_(1)
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            # expm1 computes 1 - beta**step accurately: beta2 is close to 1, so float32 would
            # lose digits in the first steps.
            rate = group["lr"] / -torch.expm1(step * math.log(beta1))
            root = square.sqrt() / (-torch.expm1(step * math.log(beta2))).sqrt()
            parameter.sub_(rate * mean / (root + group["eps"]))


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
