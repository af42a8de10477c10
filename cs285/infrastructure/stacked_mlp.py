"""E networks as one stack with one vector of weights, and their gradients written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

PADDED_TO = 16
WORTH_SHARING = 2**20  # multiplications in a product that threads had better share


class Activation(NamedTuple):
    """A hidden layer's function, and its derivative."""

    apply_: Callable[[Tensor], Tensor]  # in place: fresh pages cost as much as the function
    backward_: Callable[[Tensor, Tensor], Tensor]  # (gradient, saved) -> gradient, in place
    gain: float  # of the initialisation, see StackedMLP
    saves_inputs: bool = False  # `saved` is what went in, not what came out


class Trace(NamedTuple):
    """A forward pass, and what the gradients need of it."""

    inputs: list[Tensor]  # (E, B, in) of every layer
    saved: list[Tensor]  # (E, B, out) of every hidden layer, see Activation
    outputs: Tensor  # (E, B, out)


def tanh_(values: Tensor) -> Tensor:
    """Apply tanh in place, on CPU as 1 - 2 sigmoid(-2x): torch's sigmoid is much faster.

    The two differ by less than 2e-7.
    """
    if values.device.type != "cpu":
        return values.tanh_()
    return torch.add(values.new_ones(()), values.mul_(-2).sigmoid_(), alpha=-2, out=values)


def _relu_backward_(gradient: Tensor, outputs: Tensor) -> Tensor:
    into = torch.ops.aten.threshold_backward.grad_input
    return into(gradient, outputs, 0, grad_input=gradient)


