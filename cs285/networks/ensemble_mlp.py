"""The network class of cs285: E multi-layer perceptrons with one flat parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

PADDED_TO = 16

Function = Callable[[Tensor], Tensor]
Masks = Sequence[Tensor | None]  # the dropout mask (E, B, width) of each hidden layer; () for none


def tanh_(values: Tensor) -> Tensor:
    """Return tanh of `values`, in a form that is faster in code compiled for a CPU."""
    if torch.compiler.is_compiling() and values.device.type == "cpu":
        return 2 * torch.sigmoid(2 * values) - 1
    return torch.tanh_(values)


ACTIVATIONS: dict[str, Function] = {  # in place if autograd allows it: new memory costs time
    "relu": torch.relu_,
    "swish": nn.functional.silu,
    "tanh": tanh_,
}
# Initial weights and biases are uniform with variance gain^2 / in_features, as in torch.nn.Linear,
# LeCun et al. 1998, or He et al. 2015 (arXiv:1502.01852). With "orthogonal", weights are random
# orthogonal matrices (Saxe et al. 2014, arXiv:1312.6120), and biases are zero.
GAINS = {"torch": 3**-0.5, "lecun": 1.0, "he": 2**0.5}


class LayerNorm(NamedTuple):
    """Normalises the outputs of every hidden layer (Ba et al. 2016)."""

    eps: float | tuple[float, ...] = 1e-5  # one for all hidden layers, or one each; 0: no LayerNorm
    affine: bool = False  # True: each unit has a learned scale and shift


class EnsembleMLP(nn.Module):
    """E networks with layer widths (in, hidden ..., out): (E, B, in) -> (E, B, out).

    All P weights are one parameter `vector`, so an optimiser step and a target update are one
    operation each. Members share nothing. If a loss is summed over members, each member gets its
    own gradient. Each member has its own initial weights: `init` is a name in GAINS, or orthogonal.
    In the last layer, they are multiplied by `output_scale`.

    `activation` is a name in ACTIVATIONS or any function. `dropout` is the share of hidden units
    that a forward pass with `masks` sets to zero: one for all hidden layers, or one per layer.

    `padded` widens hidden layers to a multiple of 16 (250 to 256), because matrix products are then
    faster. Padding does not change the networks. The weights to and from a padding unit are zero,
    so their gradients and Adam steps are exactly zero. Padding needs an activation with f(0) = 0,
    and no LayerNorm. A tanh network always gets at least one padding unit, because
    networks/folded_tanh.py uses it.

    Raises ValueError: the activation or LayerNorm does not allow padding, or the number of dropout
    or eps values is not the number of hidden layers.
    """

    def __init__(
        self,
        ensemble_size: int,
        widths: Sequence[int],
        activation: str | Function,
        generator: torch.Generator,
        *,
        init: str = "torch",
        output_scale: float = 1.0,
        padded: bool = False,
        layer_norm: LayerNorm | None = None,
        dropout: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.ensemble_size, self.widths, self.activation = ensemble_size, widths, activation
        self.layer_norm, self.is_padded = layer_norm, padded
        hidden_layers = len(widths) - 2
        self.dropout = _per_layer(dropout, hidden_layers)
        self.eps = _per_layer(layer_norm.eps, hidden_layers) if layer_norm else ()
        self.function: Function = (
            ACTIVATIONS[activation] if isinstance(activation, str) else activation
        )
        if padded and (layer_norm or self.function(torch.zeros(1)) != 0):
            raise ValueError("padded: must be False with LayerNorm or if activation(0) is not 0")
        scales = [1.0] * hidden_layers + [output_scale]
        least = int(activation == "tanh")
        padding = [least + -(width + least) % PADDED_TO if padded else 0 for width in widths[1:-1]]
        tensors: list[Tensor] = []
        for (in_features, out_features), scale, (more_in, more_out) in zip(
            pairwise(widths), scales, pairwise([0, *padding, 0]), strict=True
        ):
            weight = torch.empty(ensemble_size, in_features, out_features)
            bias = torch.empty(ensemble_size, 1, out_features)
            _draw(init, scale, weight, bias, generator)
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
        """All weights, biases, scales and shifts as views (E, ...), one row per member."""
        return self.views_of(self.vector)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The weights (E, in, out) and biases (E, 1, out) of each layer, as views of the vector."""
        return self._layers(self.tensors)

    def views_of(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector (P,) in the shapes of `tensors`."""
        parts = vector.split(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def forward(self, inputs: Tensor, masks: Masks = ()) -> Tensor:
        """Apply the networks: (E, B, in) -> (E, B, out). Dropout needs `masks`."""
        return self.apply_tensors(self.tensors, inputs, masks)

    def draw_masks(self, rows: int, generator: torch.Generator) -> Masks:
        """Draw the dropout masks of a forward pass with B `rows`, or () without dropout."""
        if not any(self.dropout):
            return ()
        shapes = [(self.ensemble_size, rows, width) for width in self._hidden_widths()]
        return tuple(
            draw_mask(shape, share, generator) if share else None
            for shape, share in zip(shapes, self.dropout, strict=True)
        )

    def of_members(self, members: Tensor | None) -> list[Tensor]:
        """Return the `tensors` of the members with the indices `members`, or of all members."""
        tensors = self.tensors
        return tensors if members is None else [tensor[members] for tensor in tensors]

    def apply_tensors(self, tensors: Sequence[Tensor], inputs: Tensor, masks: Masks = ()) -> Tensor:
        """Apply the networks with these `tensors`: (E, B, in) -> (E, B, out)."""
        *hidden, (last_weight, last_bias) = self._layers(tensors)
        affine = tensors[2 * len(hidden) + 2 :]
        for index, (weight, bias) in enumerate(hidden):
            inputs = self.function(linear(inputs, weight, bias))
            mask = masks[index] if masks else None
            if mask is not None:
                inputs = inputs * mask
            if self.layer_norm and self.eps[index] > 0:
                inputs = nn.functional.layer_norm(inputs, inputs.shape[-1:], eps=self.eps[index])
                if affine:
                    inputs = inputs * affine[2 * index] + affine[2 * index + 1]
        return linear(inputs, last_weight, last_bias)

    def _hidden_widths(self) -> list[int]:
        """Return the width of each hidden layer, with its padding."""
        return [shape[2] for shape in self.shapes[: 2 * len(self.dropout) : 2]]

    def _layers(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        count = 2 * (len(self.widths) - 1)
        return list(zip(tensors[:count:2], tensors[1:count:2], strict=True))


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the products of (E, B, in) and (E, in, out) plus bias (E, 1, out): (E, B, out).

    If out is 1, MKL's batched product is an order of magnitude slower than a sum.
    """
    if weight.shape[2] == 1:
        return (inputs * weight.transpose(1, 2)).sum(2, keepdim=True) + bias
    return torch.baddbmm(bias, inputs, weight)


def draw_mask(shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """Return independent factors: 0 with probability `share`, otherwise 1 / (1 - share).

    The gaps between zeros have a geometric distribution. To draw them is faster than one draw per
    factor, because few factors are zero.
    """
    count, device = math.prod(shape), generator.device
    zeros = count * share + 10 * math.sqrt(count * share) + 20  # more are too improbable to occur
    gaps = torch.empty(int(zeros), dtype=torch.float64, device=device)
    places = gaps.geometric_(share, generator=generator).cumsum(0).long() - 1
    mask = torch.full((count + 1,), 1 / (1 - share), device=device)
    mask[places.clamp(max=count)] = 0.0  # the spare last factor takes the places outside
    return mask[:count].view(*shape)


def _draw(
    init: str, scale: float, weight: Tensor, bias: Tensor, generator: torch.Generator
) -> None:
    """Draw the initial weight (E, in, out) and bias (E, 1, out) of a layer in place."""
    if init == "orthogonal":
        for member in weight:
            nn.init.orthogonal_(member, scale, generator)
        bias.zero_()
        return
    # The initialisers of torch.nn would compute a wrong fan from the three-dimensional tensor.
    bound = GAINS[init] * scale * (3 / weight.shape[1]) ** 0.5
    weight.uniform_(-bound, bound, generator=generator)
    bias.uniform_(-bound, bound, generator=generator)


def _per_layer(value: float | Sequence[float], layers: int) -> tuple[float, ...]:
    values = (value,) * layers if isinstance(value, int | float) else tuple(value)
    if len(values) != layers:
        raise ValueError(f"{len(values)} values for {layers} hidden layers: must be one per layer")
    return values
