"""The feed-forward ensemble dynamics model (s', r) = f(s, a)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cs285.infrastructure.config import ModelConfig
from cs285.infrastructure.pytorch_util import Normalizer, take_step
from cs285.infrastructure.replay_buffer import Transitions
from cs285.infrastructure.stacked_mlp import StackedMLP
from cs285.models.folded_tanh import fold

NOISE_FLOOR = 1e-3  # a column known this well, in units of its variance, needs no more weight
OUTPUT_GAIN = 0.1  # a small last layer starts from predicting the mean (docs/algorithms.md)

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class FFModel(nn.Module):
    """E tanh networks in one stack, each with its own initialisation and batches.

    Predicts the normalised change of the observation and, with `learns_reward`, the reward.
    """

    def __init__(
        self,
        ob_dim: int,
        ac_dim: int,
        config: ModelConfig,
        learns_reward: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.ob_dim = ob_dim
        self.ensemble_size = config.ensemble_size
        self.learns_reward = learns_reward
        out_dim = ob_dim + learns_reward
        self.input_stats = Normalizer(ob_dim + ac_dim)
        self.target_stats = Normalizer(out_dim)
        widths = [ob_dim + ac_dim, *[config.size] * config.n_layers, out_dim]
        self.network = StackedMLP(
            config.ensemble_size, widths, "tanh", generator, OUTPUT_GAIN, padded=True
        )

    def fit_statistics(self, data: Transitions) -> None:
        """Take the statistics of inputs and targets over `data` (B rows)."""
        self.input_stats.fit(_inputs(data.obs, data.acs))
        self.target_stats.fit(self._targets(data))

    def regression_data(self, data: Transitions) -> tuple[Tensor, Tensor]:
        """Return the normalised inputs (B, O+A) and targets (B, O or O+1) of `data`."""
        inputs = self.input_stats.normalize(_inputs(data.obs, data.acs))
        return inputs, self.target_stats.normalize(self._targets(data))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised inputs (E, B, O+A) -> normalised targets (E, B, O or O+1)."""
        return self.network(inputs)

    @torch.no_grad()
    def predictor(self) -> Predict:
        """Return the function that takes one step with every member as it is trained now.

        obs (E, B, O), acs (E, B, A) -> next observations (E, B, O), and rewards (E, B), which are
        0 where the model does not learn them.
        """
        network = fold(self.network)
        # One more input of mean 0 and scale 1 brings the constant 1 through the normalisation.
        mean = nn.functional.pad(self.input_stats.mean, (0, 1))
        inverse_std = nn.functional.pad(self.input_stats.inverse_std, (0, 1), value=1.0)
        one = mean.new_ones(1, 1, 1)

        def predict(obs: Tensor, acs: Tensor) -> tuple[Tensor, Tensor]:
            inputs = torch.cat([obs, acs, one.expand(*obs.shape[:-1], 1)], -1)
            outputs = network(inputs.sub_(mean).mul_(inverse_std))
            change = self.target_stats.denormalize(outputs)
            if self.learns_reward:
                return obs + change[..., :-1], change[..., -1]
            return obs + change, change.new_zeros(()).expand(change.shape[:-1])

        return predict

    def _targets(self, data: Transitions) -> Tensor:
        change = data.next_obs - data.obs
        return torch.cat([change, data.rewards[:, None]], -1) if self.learns_reward else change


def _inputs(obs: Tensor, acs: Tensor) -> Tensor:
    return torch.cat([obs, acs], -1)


@torch.no_grad()
def holdout_loss(model: FFModel, data: Transitions) -> Tensor:
    """Return the mean squared error () of the state change on `data`, which `model` has not seen.

    Averaged over members, in units of the variance that the model was fitted with.
    """
    inputs, targets = model.regression_data(data)
    errors = model(inputs.expand(model.ensemble_size, -1, -1)) - targets
    return errors[..., : model.ob_dim].square().mean()


class FitGradient(NamedTuple):
    """What a gradient step on the ensemble needs, and its losses."""

    gradient: Tensor  # (P,)
    losses: Tensor  # (O or O+1,), mean squared errors by column, over batch and members


@torch.no_grad()
def fit_gradient(network: StackedMLP, inputs: Tensor, targets: Tensor) -> FitGradient:
    """Differentiate the mean over columns of log(MSE + NOISE_FLOOR), summed over members.

    Of normalised inputs (E, B, O+A) and targets (E, B, O or O+1); MSE (E, O or O+1) is each
    member's over its batch. This is the negative log-likelihood of a Gaussian with one variance per
    column, at the variance that fits best: a column that is mostly noise is not listened to for it.
    """
    trace = network.trace(inputs)
    errors = trace.outputs - targets
    mse = errors.square().mean(1, keepdim=True)
    gradient = network.gradient(trace, errors * (2 / errors[0].numel() / (mse + NOISE_FLOOR)))
    return FitGradient(gradient, mse.mean((0, 1)))


@torch.no_grad()
def fit_ensemble(
    model: FFModel,
    optimizer: torch.optim.Optimizer,
    data: Transitions,
    indices: Tensor,
    differentiate: Callable[[StackedMLP, Tensor, Tensor], FitGradient] = fit_gradient,
) -> dict[str, Tensor]:
    """Take one gradient step per row of `indices` (steps, E, B), row numbers of `data`.

    The loss is summed over members: no member's gradient then depends on another's, and one Adam
    over the stack equals E Adams. Returns the mean squared errors of each step, averaged over
    members: "Training Loss" (steps,) of the state change in units of its variance, "Reward Loss"
    (steps,) where the reward is learned, and after the last step the "Weight Norm" (1,), which is
    not finite if the fit has diverged.
    """
    model.fit_statistics(data)
    inputs, targets = model.regression_data(data)
    network, pairs = model.network, torch.cat([inputs, targets], 1)  # a batch is then one gather
    pairs_widths = [inputs.shape[1], targets.shape[1]]
    losses_by_column = torch.empty(indices.shape[0], targets.shape[1], device=targets.device)
    for step, rows in enumerate(indices):
        batch = pairs.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        found = differentiate(network, *batch.split(pairs_widths, -1))
        take_step(optimizer, found.gradient)
        losses_by_column[step] = found.losses
    losses = {"Training Loss": losses_by_column[:, : model.ob_dim].mean(1)}
    if model.learns_reward:
        losses["Reward Loss"] = losses_by_column[:, -1]
    losses["Weight Norm"] = network.vector.norm()[None]
    return losses