def _swish_backward_(gradient: Tensor, inputs: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward.grad_input(gradient, inputs, grad_input=gradient)


def _tanh_backward_(gradient: Tensor, outputs: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward.grad_input(gradient, outputs, grad_input=gradient)


ACTIVATIONS = {
    "relu": Activation(torch.relu_, _relu_backward_, 3**-0.5),  # the gain of torch.nn.Linear
    "swish": Activation(torch.ops.aten.silu_, _swish_backward_, 1.0, saves_inputs=True),
    "tanh": Activation(tanh_, _tanh_backward_, 1.0),  # docs/algorithms.md says why,
}


class StackedMLP(nn.Module):
    """E networks of layer widths (in, hidden ..., out): (E, B, in) -> (E, B, out).

    All P weights are one vector, which makes an optimiser's step and a target network's move one
    operation each. The gradients are those of autograd, which a test holds them to, without its
    overhead; autograd records nothing here.

    Every member has an initialisation of its own, uniform of variance gain^2 / in_features for
    weights and biases. torch.nn's initialisers would take the fan of the three-dimensional tensor,
    which is wrong.

    `padded` widens hidden layers to a multiple of 16, which matrix products are faster at: 256 for
    250. The networks are the same: a padding unit has weights of zero and nothing listens to it,
    so its gradients, and with them Adam's steps, are exactly zero. Of tanh there is always at least
    one, which models/folded_tanh.py makes use of.
    """

    def __init__(
        self,
        ensemble_size: int,
        widths: Sequence[int],
        activation: str,
        generator: torch.Generator,
        output_gain: float | None = None,
        padded: bool = False,
    ) -> None:
        super().__init__()
        self.ensemble_size, self.widths, self.activation = ensemble_size, widths, activation
        hidden_gain = ACTIVATIONS[activation].gain
        gains = [hidden_gain] * (len(widths) - 2)
        gains.append(hidden_gain if output_gain is None else output_gain)
        least = int(activation == "tanh")
        spare = [least + -(width + least) % PADDED_TO if padded else 0 for width in widths[1:-1]]
        tensors: list[Tensor] = []
        for (in_features, out_features), gain, (more_in, more_out) in zip(
            pairwise(widths), gains, pairwise([0, *spare, 0]), strict=True
        ):
            bound = gain * (3 / in_features) ** 0.5
            weight = torch.empty(ensemble_size, in_features, out_features)
            bias = torch.empty(ensemble_size, 1, out_features)
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
            tensors.append(nn.functional.pad(weight, (0, more_out, 0, more_in)))
            tensors.append(nn.functional.pad(bias, (0, more_out)))
        self.shapes = [tensor.shape for tensor in tensors]
        vector = torch.cat([tensor.flatten() for tensor in tensors])
        self.vector = nn.Parameter(vector, requires_grad=False)
        self._layers = self.view_layers(self.vector)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The weights (E, in, out) and biases (E, 1, out) of each layer, views of the vector."""
        # A compiled function is to know that they are; in eager mode making views takes its time.
        return self.view_layers(self.vector) if torch.compiler.is_compiling() else self._layers

    def view_layers(self, vector: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return views of a vector (P,): by layer weights (E, in, out) and biases (E, 1, out)."""
        parts = vector.split([shape.numel() for shape in self.shapes])
        views = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.applying(self.layers)(inputs)

    def applying(self, layers: Sequence[tuple[Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
        """Return the function that applies `layers`, of all members or some, to (E, B, in)."""
        *hidden, (last_weight, last_bias) = layers
        apply_ = ACTIVATIONS[self.activation].apply_

        def apply(inputs: Tensor) -> Tensor:
            for weight, bias in hidden:
                inputs = apply_(affine(bias, inputs, weight))
            return affine(last_bias, inputs, last_weight)

        return apply

    def trace(self, inputs: Tensor) -> Trace:
        """Apply the networks to (E, B, in), for a gradient."""
        *hidden, (last_weight, last_bias) = self.layers
        apply_, _, _, saves_inputs = ACTIVATIONS[self.activation]
        values, saved = [inputs], []
        for weight, bias in hidden:
            before = affine(bias, values[-1], weight)
            values.append(apply_(before.clone() if saves_inputs else before))
            saved.append(before)  # what came out, where it was applied in place
        return Trace(values, saved, affine(last_bias, values[-1], last_weight))

    def gradient(self, trace: Trace, d_outputs: Tensor) -> Tensor:
        """Return the gradient (P,) of a loss from its gradient by the outputs (E, B, out)."""
        vector = torch.empty_like(self.vector)
        layers = zip(self.layers, self.view_layers(vector), trace.inputs, strict=True)
        for index, ((weight, _), (d_weight, d_bias), inputs) in reversed(list(enumerate(layers))):
            product(inputs.transpose(1, 2), d_outputs, out=d_weight)
            torch.sum(d_outputs, 1, keepdim=True, out=d_bias)
            if index > 0:
                d_outputs = self._through_layer(d_outputs, weight, trace.saved[index - 1])
        return vector

    def input_gradient(self, trace: Trace, d_outputs: Tensor, columns: slice) -> Tensor:
        """Return the gradient of a loss by some columns of the inputs, (E, B, columns)."""
        (first, _), *others = self.layers
        for (weight, _), saved in zip(reversed(others), reversed(trace.saved), strict=True):
            d_outputs = self._through_layer(d_outputs, weight, saved)
        return product(d_outputs, first[:, columns].transpose(1, 2))

    def _through_layer(self, d_outputs: Tensor, weight: Tensor, saved: Tensor) -> Tensor:
        """Return the gradient before the activation that made a layer's inputs, (E, B, in)."""
        d_inputs = product(d_outputs, weight.transpose(1, 2))
        return ACTIVATIONS[self.activation].backward_(d_inputs, saved)

    # Parameters and their views part when copied, pickled or moved: make the views anew.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_layers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._layers = self.view_layers(self.vector)

    def _apply(self, *arguments: Any, **options: Any) -> StackedMLP:
        super()._apply(*arguments, **options)
        self._layers = self.view_layers(self.vector)
        return self


def product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the E products of (E, i, j) and (E, j, k), (E, i, k).

    Where j or k is 1, MKL's batched product is an order of magnitude slower than this.
    """
    if right.shape[2] == 1:
        return torch.sum(left * right.transpose(1, 2), 2, keepdim=True, out=out)
    if left.shape[2] == 1:
        return torch.mul(left, right, out=out)
    if _leaves_threads_idle(left, right):
        out = left.new_empty(*left.shape[:2], right.shape[2]) if out is None else out
        return _odd_one_apart(torch.bmm, torch.mm, (left, right), out)
    return torch.bmm(left, right, out=out)


def affine(bias: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """Return bias (E, 1, out) + the products of (E, B, in) and (E, in, out), (E, B, out)."""
    if weight.shape[2] == 1:
        return product(inputs, weight) + bias
    if _leaves_threads_idle(inputs, weight):
        out = inputs.new_empty(*inputs.shape[:2], weight.shape[2])
        return _odd_one_apart(torch.baddbmm, torch.addmm, (bias, inputs, weight), out)
    return torch.baddbmm(bias, inputs, weight)


def _leaves_threads_idle(left: Tensor, right: Tensor) -> bool:
    """Return whether a batched product of E (i, j) and (j, k) has an odd one out.

    On CPU each of them is one thread's, and the last one leaves the others idle. This goes neither
    by the number of threads nor for small products, since the last bits of a result would then
    depend on that number.
    """
    E, i, j = left.shape
    is_large = i * j * right.shape[2] >= WORTH_SHARING
    return left.device.type == "cpu" and is_large and E > 1 and E % 2 == 1


def _odd_one_apart(
    batched: Callable[..., Tensor],
    single: Callable[..., Tensor],
    operands: Sequence[Tensor],
    out: Tensor,
) -> Tensor:
    """Fill `out` (E, i, k), E odd: E - 1 products as one batch, the last by all threads."""
    batched(*(operand[:-1] for operand in operands), out=out[:-1])
    single(*(operand[-1] for operand in operands), out=out[-1])
    return out
