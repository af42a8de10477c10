"""Every network of this project: E multi-layer perceptrons with one flat parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

PADDED_TO = 16

Function = Callable[[Tensor], Tensor]


class Activation(NamedTuple):
    """A hidden layer's function, and the gain of the initialisation that suits it."""

    function: Function
    gain: float


def tanh_(values: Tensor) -> Tensor:
    """Return tanh of `values`, compiled for a CPU in the form that it computes faster there."""
    if torch.compiler.is_compiling() and values.device.type == "cpu":
        return 2 * torch.sigmoid(2 * values) - 1
    return torch.tanh_(values)


ACTIVATIONS = {  # in place where autograd allows it: fresh memory costs as much as the function
    "relu": Activation(torch.relu_, 3**-0.5),  # the gain of torch.nn.Linear
    "swish": Activation(nn.functional.silu, 1.0),
    "tanh": Activation(tanh_, 1.0),  # docs/algorithms.md gives the reason
}


class LayerNorm(NamedTuple):
    """Normalises what enters every layer but the first (Ba et al. 2016)."""

    eps: float | tuple[float, ...] = 1e-5  # of all those layers, or of each
    affine: bool = False  # with a learned scale and shift of each unit


class EnsembleMLP(nn.Module):
    """E networks of layer widths (in, hidden ..., out): (E, B, in) -> (E, B, out).

    All P weights are one parameter `vector`, so an optimiser's step and a target network's move are
    one operation each. Members share nothing: a loss that is summed over members gives each its own
    gradient, and each has its own initialisation, uniform with variance gain^2 / in_features for
    weights and biases (torch.nn's initialisers would take the fan of the three-dimensional tensor,
    which is wrong).

    `activation` is a name in ACTIVATIONS or any function. `dropout` is the share of hidden units
    that a forward pass with a generator sets to zero, for all hidden layers or each.

    `padded` widens hidden layers to a multiple of 16, which matrix products are faster at: 256 for
    250. The networks are the same: a padding unit has weights of zero and nothing listens to it, so
    its gradients, and with them Adam's steps, are exactly zero. This needs an activation with
    f(0) = 0, and no LayerNorm. A tanh network always gets at least one padding unit, which
    networks/folded_tanh.py uses.

    Raises ValueError: padding does not go with the activation or with LayerNorm.
    """

    def __init__(
        self,
        ensemble_size: int,
        widths: Sequence[int],
        activation: str | Function,
        generator: torch.Generator,
        *,
        output_gain: float | None = None,
        padded: bool = False,
        layer_norm: LayerNorm | None = None,
        dropout: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.ensemble_size, self.widths, self.activation = ensemble_size, widths, activation
        self.layer_norm, self.is_padded = layer_norm, padded
        hidden_layers = len(widths) - 2
        self.dropout = _for_each(dropout, hidden_layers)
        self.eps = _for_each(layer_norm.eps, hidden_layers) if layer_norm else ()
        named = ACTIVATIONS[activation] if isinstance(activation, str) else None
        self.function, gain = named or Activation(activation, 1.0)  # type: ignore[arg-type]
        if padded and (layer_norm or self.function(torch.zeros(1)) != 0):
            raise ValueError("padding needs an activation with f(0) = 0, and no LayerNorm")
        gains = [gain] * hidden_layers + [gain if output_gain is None else output_gain]
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
        if layer_norm and layer_norm.affine:
            for width in widths[1:-1]:
                tensors += [
                    torch.ones(ensemble_size, 1, width), torch.zeros(ensemble_size, 1, width)
                ]  # fmt: skip
        self.shapes = [tensor.shape for tensor in tensors]
        self.sizes = [tensor.numel() for tensor in tensors]
        self.vector = nn.Parameter(torch.cat([tensor.flatten() for tensor in tensors]))

    @property
    def tensors(self) -> list[Tensor]:
        """Every weight, bias, scale and shift as a view (E, ...): a member's are in its rows."""
        return self.views_of(self.vector)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The weights (E, in, out) and biases (E, 1, out) of each layer, views of the vector."""
        return self._layers(self.tensors)

    def views_of(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector (P,) in the shapes of `tensors`."""
        parts = vector.split(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(E, B, in) -> (E, B, out). Dropout is applied where a `generator` is given."""
        return self.apply_tensors(self.tensors, inputs, generator)

    def of_members(self, members: Tensor | None) -> list[Tensor]:
        """Return the `tensors` of some members, whose numbers are `members` (E,), or of all."""
        tensors = self.tensors
        return tensors if members is None else [tensor[members] for tensor in tensors]

    def apply_tensors(
        self, tensors: Sequence[Tensor], inputs: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Apply networks that have these `tensors` to (E, B, in)."""
        *hidden, (last_weight, last_bias) = self._layers(tensors)
        affine = tensors[2 * len(hidden) + 2 :]
        for index, (weight, bias) in enumerate(hidden):
            inputs = self.function(linear(inputs, weight, bias))
            if generator is not None and self.dropout[index]:
                inputs = _drop(inputs, self.dropout[index], generator)
            if self.layer_norm:
                inputs = nn.functional.layer_norm(inputs, inputs.shape[-1:], eps=self.eps[index])
                if affine:
                    inputs = inputs * affine[2 * index] + affine[2 * index + 1]
        return linear(inputs, last_weight, last_bias)

    def _layers(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        count = 2 * (len(self.widths) - 1)
        return list(zip(tensors[:count:2], tensors[1:count:2], strict=True))


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the products of (E, B, in) and (E, in, out), plus bias (E, 1, out): (E, B, out).

    Where out is 1, MKL's batched product is an order of magnitude slower than a sum.
    """
    if weight.shape[2] == 1:
        return (inputs * weight.transpose(1, 2)).sum(2, keepdim=True) + bias
    return torch.baddbmm(bias, inputs, weight)


def _drop(values: Tensor, share: float, generator: torch.Generator) -> Tensor:
    kept = torch.empty_like(values).bernoulli_(1 - share, generator=generator)
    return values * kept / (1 - share)


def _for_each(value: float | Sequence[float], layers: int) -> tuple[float, ...]:
    values = (value,) * layers if isinstance(value, int | float) else tuple(value)
    if len(values) != layers:
        raise ValueError(f"{len(values)} values for {layers} hidden layers")
    return values
