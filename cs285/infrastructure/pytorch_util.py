"""Devices, seeded generators, and the stacked linear layers of an ensemble."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cs285.infrastructure.errors import UsageError

PADDED_TO = 32
TANH_GAIN = nn.init.calculate_gain("tanh")
OUTPUT_GAIN = 0.1
SATURATED = 20.0  # tanh of it is 1 to the last bit
# A column whose std is below this share of its mean is a constant up to float32 rounding.
CONSTANT, TINY = 1e-6, 1e-12
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Have glibc's malloc keep freed blocks for the next tensor; elsewhere, do nothing.

    By default it hands every block over 128 kB back to the system, and a planner's or an update's
    temporaries then spend up to a third of their time on fresh zeroed pages.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)


def select_device(no_gpu: bool, which_gpu: int) -> torch.device:
    """Return the GPU asked for, or the CPU where there is none. Raises UsageError: no such GPU."""
    if no_gpu or not torch.cuda.is_available():
        return torch.device("cpu")
    if which_gpu >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UsageError(f"--which_gpu {which_gpu}: allowed are 0 to {last} on this machine")
    return torch.device("cuda", which_gpu)


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """Return the 63-bit seed of one stream of draws.

    Streams of different (seed, purpose, counters) are independent, so a draw never depends on
    what else was drawn before it, in which process, or before which interruption. A purpose always
    comes with the same number of counters: trailing zeros make no difference to the seed.
    """
    key = [seed, zlib.crc32(purpose.encode()), *counters]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(
    seed: int, purpose: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a torch generator of the stream (seed, purpose, counters) on `device`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, purpose, *counters))


def from_numpy(array: NDArray, device: torch.device | str = "cpu") -> Tensor:
    """Copy an array of any shape to a float32 tensor on `device`."""
    return torch.as_tensor(np.array(array, np.float32)).to(device)


def to_numpy(tensor: Tensor) -> NDArray:
    """Copy a tensor of any shape to an array; on a GPU this waits for the device."""
    return tensor.detach().cpu().numpy()


class Normalizer(nn.Module):
    """Mean and std of D columns, as buffers of the model.

    A constant column carries no information: it normalises to 0 and denormalises to its mean.
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
        """Take the statistics of `columns` (B, D)."""
        std, mean = torch.std_mean(columns.double(), dim=0, correction=0)
        varies = std > CONSTANT * mean.abs() + TINY
        self.mean.copy_(mean)
        self.std.copy_(torch.where(varies, std, 0.0))
        self.inverse_std.copy_(torch.where(varies, 1 / std, 0.0))

    def normalize(self, columns: Tensor) -> Tensor:
        """(..., D) in the data's units -> (..., D) of zero mean and unit std."""
        return (columns - self.mean) * self.inverse_std

    def denormalize(self, columns: Tensor) -> Tensor:
        """(..., D) of zero mean and unit std -> (..., D) in the data's units."""
        return torch.addcmul(self.mean, columns, self.std)


class EnsembleLinear(nn.Module):
    """E independent linear layers as one product: (E, B, in) -> (E, B, out).

    Weights and biases of every member are drawn uniformly with variance gain^2 / in_features. The
    initialisers of torch.nn would take the fan of the three-dimensional tensor, which is wrong.
    """

    def __init__(
        self,
        ensemble_size: int,
        in_features: int,
        out_features: int,
        generator: torch.Generator,
        gain: float = 1.0,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        """`padding` adds so many inputs and outputs of weight zero to each member."""
        super().__init__()
        bound = gain * (3 / in_features) ** 0.5
        weight = torch.empty(ensemble_size, in_features, out_features)
        bias = torch.empty(ensemble_size, 1, out_features)
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)
        more_in, more_out = padding
        self.weight = nn.Parameter(nn.functional.pad(weight, (0, more_out, 0, more_in)))
        self.bias = nn.Parameter(nn.functional.pad(bias, (0, more_out)))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)


class EnsembleMLP(nn.Module):
    """E tanh networks of layer widths (in, hidden ..., out): (E, B, in) -> (E, B, out).

    Hidden layers are padded beyond their width to a multiple of 32, which matrix products are
    faster at: 256 for 250. The networks are the same: a padding unit is tanh(0) = 0 and nothing
    listens to it, so its gradients, and with them Adam's steps, are exactly zero. There is always
    one, which `fold_biases` makes use of.

    The initial gains matter where the gradient steps are few (docs/algorithms.md): 5/3 keeps the
    variance through tanh, and a small last layer starts from predicting the mean.
    """

    def __init__(
        self, ensemble_size: int, widths: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.widths = widths
        spare = [0, *(PADDED_TO - width % PADDED_TO for width in widths[1:-1]), 0]
        gains = [TANH_GAIN] * (len(widths) - 2) + [OUTPUT_GAIN]
        self.layers = nn.ModuleList(
            EnsembleLinear(ensemble_size, in_features, out_features, generator, gain, padding)
            for (in_features, out_features), gain, padding in zip(
                pairwise(widths), gains, pairwise(spare), strict=True
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            inputs = layer(inputs).tanh_()  # in place: fresh pages cost as much as the tanh
        return last(inputs)

    @torch.no_grad()
    def fold_biases(self) -> list[Tensor]:
        """Return each layer's weights with its biases as one more input that is always 1.

        The first layer gets a row for it, (E, in + 1, hidden). In a hidden layer the first padding
        unit is that input: tanh(20) is exactly 1 in float32. See `apply_folded`.
        """
        folded = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, EnsembleLinear)
            if index == 0:
                weight = torch.cat([layer.weight, layer.bias], 1)
            else:
                weight = layer.weight.clone()
                weight[:, self.widths[index]] = layer.bias[:, 0]
            if index + 1 < len(self.layers):
                one = -1 if index == 0 else self.widths[index]
                weight[:, one, self.widths[index + 1]] = SATURATED
            folded.append(weight)
        return folded


def apply_folded(weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Apply the networks of `fold_biases` to (E, B, in + 1), whose last column is 1.

    Without gradients. It saves the pass over memory that adding a bias is, a tenth of the time.
    """
    *hidden, last = weights
    for weight in hidden:
        inputs = torch.bmm(inputs, weight).tanh_()
    return torch.bmm(inputs, last)
