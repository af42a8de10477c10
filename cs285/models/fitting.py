"""Fit the ensemble: so many gradient steps, or until it no longer gets better on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cs285.infrastructure.model_config import ModelConfig
from cs285.infrastructure.pytorch_util import send, take_step
from cs285.infrastructure.replay_buffer import Transitions
from cs285.infrastructure.stacked_mlp import StackedMLP
from cs285.models.ff_model import FFModel
from cs285.models.heads import Head
from cs285.models.held_out import coverage, validation_errors

PEAK_RATE = 5  # of a fit of so many steps, in units of --learning_rate
MOST_HELD_OUT = 5000  # transitions
EPOCH_STEPS = (15, 32)  # least and most gradient steps of an epoch, by which patience counts
WORTH_COUNTING = 0.01  # the share by which a held-out loss must fall to count as better


class FitGradient(NamedTuple):
    """What a gradient step on the ensemble needs, and its losses."""

    gradients: tuple[Tensor, ...]  # by the networks' weights (P,), then by the head's parameters
    losses: Tensor  # (columns of the targets,), over batch and members


Differentiate = Callable[[StackedMLP, Head, Tensor, Tensor, Tensor], FitGradient]


@torch.no_grad()
def fit_gradient(
    network: StackedMLP, head: Head, weight_decay: Tensor, inputs: Tensor, targets: Tensor
) -> FitGradient:
    """Differentiate the head's loss, summed over members, and half of `weight_decay` |weights|^2.

    Of normalised inputs (E, B, O+A) and targets (E, B, columns); `weight_decay` is (P,), or (1,)
    zero.
    """
    trace = network.trace(inputs)
    found = head.gradient(trace.outputs, targets)
    gradient = network.gradient(trace, found.outputs)
    if len(weight_decay) > 1:
        gradient = gradient.addcmul_(network.vector, weight_decay)
    return FitGradient((gradient, *found.parameters), found.losses)


class Fit:
    """The gradient steps of one fit, on regression data of B rows, and their losses."""

    def __init__(
        self,
        model: FFModel,
        optimizer: torch.optim.Optimizer,
        data: Transitions,
        differentiate: Differentiate,
    ) -> None:
        self.model, self.optimizer, self.differentiate = model, optimizer, differentiate
        inputs, targets = model.regression_data(data)
        self.pairs = torch.cat([inputs, targets], 1)  # a batch is then one gather
        self.widths = [inputs.shape[1], targets.shape[1]]
        self.losses: list[Tensor] = []

    def step(self, rows: Tensor, rate: float = 1.0) -> None:
        """Take a gradient step on `rows` (E, batch), numbers of the data's rows.

        `rate` is the learning rate, as a multiple of the one that the optimiser was made with.
        """
        batch = self.pairs.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        model = self.model
        found = self.differentiate(
            model.network, model.head, model.weight_decay, *batch.split(self.widths, -1)
        )
        self.optimizer.param_groups[0]["lr"] = rate * self.optimizer.defaults["lr"]
        take_step(self.optimizer, *found.gradients)
        self.losses.append(found.losses)

    def metrics(self) -> dict[str, Tensor]:
        """Return the losses of each step, averaged over members, and the "Weight Norm" (1,).

        "Training Loss" (steps,) is the mean squared error of the state change in units of its
        variance; where they are learned, "Reward Loss" is the reward's and "Termination Loss" the
        cross-entropy. The norm is not finite if the fit has diverged in its last step.
        """
        model, by_column = self.model, torch.stack(self.losses)
        metrics = {"Training Loss": by_column[:, : model.ob_dim].mean(1)}
        if model.learns_reward:
            metrics["Reward Loss"] = by_column[:, model.ob_dim]
        if model.learns_termination:
            metrics["Termination Loss"] = by_column[:, -1]
        return metrics | {"Weight Norm": model.network.vector.norm()[None]}


@torch.no_grad()
def fit_ensemble(
    model: FFModel,
    optimizer: torch.optim.Optimizer,
    data: Transitions,
    indices: Tensor,
    differentiate: Differentiate = fit_gradient,
) -> dict[str, Tensor]:
    """Take one gradient step per row of `indices` (steps, E, B), row numbers of `data`.

    The loss is summed over members: no member's gradient then depends on another's, and one Adam
    over the stack equals E Adams. The learning rate falls in a line, from PEAK_RATE times the
    optimiser's own to nothing: early steps go far, and late ones average over the batches' noise
    (docs/algorithms.md). Returns the metrics of the fit.
    """
    model.fit_statistics(data)
    fit = Fit(model, optimizer, data, differentiate)
    steps = len(indices)
    for step, rows in enumerate(indices):
        fit.step(rows, PEAK_RATE * (steps - step) / (steps + 1))
    return fit.metrics()


@torch.no_grad()
def fit_until_converged(
    model: FFModel,
    optimizer: torch.optim.Optimizer,
    data: Transitions,
    generator: torch.Generator,
    differentiate: Differentiate = fit_gradient,
) -> dict[str, Tensor]:
    """Fit to a part of `data` until no member has got better on the rest for some epochs.

    Each member learns from its own bootstrap sample, and ends with the weights of its best epoch;
    the elites are then those of the lowest held-out losses. `num_agent_train_steps_per_iter` is the
    most gradient steps there may be. Janner et al. 2019, arXiv:1906.08253, and its code.

    Returns the metrics of the fit, "Fit Epochs", the elites' "Validation Loss", and what `coverage`
    does where the ensemble is probabilistic; (1,) each. The device is waited for once per epoch.
    """
    config, device = model.config, data.obs.device
    order = send(torch.randperm(len(data.rewards), generator=generator), device)
    held = min(max(int(config.holdout_ratio * len(order)), 1), MOST_HELD_OUT)
    if len(order) < 2:  # a row to learn from is needed more
        held_out = train = data
    else:
        held_out = Transitions(*(column[order[:held]] for column in data))
        train = Transitions(*(column[order[held:]] for column in data))
    model.fit_statistics(train)
    fit = Fit(model, optimizer, train, differentiate)
    batches = _bootstrap_epochs(model.ensemble_size, len(train.rewards), config, generator)
    best = _BestWeights(model)
    stale = epochs = 0
    while stale <= config.fit_patience and len(fit.losses) < config.num_agent_train_steps_per_iter:
        for rows in next(batches)[: config.num_agent_train_steps_per_iter - len(fit.losses)]:
            fit.step(send(rows, device))
        improved = best.update(validation_errors(model, held_out))
        stale, epochs = (0 if improved else stale + 1), epochs + 1
    best.restore()
    model.elites.copy_(best.losses.argsort()[: model.num_elites])
    metrics = fit.metrics()
    metrics["Fit Epochs"] = torch.full((1,), float(epochs), device=device)
    metrics["Validation Loss"] = best.losses[model.elites].mean()[None]
    return metrics | coverage(model, held_out)


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

    def go_through() -> Tensor:
        order = torch.rand(E, rows, generator=generator).argsort(1)
        shuffled = sample.gather(1, order)[:, : rows - rows % batch]
        return shuffled.view(E, -1, batch).transpose(0, 1)

    in_a_pass = rows // batch
    passes, parts = -(-least // in_a_pass), -(-in_a_pass // most)
    while True:
        yield from torch.cat([go_through() for _ in range(passes)]).tensor_split(parts)


class _BestWeights:
    """Copies of each member's weights at its best epoch."""

    def __init__(self, model: FFModel) -> None:
        self.now = model.member_tensors()
        self.kept = [tensor.clone() for tensor in self.now]
        self.losses = torch.full((model.ensemble_size,), torch.inf, device=self.now[0].device)

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
