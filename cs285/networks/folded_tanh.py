"""The planning form of an ensemble: fast, and without gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cs285.networks.ensemble_mlp import EnsembleMLP
from cs285.networks.threads import map_on_threads

OUTPUTS_PADDED_TO = 8
SATURATED = 20.0  # its sigmoid is exactly 1 in float32
ROWS_AT_ONCE = 512  # per chunk on a CPU: the outputs of hidden layers then stay in the caches
WORTH_SHARING = 2**20  # least multiplications of a product that threads share


@torch.no_grad()
def planning_form(
    network: EnsembleMLP, members: Tensor | None, mean: Tensor, inverse_std: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return the function from raw inputs (M, B, in) to outputs (M, B, out), without gradients.

    The function uses the current weights of the networks with the indices `members` (M,), or of all
    networks. It normalises inputs by `mean` and `inverse_std` (in,). It folds padded tanh networks
    (see `fold`). On a CPU, it computes chunks of rows, in parallel if cores are idle.
    """
    tensors = network.of_members(members)
    if network.activation == "tanh" and network.is_padded:
        apply = fold(list(zip(tensors[::2], tensors[1::2], strict=True)), network.widths)
        # An extra input with mean 0 and scale 1: normalisation does not change the constant 1.
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
        chunks = inputs.chunk(-(-inputs.shape[1] // ROWS_AT_ONCE), 1)
        return torch.cat(map_on_threads(apply, chunks), 1)

    return outputs


def fold(
    layers: Sequence[tuple[Tensor, Tensor]], widths: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Return the function that applies padded tanh networks to (E, B, in + 1), without gradients.

    `layers` and `widths` come from an EnsembleMLP. The last input must be the constant 1. The
    function returns the outputs (E, B, out) of the networks, up to rounding. Folding saves two
    passes over memory, together half of the time on a CPU:

    - tanh(z) = 2 sigmoid(2z) - 1, and torch's sigmoid is much faster on a CPU than its tanh. The
      factors move into the weights, and the -1 moves into the biases of the next layer.
    - Biases become the weights of an extra input that is always 1. In the first layer, it is the
      last input. In later layers, it is the first padding unit of the hidden layer before. This
      unit is sigmoid(20), exactly 1 in float32.
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
    """Return the E products (E, i, k) of (E, i, j) and (E, j, k), without gradients.

    On a CPU, one thread computes each product. If E is odd, the last product would leave the other
    threads idle, so all threads share it. Small products are not shared, and the choice does not
    depend on the number of threads. Otherwise, the last bits of the result would depend on it.
    """
    E, i, j = left.shape
    is_large = i * j * right.shape[2] >= WORTH_SHARING
    if left.device.type != "cpu" or not is_large or E == 1 or E % 2 == 0:
        return torch.bmm(left, right)
    out = left.new_empty(E, i, right.shape[2])
    torch.bmm(left[:-1], right[:-1], out=out[:-1])
    torch.mm(left[-1], right[-1], out=out[-1])
    return out
