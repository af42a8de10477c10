"""The form of tanh networks that plans: the same function, with all that can be folded in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cs285.infrastructure.stacked_mlp import product

OUTPUTS_PADDED_TO = 8
SATURATED = 20.0  # the sigmoid of it is 1 to the last bit


@torch.no_grad()
def fold(
    layers: Sequence[tuple[Tensor, Tensor]], widths: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Return the function that applies padded tanh networks to (E, B, in + 1), without gradients.

    `layers` and `widths` are a StackedMLP's. The last input is to be the constant 1. Two passes
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
