"""One imagined step of the ensemble: its form, and the function that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cs285.infrastructure.pytorch_util import Normalizer
from cs285.infrastructure.stacked_mlp import StackedMLP
from cs285.models.folded_tanh import fold

ROWS_AT_ONCE = 512  # on CPU: what hidden layers return then stays in the caches


class Prediction(NamedTuple):
    """What comes of a step, as each of E members has it; or, without E, as the ensemble has it."""

    next_obs: Tensor  # (E, B, O)
    rewards: Tensor  # (E, B), 0 where the model does not learn them
    ended: Tensor | None  # (E, B) bool: the episode ends with it; None where it is not learned

    def each(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """Return a prediction whose parts are changed alike."""
        ended = None if self.ended is None else change(self.ended)
        return Prediction(change(self.next_obs), change(self.rewards), ended)


class Predict(Protocol):
    """Takes one step with every elite: obs (E, B, O), acs (E, B, A).

    With standard normal `noise` (E, B, O), or (E, B, O + 1) where the reward is learned, a Gaussian
    ensemble draws from its distributions; without it, it returns their means.
    """

    def __call__(self, obs: Tensor, acs: Tensor, noise: Tensor | None = None) -> Prediction: ...


def normalised_step(
    network: StackedMLP, members: Tensor | None, stats: Normalizer
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function from obs (E, B, O) and acs (E, B, A) to the outputs (E, B, out).

    Of the networks as they are now, all or some `members` (E,); `stats` are those of the inputs.
    """
    layers = network.layers
    if members is not None:
        layers = [(weight[members], bias[members]) for weight, bias in layers]
    if network.activation == "tanh":
        apply = fold(layers, network.widths)
        # One more input of mean 0 and scale 1 brings the constant 1 through the normalisation.
        mean = nn.functional.pad(stats.mean, (0, 1))
        inverse_std = nn.functional.pad(stats.inverse_std, (0, 1), value=1.0)
    else:
        apply, mean, inverse_std = network.applying(layers), stats.mean, stats.inverse_std
    ones = mean.new_ones(1, 1, len(mean) - len(stats.mean))

    def outputs(obs: Tensor, acs: Tensor) -> Tensor:
        inputs = torch.cat([obs, acs, ones.expand(*obs.shape[:-1], -1)], -1)
        inputs = inputs.sub_(mean).mul_(inverse_std)
        if inputs.device.type != "cpu":
            return apply(inputs)
        blocks = -(-inputs.shape[1] // ROWS_AT_ONCE)
        return torch.cat([apply(block) for block in inputs.chunk(blocks, 1)], 1)

    return outputs
