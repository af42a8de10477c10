"""The feed-forward ensemble dynamics model (s', r) = f(s, a)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cs285.config.model import ModelConfig
from cs285.infrastructure.pytorch_util import Normalizer
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models import losses
from cs285.models.base_model import DynamicsModel, ModelLoss, Prediction, Step
from cs285.networks.ensemble_mlp import EnsembleMLP, LayerNorm, Masks
from cs285.networks.folded_tanh import planning_form

VALIDATION_FLOOR = 1e-6  # keeps the logarithm of a column's MSE finite in early stopping
COVERAGE_LEVELS = (50, 80, 95)  # levels of the measured central intervals, in per cent


class FFModel(DynamicsModel):
    """E networks in one ensemble, each with its own initialisation and batches.

    Each member predicts the normalised change of the observation. With `learns_reward`, it also
    predicts the normalised reward. With `--model probabilistic`, both predictions are Gaussian.
    With `--model homoscedastic`, they are Gaussian, too, but each member has one learned standard
    deviation per output. With `--termination learned`, a member also predicts the logit of
    termination. Only the elites take imagined steps; by default, all members are elites. The state
    is the observation.
    """

    elites: Tensor  # (M,), the indices of the members that predict
    weight_decay: Tensor  # (P,) with 0 for biases, or (1,) zero

    def __init__(
        self,
        ob_dim: int,
        ac_dim: int,
        config: ModelConfig,
        learns_reward: bool,
        generator: torch.Generator,
        loss: losses.Loss | None = None,
        **network: Any,
    ) -> None:
        """Build the networks from `config`; `network` overrides arguments of EnsembleMLP.

        `loss` fits the targets. By default, `--model` and `--model_loss` select it.
        """
        super().__init__()
        self.config, self.ob_dim = config, ob_dim
        self.ensemble_size = E = config.ensemble_size
        self.members = config.num_elites or E
        self.learns_reward = learns_reward
        self.learns_termination = config.termination == "learned"
        D = ob_dim + learns_reward
        self.predicts_variance = config.model == "probabilistic"
        self.noise_dim = 0 if config.model == "deterministic" else D
        self.target_loss = loss or losses.LOSSES[config.model, config.model_loss]
        self.input_stats = Normalizer(ob_dim + ac_dim)
        self.target_stats = Normalizer(D)
        self.register_buffer("elites", torch.arange(self.members))
        out_dim = D * (1 + self.predicts_variance) + self.learns_termination
        options: dict[str, Any] = {
            "widths": [ob_dim + ac_dim, *[config.size] * config.n_layers, out_dim],
            "activation": config.activation,
            "init": config.model_init,
            # The first predictions are close to the mean (docs/deviations.md).
            "output_scale": 0.1 if config.model_init == "lecun" else 1.0,
            "padded": not config.eps_by_layer,
            "layer_norm": LayerNorm(tuple(config.eps_by_layer)) if config.eps_by_layer else None,
            "dropout": config.dropout_by_layer,
        }
        self.network = EnsembleMLP(E, generator=generator, **{**options, **network})
        if self.predicts_variance:
            self.log_var_bounds = nn.Parameter(losses.first_bounds(E, D))
        elif self.noise_dim:
            self.raw_std = nn.Parameter(torch.zeros(E, 1, D))  # a std of 1, before the first fit
        self.register_buffer("weight_decay", self._decay_by_weight(), persistent=False)

    def step(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        """Take one step with every elite (see Step), differentiable in all inputs and weights."""
        tensors = self.network.of_members(self._elite_indices())
        return self._step_with(tensors, self._spread_of_elites())(state, acs, noise)

    def frozen_step(self) -> Step:
        """Return `step` with the current weights as constants (see DynamicsModel)."""
        with torch.no_grad():
            tensors = self.network.of_members(self._elite_indices())
            return self._step_with(tensors, self._spread_of_elites())

    def _step_with(self, tensors: Sequence[Tensor], spread: Tensor | None) -> Step:
        """Return the step of elites with these weights and this `spread`."""

        def step(
            state: Tensor, acs: Tensor, noise: Tensor | None = None
        ) -> tuple[Tensor, Prediction]:
            inputs = self.input_stats.normalize(_inputs(state, acs))
            return self._predict(state, self.network.apply_tensors(tensors, inputs), noise, spread)

        return step

    @torch.no_grad()
    def planning_step(self) -> Step:
        """Return the fastest form of `step`, with the current weights and without gradients."""
        stats = self.input_stats
        outputs_of = planning_form(
            self.network, self._elite_indices(), stats.mean, stats.inverse_std
        )
        spread = self._spread_of_elites()

        @torch.no_grad()
        def step(
            state: Tensor, acs: Tensor, noise: Tensor | None = None
        ) -> tuple[Tensor, Prediction]:
            return self._predict(state, outputs_of(_inputs(state, acs)), noise, spread)

        return step

    @property
    def fitted_members(self) -> int:
        """E, the number of all members, including those that are not elites."""
        return self.ensemble_size

    def choose_members(self, errors: Tensor) -> Tensor:
        """Make the M members with the lowest errors (E,) the elites; return their indices (M,)."""
        self.elites.copy_(errors.argsort()[: self.members])
        return self.elites

    @property
    def obs_scale(self) -> Tensor:
        """The std (O,) of the observations in the last fit; 0 for constant columns."""
        return self.input_stats.std[: self.ob_dim]

    def member_tensors(self) -> list[Tensor]:
        """Return all weights as views (E, ...), one row per member."""
        spread = [] if self._spread is None else [self._spread]
        return [tensor.detach() for tensor in [*self.network.tensors, *spread]]

    def fit_statistics(self, data: Transitions) -> None:
        """Fit the normalisation of inputs and targets to `data` (B rows)."""
        self.input_stats.fit(_inputs(data.obs, data.acs))
        self.target_stats.fit(self._targets(data))

    def draw_masks(self, rows: int, generator: torch.Generator) -> Masks:
        """Draw the dropout masks of a loss on `rows` rows per member, or () without dropout."""
        return self.network.draw_masks(rows, generator)

    def loss(self, batch: Transitions, masks: Masks = ()) -> ModelLoss:
        """Return the loss of a batch (E, B, ...): targets, terminations and weight decay.

        "Training Loss" is the mean squared error of the state change, in units of its variance. If
        the model learns rewards, "Reward Loss" is the mean squared error of the reward, in units of
        its variance. If it learns terminations, "Termination Loss" is their cross-entropy.
        """
        means, log_var, logits = self.outputs(batch, masks)
        targets = self.target_stats.normalize(self._targets(batch))
        by_column = self.target_loss(means, log_var, targets)
        if self.predicts_variance:
            by_column = by_column + losses.bound_penalty(self.log_var_bounds)
        by_member = self._mean_of_varying(by_column)
        mse = losses.mse(means.detach(), None, targets).mean(0)
        metrics = {"Training Loss": self._mean_of_varying(mse[: self.ob_dim])}
        if self.learns_reward:
            metrics["Reward Loss"] = mse[-1] * (self.target_stats.std[-1] > 0)
        if logits is not None:
            cross_entropy = losses.termination_loss(logits, batch.terminated.float())
            by_member = by_member + cross_entropy
            metrics["Termination Loss"] = cross_entropy.detach().mean()
        total = by_member.sum()
        if len(self.weight_decay) > 1 and not self.config.decoupled_weight_decay:
            total = total + 0.5 * (self.weight_decay * self.network.vector.square()).sum()
        return ModelLoss(total, metrics)

    @torch.no_grad()
    def decay_weights(self, learning_rate: float | Tensor) -> None:
        """Apply decoupled weight decay (AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101)."""
        if self.config.decoupled_weight_decay:
            self.network.vector.mul_(1 - learning_rate * self.weight_decay)

    def outputs(
        self, batch: Transitions, masks: Masks = ()
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Predict the normalised targets of a batch (E, B, ...) or of B rows with every member.

        Returns means (E, B, D), log-variances (E, B, D) and termination logits (E, B). The
        log-variances are None in a deterministic ensemble. The logits are None if the model does
        not learn terminations.
        """
        inputs = self.input_stats.normalize(_inputs(batch.obs, batch.acs))
        outputs = self.network(inputs.expand(self.ensemble_size, -1, -1), masks)
        return self._split_outputs(outputs, self._spread)

    @torch.no_grad()
    def evaluate(self, data: Transitions) -> dict[str, Tensor]:
        """Return the "New Data Loss" (1,) and "Coverage 50" etc. (1,) on `data` (B rows).

        The loss is the mean squared error of the state change, averaged over the elites, in units
        of the variance in the last fit's data.
        """
        errors, log_var = self._errors(data)
        mse = errors[self.elites, :, : self.ob_dim].square().mean((0, 1))
        loss = self._mean_of_varying(mse)
        return {"New Data Loss": loss[None]} | self._coverage(errors, log_var)

    @torch.no_grad()
    def validation_errors(self, data: Transitions) -> Tensor:
        """Return each member's error (E,) on the validation set `data` (B rows).

        The error is the geometric mean over columns of MSE + VALIDATION_FLOOR. The MBPO code uses
        the arithmetic mean, but columns that cannot be learned then dominate and hide progress on
        the other columns. Constant columns are left out: they have nothing to learn and would
        dilute the errors of the other columns.
        """
        errors, _ = self._errors(data)
        mse = errors.square().mean(1)
        return self._mean_of_varying((mse + VALIDATION_FLOOR).log()).exp()

    def _coverage(self, errors: Tensor, log_var: Tensor | None) -> dict[str, Tensor]:
        """Return the share of targets inside the elites' intervals, from the output of `_errors`.

        Each share (1,) is the mean over rows, elites and columns that vary. The intervals are the
        central intervals of 50, 80 and 95 per cent. If the ensemble is calibrated, the shares equal
        these levels. A deterministic ensemble has no intervals and returns no metrics.
        """
        if log_var is None:
            return {}
        deviations = (errors.abs() * (-0.5 * log_var).exp())[self.elites]
        normal = torch.distributions.Normal(0.0, 1.0)
        shares = {}
        for level in COVERAGE_LEVELS:
            limit = float(normal.icdf(torch.tensor(0.5 + level / 200)))
            share = (deviations <= limit).float().mean((0, 1))
            shares[f"Coverage {level}"] = self._mean_of_varying(share)[None]
        return shares

    def _errors(self, data: Transitions) -> tuple[Tensor, Tensor | None]:
        """Return the errors of the means on `data` (B rows) and the log-variances, (E, B, D)."""
        means, log_var, _ = self.outputs(data)
        return means - self.target_stats.normalize(self._targets(data)), log_var

    def _mean_of_varying(self, by_column: Tensor) -> Tensor:
        """Return the mean (...) of (..., D) over the target columns that vary in the fitted data.

        `by_column` may have only the first columns. There is nothing to learn about the others, and
        their predictions are constant.
        """
        varies = (self.target_stats.std > 0).float()[: by_column.shape[-1]]
        return (by_column * varies).sum(-1) / varies.sum().clamp(min=1)

    def _split_outputs(
        self, outputs: Tensor, spread: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Split outputs (E, B, out) into means, log-variances and termination logits.

        `spread` are the bounds (E, 2, 1, D) of the log-variances in a probabilistic ensemble, and
        the raw standard deviations (E, 1, D) in a homoscedastic one. In a deterministic ensemble,
        `spread` and the log-variances are None.
        """
        logits = None
        if self.learns_termination:
            outputs, logits = outputs[..., :-1], outputs[..., -1]
        if spread is None:
            return outputs, None, logits
        if not self.predicts_variance:
            return outputs, losses.shared_log_var(spread), logits
        means, raw = outputs.chunk(2, -1)
        return means, losses.bounded(raw, spread), logits

    def _predict(
        self, obs: Tensor, outputs: Tensor, noise: Tensor | None, spread: Tensor | None
    ) -> tuple[Tensor, Prediction]:
        """Return the next state and the prediction from the elites' outputs at obs (M, B, O)."""
        means, log_var, logits = self._split_outputs(outputs, spread)
        if noise is not None and log_var is not None:
            means = torch.addcmul(means, (0.5 * log_var).exp(), noise)
        change = self.target_stats.denormalize(means)
        terminated = None if logits is None else logits > 0
        if self.learns_reward:
            next_obs, rewards = obs + change[..., :-1], change[..., -1]
        else:
            next_obs, rewards = obs + change, change.new_zeros(()).expand(change.shape[:-1])
        return next_obs, Prediction(next_obs, rewards, terminated)

    @property
    def _spread(self) -> Tensor | None:
        """The weights that only the log-variances depend on (see _split_outputs), or None."""
        if self.predicts_variance:
            return self.log_var_bounds
        return self.raw_std if self.noise_dim else None

    def _spread_of_elites(self) -> Tensor | None:
        spread, elites = self._spread, self._elite_indices()
        return spread if spread is None or elites is None else spread[elites]

    def _elite_indices(self) -> Tensor | None:
        """Return the elites' indices (M,), or None if all members are elites."""
        return None if self.members == self.ensemble_size else self.elites

    def _decay_by_weight(self) -> Tensor:
        by_layer = self.config.decay_by_layer
        if not any(by_layer):
            return torch.zeros(1)
        decay = torch.zeros_like(self.network.vector)
        weights = self.network.views_of(decay)[: 2 * len(by_layer) : 2]
        for weight, value in zip(weights, by_layer, strict=True):
            weight.fill_(value)
        return decay

    def _targets(self, data: Transitions) -> Tensor:
        change = data.next_obs - data.obs
        return torch.cat([change, data.rewards[..., None]], -1) if self.learns_reward else change


def _inputs(obs: Tensor, acs: Tensor) -> Tensor:
    return torch.cat([obs, acs], -1)
