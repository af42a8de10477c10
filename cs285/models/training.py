"""Fits of a dynamics model: a fixed number of gradient steps, or early stopping."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cs285.config.model import ModelConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import send, set_learning_rate, take_step
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions, pack, unpack
from cs285.models.base_model import DynamicsModel
from cs285.networks.ensemble_mlp import Masks

MAX_HELD_OUT = 5000  # transitions in the validation set
MIN_EPOCH_STEPS = 15  # gradient steps; --fit_patience counts epochs
MIN_IMPROVEMENT = 0.01  # relative decrease of a validation loss that counts as better


def gradient_step(
    model: DynamicsModel,
    optimizer: torch.optim.Optimizer,
    batch: Transitions,
    masks: Masks = (),
) -> dict[str, Tensor]:
    """Take one gradient step on a batch (E, B, ...), and return its metrics, () each."""
    loss = model.loss(batch, masks) if masks else model.loss(batch)
    take_step(optimizer, loss.total)
    model.decay_weights(optimizer.param_groups[0]["lr"])
    return {name: value.detach() for name, value in loss.metrics.items()}


Update = Callable[..., dict[str, Tensor]]  # with the arguments of `gradient_step`


class Fit:
    """The gradient steps of one fit to `data` (B rows), and their metrics."""

    def __init__(
        self,
        model: DynamicsModel,
        optimizer: torch.optim.Optimizer,
        data: Transitions,
        update: Update,
        generator: torch.Generator | None = None,
    ) -> None:
        """Start a fit; `generator` draws the dropout masks, if the model has dropout."""
        model.fit_statistics(data)
        self.model, self.optimizer, self.update = model, optimizer, update
        self.generator = generator
        self.rows, self.dims = pack(data), (data.obs.shape[1], data.acs.shape[1])
        self.curves: dict[str, list[Tensor]] = defaultdict(list)
        self.steps = 0

    def step(self, indices: Tensor, rate: float = 1.0) -> None:
        """Take a gradient step on the rows of data at `indices` (E, batch) or (E, batch, T).

        The learning rate is `rate` times the optimiser's default.
        """
        set_learning_rate(self.optimizer, rate * self.optimizer.defaults["lr"])
        batch, masks = self._batch(indices), self._masks(indices.shape[1])
        self._record(self.update(self.model, self.optimizer, batch, masks))
        self.steps += 1

    @torch.no_grad()
    def evaluate(self, indices: Tensor) -> None:
        """Append the metrics of the current weights on the rows of data at `indices`."""
        self._record(self.model.loss(self._batch(indices)).metrics)

    def metrics(self) -> dict[str, Tensor]:
        """Return the metrics of each step (steps,) and the "Weight Norm" (1,).

        The metrics of a step are computed before its update. Only the norm shows divergence in the
        last update.
        """
        weights = torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])
        curves = {name: torch.stack(values) for name, values in self.curves.items()}
        return curves | {"Weight Norm": weights.norm()[None]}

    def _batch(self, indices: Tensor) -> Transitions:
        rows = self.rows.index_select(0, indices.flatten()).unflatten(0, indices.shape)
        return unpack(rows, *self.dims)

    def _masks(self, rows: int) -> Masks:
        if self.generator is None:
            return ()
        device = self.rows.device
        masks = self.model.draw_masks(rows, self.generator)
        return tuple(None if mask is None else send(mask, device) for mask in masks)

    def _record(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.curves[name].append(value)


def fit(
    model: DynamicsModel,
    optimizer: torch.optim.Optimizer,
    replay: ReplayBuffer,
    config: ModelConfig,
    generator: torch.Generator,
    update: Update = gradient_step,
) -> dict[str, Tensor]:
    """Fit a model to the whole replay buffer with the settings in `config`; return the metrics.

    Raises UsageError: --holdout_ratio is above 0 for a model that is fitted to sequences.
    """
    data = replay.all()
    if config.holdout_ratio > 0:
        if model.sequence_length is not None:
            raise UsageError(
                f"--holdout_ratio {config.holdout_ratio}: must be 0 for a model that is fitted to "
                "sequences"
            )
        return fit_until_converged(model, optimizer, data, config, generator, update)
    shape = (
        config.num_agent_train_steps_per_iter,
        model.fitted_members,
        config.train_batch_size,
    )
    if model.sequence_length is None:
        indices = torch.randint(len(data.rewards), shape, generator=generator)
    else:
        indices = replay.sample_sequences(shape, model.sequence_length, generator)
    peak = config.learning_rate_peak if config.learning_rate_schedule == "falling" else None
    indices = send(indices, data.obs.device)
    return fit_ensemble(model, optimizer, data, indices, update, peak, generator)


def fit_ensemble(
    model: DynamicsModel,
    optimizer: torch.optim.Optimizer,
    data: Transitions,
    indices: Tensor,
    update: Update = gradient_step,
    peak: float | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Take one gradient step per entry of `indices` (steps, E, B), and return the fit's metrics.

    `indices` are row numbers of `data`. One Adam over all members equals E Adams, because the loss
    is summed over members. The learning rate is the optimiser's default. With `peak`, it decreases
    linearly from `peak` times the default to 0: early steps are large, and late steps average out
    the minibatch noise (docs/dynamics_model.md). `generator` draws the dropout masks; without it,
    there is no dropout.
    """
    fit = Fit(model, optimizer, data, update, generator)
    steps = len(indices)
    for step, rows in enumerate(indices):
        fit.step(rows, 1.0 if peak is None else peak * (steps - step) / (steps + 1))
    return fit.metrics()


