"""The form of an ensemble that plans: fast, and without gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cs285.networks.ensemble_mlp import EnsembleMLP
from cs285.networks.threads import map_on_threads

OUTPUTS_PADDED_TO = 8
SATURATED = 20.0  # the sigmoid of it is 1 to the last bit
ROWS_AT_ONCE = 512  # on a CPU: what hidden layers return then stays in the caches
WORTH_SHARING = 2**20  # multiplications in a product that threads had better share


@torch.no_grad()
def planning_form(
    network: EnsembleMLP, members: Tensor | None, mean: Tensor, inverse_std: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return the function from raw inputs (E, B, in) to outputs (E, B, out), without gradients.

    Of the networks as they are now, all or some `members` (E,); inputs are normalised by `mean` and
    `inverse_std` (in,). Padded tanh networks are folded (`fold`), others applied as they are. On a
    CPU, blocks of rows are computed one after the other, or beside each other where cores are idle.
    """
    tensors = network.of_members(members)
    if network.activation == "tanh" and network.is_padded:
        apply = fold(list(zip(tensors[::2], tensors[1::2], strict=True)), network.widths)
        # One more input of mean 0 and scale 1 brings the constant 1 through the normalisation.
        mean = nn.functional.pad(mean, (0, 1))
        inverse_std = nn.functional.pad(inverse_std, (0, 1), value=1.0)
        ones = mean.new_ones(1, 1, 1)
    else:
        ones = mean.new_ones(1, 1, 0)
        apply = functools.partial(network.apply_tensors, tensors)

    @torch.no_grad()
    def outputs(inputs: Tensor) -> Tensor:
        inputs = torch.cat([inputs, ones.expand(*inputs.shape[:-1], -1)], -1)
        inputs = inputs.sub_(mean).mul_(inverse_std)
        if inputs.device.type != "cpu":
            return apply(inputs)
        blocks = inputs.chunk(-(-inputs.shape[1] // ROWS_AT_ONCE), 1)
        return torch.cat(map_on_threads(apply, blocks), 1)

    return outputs


def fold(
    layers: Sequence[tuple[Tensor, Tensor]], widths: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Return the function that applies padded tanh networks to (E, B, in + 1), without gradients.

    `layers` and `widths` are an EnsembleMLP's. The last input is to be the constant 1. Two passes
    over memory are saved, together half of the time on CPU:

    - tanh(z) = 2 sigmoid(2z) - 1, and torch's sigmoid is much faster there than its tanh: the
      factors go into the weights and the -1 into the next layer's biases.
    - Biases are the weights of one more input that is always 1: the given one at first, then the
      first padding unit of each hidden layer, which is made sigmoid(20), exactly 1 in float32.

    It returns (E, B, out) as the network would, but for rounding.
    """
    folded = []
    for index, (weight, bias) in enumerate(layers):
        is_last = index + 1 == len(layers)
        if index == 0:
            rows, one = torch.cat([weight, bias], 1), weight.shape[1]
        else:
            rows, one = 2 * weight, widths[index]
            rows[:, one] = bias[:, 0] - weight.sum(1)
        if not is_last:
            rows = 2 * rows
            rows[:, one, widths[index + 1]] = SATURATED
        folded.append(rows)
    width = widths[-1]
    hidden, last = folded[:-1], nn.functional.pad(folded[-1], (0, -width % OUTPUTS_PADDED_TO))

    def apply(inputs: Tensor) -> Tensor:
        for rows in hidden:
            inputs = product(inputs, rows).sigmoid_()
        return product(inputs, last)[..., :width]

    return apply


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the E products of (E, i, j) and (E, j, k), (E, i, k), without gradients.

    On a CPU each of them is one thread's. Where E is odd the last one would leave the others idle:
    all threads share it. This goes neither by the number of threads nor for small products, since
    the last bits of a result would then depend on that number.
    """
    E, i, j = left.shape
    is_large = i * j * right.shape[2] >= WORTH_SHARING
    if left.device.type != "cpu" or not is_large or E == 1 or E % 2 == 0:
        return torch.bmm(left, right)
    out = left.new_empty(E, i, right.shape[2])
    torch.bmm(left[:-1], right[:-1], out=out[:-1])
    torch.mm(left[-1], right[-1], out=out[-1])
    return out
