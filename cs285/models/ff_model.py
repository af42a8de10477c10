"""The feed-forward ensemble dynamics model (s', r) = f(s, a)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cs285.infrastructure.model_config import ModelConfig
from cs285.infrastructure.pytorch_util import Normalizer
from cs285.infrastructure.replay_buffer import Transitions
from cs285.infrastructure.stacked_mlp import StackedMLP
from cs285.models.heads import EndingHead, GaussianHead, Head, PointHead
from cs285.models.prediction import Predict, Prediction, normalised_step

OUTPUT_GAIN = 0.1  # a small last layer starts from predicting the mean (docs/algorithms.md)


class FFModel(nn.Module):
    """E networks in one stack, each with its own initialisation and batches.

    Predicts the normalised change of the observation, with `learns_reward` the reward too, and with
    `--termination learned` whether the episode ends: each as a point, or with `--model
    probabilistic` as a Gaussian. Its elites, by default all members, are those that predict.
    """

    elites: Tensor  # (number of elites,), the members' numbers
    weight_decay: Tensor  # (P,), or (1,) zero; biases have none

    def __init__(
        self,
        ob_dim: int,
        ac_dim: int,
        config: ModelConfig,
        learns_reward: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config, self.ob_dim = config, ob_dim
        self.ensemble_size = E = config.ensemble_size
        self.num_elites = config.num_elites or E
        self.learns_reward = learns_reward
        self.learns_termination = config.termination == "learned"
        self.target_dim = D = ob_dim + learns_reward
        self.is_probabilistic = config.model == "probabilistic"
        self.input_stats = Normalizer(ob_dim + ac_dim)
        self.target_stats = Normalizer(D)
        self.register_buffer("elites", torch.arange(self.num_elites))
        out_dim = D * (1 + self.is_probabilistic) + self.learns_termination
        widths = [ob_dim + ac_dim, *[config.size] * config.n_layers, out_dim]
        self.network = StackedMLP(E, widths, config.activation, generator, OUTPUT_GAIN, padded=True)
        # After the networks: parameters() is then in the order of a fit's gradients.
        head = GaussianHead(E, D, config.mean_loss) if self.is_probabilistic else PointHead()
        self.head: Head = EndingHead(head) if self.learns_termination else head
        self.register_buffer("weight_decay", self._decay_by_weight(), persistent=False)

    def fit_statistics(self, data: Transitions) -> None:
        """Take the statistics of inputs and targets over `data` (B rows)."""
        self.input_stats.fit(_inputs(data.obs, data.acs))
        self.target_stats.fit(self._targets(data))

    def regression_data(self, data: Transitions) -> tuple[Tensor, Tensor]:
        """Return the normalised inputs (B, O+A) and targets of `data`.

        The targets' columns (B, O) are followed by the reward and by whether the episode ended,
        where they are learned; the latter is 0 or 1.
        """
        inputs = self.input_stats.normalize(_inputs(data.obs, data.acs))
        targets = self.target_stats.normalize(self._targets(data))
        if self.learns_termination:
            targets = torch.cat([targets, data.terminated[:, None].float()], -1)
        return inputs, targets

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised inputs (E, B, O+A) -> means of the normalised targets (E, B, O or O+1)."""
        return self.head.moments(self.network(inputs))[0]

    @torch.no_grad()
    def predictor(self) -> Predict:
        """Return the function that takes one step with every elite as it is trained now."""
        members = None if self.num_elites == self.ensemble_size else self.elites
        step = normalised_step(self.network, members, self.input_stats)

        def predict(obs: Tensor, acs: Tensor, noise: Tensor | None = None) -> Prediction:
            outputs = step(obs, acs)
            mean, log_var = self.head.moments(outputs, members)
            if noise is not None and log_var is not None:
                mean = torch.addcmul(mean, (0.5 * log_var).exp(), noise)
            change = self.target_stats.denormalize(mean)
            ended = outputs[..., -1] > 0 if self.learns_termination else None
            if self.learns_reward:
                return Prediction(obs + change[..., :-1], change[..., -1], ended)
            return Prediction(obs + change, change.new_zeros(()).expand(change.shape[:-1]), ended)

        return predict

    @property
    def noise_dim(self) -> int:
        """The dimension of the noise that a step can be drawn with; 0 for points."""
        return self.target_dim if self.is_probabilistic else 0

    def member_tensors(self) -> list[Tensor]:
        """Return all weights as views (E, ...): what is a member's is in its rows."""
        layers = [tensor for layer in self.network.layers for tensor in layer]
        return [*layers, *self.head.parameters()]

    def _decay_by_weight(self) -> Tensor:
        by_layer = self.config.decay_by_layer
        if not any(by_layer):
            return torch.zeros(1)
        decay = torch.zeros_like(self.network.vector)
        for (weights, _), value in zip(self.network.view_layers(decay), by_layer, strict=True):
            weights.fill_(value)
        return decay

    def _targets(self, data: Transitions) -> Tensor:
        change = data.next_obs - data.obs
        return torch.cat([change, data.rewards[:, None]], -1) if self.learns_reward else change


def _inputs(obs: Tensor, acs: Tensor) -> Tensor:
    return torch.cat([obs, acs], -1)