def fit_until_converged(
    model: DynamicsModel,
    optimizer: torch.optim.Optimizer,
    data: Transitions,
    config: ModelConfig,
    generator: torch.Generator,
    update: Update = gradient_step,
) -> dict[str, Tensor]:
    """Fit to a part of `data`, with early stopping by the validation losses on the other part.

    The fit stops after more than `fit_patience` epochs in which no member improved, and at the
    latest after `num_agent_train_steps_per_iter` gradient steps. Each member learns from its own
    bootstrap sample, and ends with the weights of its best epoch. The members with the lowest
    validation losses become the elites. Janner et al. 2019, arXiv:1906.08253, and its code.

    Returns the metrics of the fit, "Fit Epochs" (1,) and the elites' "Validation Loss" (1,). Waits
    for the device once per epoch.
    """
    device = data.obs.device
    order = send(torch.randperm(len(data.rewards), generator=generator), device)
    split = min(max(int(config.holdout_ratio * len(order)), 1), MAX_HELD_OUT)
    if len(order) < 2:  # one row cannot be split, so both sets get it
        validation = train = data
    else:
        validation = data.each(lambda column: column[order[:split]])
        train = data.each(lambda column: column[order[split:]])
    fit = Fit(model, optimizer, train, update, generator)
    batches = _bootstrap_epochs(model.fitted_members, len(train.rewards), config, generator)
    best = _BestWeights(model)
    stale = epochs = 0
    while stale <= config.fit_patience and fit.steps < config.num_agent_train_steps_per_iter:
        for indices in next(batches)[: config.num_agent_train_steps_per_iter - fit.steps]:
            rows = send(indices, device)
            fit.step(rows)
        improved = best.update(model.validation_errors(validation))
        stale, epochs = (0 if improved else stale + 1), epochs + 1
    best.restore()
    fit.evaluate(rows)  # the logged metrics belong to the restored weights
    chosen = model.choose_members(best.losses)
    metrics = fit.metrics()
    metrics["Fit Epochs"] = torch.full((1,), float(epochs), device=device)
    metrics["Validation Loss"] = best.losses[chosen].mean()[None]
    return metrics


def _bootstrap_epochs(
    E: int, rows: int, config: ModelConfig, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield the row numbers (batches, E, batch) of one epoch after another.

    Each member draws one bootstrap sample, and shuffles it for each pass. Rows that do not fill a
    batch are left out of the pass. An epoch is one pass. With few rows, it is several passes: a few
    epochs of one or two batches each do not show that a fit has converged.
    """
    sample = torch.randint(rows, (E, rows), generator=generator)
    batch = min(config.train_batch_size, rows)

    def shuffled_pass() -> Tensor:
        order = torch.rand(E, rows, generator=generator).argsort(1)
        shuffled = sample.gather(1, order)[:, : rows - rows % batch]
        return shuffled.view(E, -1, batch).transpose(0, 1)

    passes = -(-MIN_EPOCH_STEPS // (rows // batch))
    while True:
        yield torch.cat([shuffled_pass() for _ in range(passes)])


class _BestWeights:
    """Copies of each member's weights from its best epoch."""

    def __init__(self, model: DynamicsModel) -> None:
        self.current = model.member_tensors()
        self.best = [tensor.clone() for tensor in self.current]
        self.losses = torch.full((model.fitted_members,), torch.inf, device=self.current[0].device)

    def update(self, losses: Tensor) -> bool:
        """Copy the weights of members whose `losses` (E,) improved; return whether any did."""
        better = losses < (1 - MIN_IMPROVEMENT) * self.losses
        self.losses = torch.where(better, losses, self.losses)
        for best, current in zip(self.best, self.current, strict=True):
            best.copy_(torch.where(better.view(-1, *[1] * (current.dim() - 1)), current, best))
        return bool(better.any())

    def restore(self) -> None:
        """Copy the best weights back into the model."""
        for best, current in zip(self.best, self.current, strict=True):
            current.copy_(best)
