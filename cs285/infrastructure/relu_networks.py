"""ReLU networks as one stack with one vector of weights, and their gradients written out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cs285.infrastructure.pytorch_util import EnsembleLinear

LINEAR_GAIN = 3**-0.5  # the variance gain of torch.nn.Linear's initialisation


class StackedReLU(nn.Module):
    """E ReLU networks of layer widths (in, hidden ..., out): (E, B, in) -> (E, B, out).

    All P weights are one vector, which makes an optimiser's step and a target network's move one
    operation each. The gradients are those of autograd, which a test holds them to, without its
    overhead. Weights and biases start as torch.nn.Linear's do.
    """

    def __init__(
        self, ensemble_size: int, widths: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        layers = [
            EnsembleLinear(ensemble_size, *p, generator, LINEAR_GAIN) for p in pairwise(widths)
        ]
        tensors = [tensor.detach() for layer in layers for tensor in (layer.weight, layer.bias)]
        self.shapes = [tensor.shape for tensor in tensors]
        self.vector = nn.Parameter(torch.cat([tensor.flatten() for tensor in tensors]))

    def layers(self, vector: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return views of a vector (P,): by layer weights (E, in, out) and biases (E, 1, out)."""
        parts = vector.split([shape.numel() for shape in self.shapes])
        views = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.activations(inputs)[-1]

    def activations(self, inputs: Tensor) -> list[Tensor]:
        """Return the inputs (E, B, in), what each hidden layer makes of them, and the outputs."""
        values = [inputs]
        *hidden, last = self.layers(self.vector)
        for weight, bias in hidden:
            values.append(torch.baddbmm(bias, values[-1], weight).relu_())
        weight, bias = last
        return [*values, torch.baddbmm(bias, values[-1], weight)]

    @torch.no_grad()
    def gradient(self, activations: Sequence[Tensor], d_outputs: Tensor) -> Tensor:
        """Return the gradient (P,) of a loss from its gradient by the outputs (E, B, out)."""
        vector = torch.empty_like(self.vector)
        layers = zip(self.layers(self.vector), self.layers(vector), activations, strict=False)
        for index, ((weight, _), (d_weight, d_bias), inputs) in reversed(list(enumerate(layers))):
            torch.bmm(inputs.transpose(1, 2), d_outputs, out=d_weight)
            torch.sum(d_outputs, 1, keepdim=True, out=d_bias)
            if index > 0:
                d_outputs = _through_relu(d_outputs, weight, inputs)
        return vector

    @torch.no_grad()
    def input_gradient(
        self, activations: Sequence[Tensor], d_outputs: Tensor, columns: slice
    ) -> Tensor:
        """Return the gradient of a loss by some columns of the inputs, (E, B, columns)."""
        (first, _), *others = self.layers(self.vector)
        for (weight, _), inputs in zip(reversed(others), reversed(activations[1:-1]), strict=True):
            d_outputs = _through_relu(d_outputs, weight, inputs)
        return torch.bmm(d_outputs, first[:, columns].transpose(1, 2))


def _through_relu(d_outputs: Tensor, weight: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient before the ReLU that made a layer's `inputs`, (E, B, in)."""
    d_inputs = torch.bmm(d_outputs, weight.transpose(1, 2))
    return torch.ops.aten.threshold_backward.grad_input(d_inputs, inputs, 0, grad_input=d_inputs)
