"""Fit a model: so many gradient steps, or until it no longer gets better on held-out data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cs285.config.model import ModelConfig
from cs285.infrastructure.pytorch_util import send, set_learning_rate, take_step
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions, pack, unpack
from cs285.models.base_model import DynamicsModel

PEAK_RATE = 5  # of a fit of so many steps, in units of --learning_rate
MOST_HELD_OUT = 5000  # transitions
EPOCH_STEPS = (15, 32)  # least and most gradient steps of an epoch, by which patience counts
WORTH_COUNTING = 0.01  # the share by which a held-out loss must fall to count as better


def gradient_step(
    model: DynamicsModel, optimizer: torch.optim.Optimizer, batch: Transitions
) -> dict[str, Tensor]:
    """Take one gradient step on a batch (E, B, ...); returns its metrics, () each."""
    loss = model.loss(batch)
    take_step(optimizer, loss.total)
    return {name: value.detach() for name, value in loss.metrics.items()}


Update = Callable[[DynamicsModel, torch.optim.Optimizer, Transitions], dict[str, Tensor]]


class Fit:
    """The gradient steps of one fit on `data` (B rows), and their metrics."""

    def __init__(
        self,
        model: DynamicsModel,
        optimizer: torch.optim.Optimizer,
        data: Transitions,
        update: Update,
    ) -> None:
        model.fit_statistics(data)
        self.model, self.optimizer, self.update = model, optimizer, update
        self.rows, self.dims = pack(data), (data.obs.shape[1], data.acs.shape[1])
        self.curves: dict[str, list[Tensor]] = defaultdict(list)
        self.steps = 0

    def step(self, indices: Tensor, rate: float = 1.0) -> None:
        """Take a gradient step on the rows with these `indices` (E, batch) or (E, batch, T).

        `rate` is the learning rate, as a multiple of the one that the optimiser was made with.
        """
        set_learning_rate(self.optimizer, rate * self.optimizer.defaults["lr"])
        rows = self.rows.index_select(0, indices.flatten()).unflatten(0, indices.shape)
        metrics = self.update(self.model, self.optimizer, unpack(rows, *self.dims))
        for name, value in metrics.items():
            self.curves[name].append(value)
        self.steps += 1

    def metrics(self) -> dict[str, Tensor]:
        """Return the metrics of each step (steps,), and the "Weight Norm" (1,).

        The norm is not finite if the fit has diverged in its last step.
        """
        weights = torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])
        curves = {name: torch.stack(values) for name, values in self.curves.items()}
        return curves | {"Weight Norm": weights.norm()[None]}


def fit(
    model: DynamicsModel,
    optimizer: torch.optim.Optimizer,
    replay: ReplayBuffer,
    config: ModelConfig,
    generator: torch.Generator,
    update: Update = gradient_step,
) -> dict[str, Tensor]:
    """Fit a model to the whole replay as `config` asks; returns the metrics of the fit."""
    data = replay.all()
    if config.holdout_ratio > 0:
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
    return fit_ensemble(model, optimizer, data, send(indices, data.obs.device), update)


def fit_ensemble(
    model: DynamicsModel,
    optimizer: torch.optim.Optimizer,
    data: Transitions,
    indices: Tensor,
    update: Update = gradient_step,
) -> dict[str, Tensor]:
    """Take one gradient step per row of `indices` (steps, E, B), row numbers of `data`.

    One Adam over all members equals E Adams, as the loss is summed over members. The learning rate
    falls in a line, from PEAK_RATE times the optimiser's own to nothing: early steps go far, and
    late ones average over the batches' noise (docs/algorithms.md). Returns the metrics of the fit.
    """
    fit = Fit(model, optimizer, data, update)
    steps = len(indices)
    for step, rows in enumerate(indices):
        fit.step(rows, PEAK_RATE * (steps - step) / (steps + 1))
    return fit.metrics()


def fit_until_converged(
    model: DynamicsModel,
    optimizer: torch.optim.Optimizer,
    data: Transitions,
    config: ModelConfig,
    generator: torch.Generator,
    update: Update = gradient_step,
) -> dict[str, Tensor]:
    """Fit to a part of `data` until no member has got better on the rest for some epochs.

    Each member learns from its own bootstrap sample, and ends with the weights of its best epoch;
    the elites are then those of the lowest held-out losses. `num_agent_train_steps_per_iter` is the
    most gradient steps there may be. Janner et al. 2019, arXiv:1906.08253, and its code.

    Returns the metrics of the fit, "Fit Epochs", the elites' "Validation Loss", and what `coverage`
    does where the ensemble is probabilistic; (1,) each. The device is waited for once per epoch.
    """
    device = data.obs.device
    order = send(torch.randperm(len(data.rewards), generator=generator), device)
    held = min(max(int(config.holdout_ratio * len(order)), 1), MOST_HELD_OUT)
    if len(order) < 2:  # a row to learn from is needed more
        held_out = train = data
    else:
        held_out = Transitions(*(column[order[:held]] for column in data))
        train = Transitions(*(column[order[held:]] for column in data))
    fit = Fit(model, optimizer, train, update)
    batches = _bootstrap_epochs(model.fitted_members, len(train.rewards), config, generator)
    best = _BestWeights(model)
    stale = epochs = 0
    while stale <= config.fit_patience and fit.steps < config.num_agent_train_steps_per_iter:
        for rows in next(batches)[: config.num_agent_train_steps_per_iter - fit.steps]:
            fit.step(send(rows, device))
        improved = best.update(model.validation_errors(held_out))
        stale, epochs = (0 if improved else stale + 1), epochs + 1
    best.restore()
    chosen = model.choose_members(best.losses)
    metrics = fit.metrics()
    metrics["Fit Epochs"] = torch.full((1,), float(epochs), device=device)
    metrics["Validation Loss"] = best.losses[chosen].mean()[None]
    coverage = {n: v for n, v in model.evaluate(held_out).items() if n.startswith("Coverage")}
    return metrics | coverage


def _bootstrap_epochs(
    E: int, rows: int, config: ModelConfig, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield epoch after epoch the row numbers of its batches, (batches, E, batch).

    Every member goes through the sample it drew, in an order of its own; what is left over of less
    than a batch is for another pass. An epoch is a pass, but of EPOCH_STEPS: of few rows several
    passes, since some epochs of a batch or two are no sign that a fit has converged; of many rows
    a part of one, since a refit need not go through all data six times to find that it has.
    """
    least, most = EPOCH_STEPS
    sample = torch.randint(rows, (E, rows), generator=generator)
    batch = min(config.train_batch_size, rows)

    def run_epoch() -> Tensor:
        order = torch.rand(E, rows, generator=generator).argsort(1)
        shuffled = sample.gather(1, order)[:, : rows - rows % batch]
        return shuffled.view(E, -1, batch).transpose(0, 1)

    in_a_pass = rows // batch
    passes, parts = -(-least // in_a_pass), -(-in_a_pass // most)
    while True:
        yield from torch.cat([run_epoch() for _ in range(passes)]).tensor_split(parts)


class _BestWeights:
    """Copies of each member's weights at its best epoch."""

    def __init__(self, model: DynamicsModel) -> None:
        self.now = model.member_tensors()
        self.kept = [tensor.clone() for tensor in self.now]
        self.losses = torch.full((model.fitted_members,), torch.inf, device=self.now[0].device)

    def update(self, losses: Tensor) -> bool:
        """Keep the members that are better by `losses` (E,); return whether there is one."""
        better = losses < (1 - WORTH_COUNTING) * self.losses
        self.losses = torch.where(better, losses, self.losses)
        for kept, now in zip(self.kept, self.now, strict=True):
            kept.copy_(torch.where(better.view(-1, *[1] * (now.dim() - 1)), now, kept))
        return bool(better.any())

    def restore(self) -> None:
        """Give the model the weights that were kept."""
        for kept, now in zip(self.kept, self.now, strict=True):
            now.copy_(kept)
