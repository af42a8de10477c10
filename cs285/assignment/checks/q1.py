"""Checks of question 1: normalisation, targets, loss, gradient steps and predictions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cs285.assignment.blanks import WrongError
from cs285.assignment.checks.support import (
    Affine,
    expect,
    generator,
    gradient,
    replaced,
    require,
    require_tensor,
    returned,
    unchanged,
)
from cs285.config.model import ModelConfig
from cs285.infrastructure.pytorch_util import Normalizer
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions
from cs285.models import losses, training
from cs285.models.base_model import DynamicsModel, ModelLoss, Prediction
from cs285.models.ff_model import FFModel
from cs285.networks.ensemble_mlp import Masks


def normalise() -> None:
    """Check statistics and both directions, also of a constant column."""
    normalizer = Normalizer(2)
    buffers = dict(normalizer.named_buffers())
    normalizer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    unit, centre = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 5.0])
    sample = [("use the population's std (correction=0)", [2**0.5, 0])]
    expect("mean of the columns (1, 3) and (5, 5)", normalizer.mean, centre)
    expect("std of the columns (1, 3) and (5, 5)", normalizer.std, unit, sample)
    noisy = [("the constant column must have the inverse 0", [1, np.inf])]
    expect("inverse_std of the same columns", normalizer.inverse_std, unit, noisy)
    for name, buffer in buffers.items():
        require(
            getattr(normalizer, name) is buffer,
            f"write into the buffer with self.{name}.copy_(...): other parts refer to it",
        )
    columns, rows = torch.tensor([[3.0, 5.1], [1.0, 5.0]]), torch.tensor([[1.0, 3.0], [-1.0, 0.0]])
    raw = [("only the mean is removed: scale, too", [[1, 0.1], [-1, 0]])]
    with unchanged(columns=columns):
        scaled = normalizer.normalize(columns)
    expect("normalised (3, 5.1) and (1, 5)", scaled, torch.stack([unit, -unit]), raw)
    with unchanged(columns=rows):
        back = normalizer.denormalize(rows)
    expect("denormalised (1, 3) and (-1, 0)", back, torch.tensor([[3.0, 5.0], [1.0, 5.0]]))
    wide = Normalizer(1)
    wide.fit(torch.tensor([[0.0], [8.0]]))
    low = [("the mean must be removed before scaling", [[1.5]])]
    expect("normalised 6, fitted to 0 and 8", wide.normalize(torch.tensor([[6.0]])), [[0.5]], low)
    undone = [("the mean must be added", [[2.0]])]
    expect("denormalised 0.5", wide.denormalize(torch.tensor([[0.5]])), [[6.0]], undone)
    nearly = Normalizer(1)
    nearly.fit(torch.tensor([[1000.0], [1000.0 + 2**-13]]))
    expect("std of a column that varies only by rounding", nearly.std, [0.0])
    fresh = torch.tensor([1000.0, 1000.1])[:, None].repeat(5000, 1)
    precise = Normalizer(1)
    precise.fit(fresh)
    deviations = (fresh.double() - fresh.double().mean()).square().mean().sqrt()
    expect("std of a column far from 0", precise.std, deviations[None].float())


def targets() -> None:
    """Check the targets with and without a reward, and what the statistics are fitted to."""
    data = _transitions()
    change = [[4.0, 6.0], [9.0, -1.0]]
    flipped = [("the change is the next observation minus the observation", [[-4, -6], [-9, 1]])]
    absolute = [("the target is the change, not the next observation", data.next_obs)]
    model = _model(learns_reward=False)
    expect("targets", model._targets(data), torch.tensor(change), flipped + absolute)
    learner = _model(learns_reward=True)
    full = [[4.0, 6.0, 0.5], [9.0, -1.0, -2.0]]
    first = [("the reward must be the last column", [[0.5, 4, 6], [-2, 9, -1]])]
    lacks = [("the reward column is missing", change)]
    expect("targets with a learned reward", learner._targets(data), full, first + lacks)
    batch = data.each(lambda column: column[None].repeat_interleave(3, 0))
    expect("targets of a batch (E, B, ...)", learner._targets(batch), [full] * 3)
    for part in (model, learner):
        part.fit_statistics(data)
    inputs = [[1.0, 2.0, 7.0], [3.0, 4.0, 8.0]]
    swapped = [("observations come before actions", [[7, 1, 2], [8, 3, 4]])]
    expect("rows that input_stats was fitted to", _fitted(model.input_stats), inputs, swapped)
    expect("rows that target_stats was fitted to", _fitted(learner.target_stats), full)


def forward() -> None:
    """Check what the network gets and what becomes of its outputs."""
    data, seen = _transitions(), []
    model, weight = _model(learns_reward=False), torch.tensor(10.0, requires_grad=True)

    class Network(nn.Module):
        def forward(self, inputs: Tensor, masks: Masks = ()) -> Tensor:
            seen.append((inputs, masks))
            return weight * inputs[..., :2]

    model.network = Network()  # type: ignore[assignment]
    means, log_var, logits = returned("outputs", model.outputs(data), 3)
    normalised = (torch.cat([data.obs, data.acs], -1) - 1) / 2
    raw = [("the inputs must be normalised", torch.cat([data.obs, data.acs], -1).repeat(3, 1, 1))]
    expect("what the network gets", seen[0][0], normalised.repeat(3, 1, 1), raw)
    expect("means", means, 10 * normalised[:, :2].repeat(3, 1, 1))
    require(
        log_var is None and logits is None, "a deterministic model has no log-variances or logits"
    )
    slope = gradient(means, weight)
    require(slope is not None, "no gradient reaches the network: no detach, no no_grad")
    batch = data.each(lambda column: torch.stack([column, 2 * column, 3 * column]))
    mask = (torch.ones(3, 2, 4),)
    model.outputs(batch, mask)
    expect(
        "what the network gets from a batch (E, B, ...)",
        seen[1][0],
        (torch.cat([batch.obs, batch.acs], -1) - 1) / 2,
    )
    require(seen[1][1] is mask, "the dropout masks must reach the network")
    wide = _model(learns_reward=False, model="homoscedastic", model_loss="nll")
    _, log_var, _ = wide.outputs(data)
    expected = wide._split_outputs(torch.zeros(3, 2, 2), wide._spread)[1]
    expect("log-variances of --model homoscedastic", log_var, expected)


def loss() -> None:
    """Check the mean squared error, and the model's loss of normalised targets."""
    draw = generator()
    means, truth = (torch.randn(3, 5, 4, generator=draw) for _ in range(2))
    by_hand = torch.tensor(
        [
            [sum((means[e, b, d] - truth[e, b, d]) ** 2 for b in range(5)) / 5 for d in range(4)]
            for e in range(3)
        ]
    )
    errors = means - truth
    wrong: list[tuple[str, Any]] = [
        ("average over the rows only, not over everything", errors.square().mean()),
        ("average over the rows, dimension 1", errors.square().mean(-1)),
        ("average over the rows, dimension 1", errors.square().mean(0)),
        ("the mean over the rows, not the sum", errors.square().sum(1)),
        ("the errors must be squared", errors.abs().mean(1)),
        ("the errors must be squared", errors.mean(1)),
        ("without the factor 1/2", errors.square().mean(1) / 2),
        ("the mean square, without the root", errors.square().mean(1).sqrt()),
    ]
    with unchanged(means=means, targets=truth):
        got = losses.mse(means.requires_grad_(), None, truth)
    expect("mse (E, D)", got, by_hand, wrong)
    require(gradient(got, means) is not None, "mse must be differentiable: do not detach")
    _check_model_loss()


def _check_model_loss() -> None:
    model, data = _model(learns_reward=False), _transitions()
    batch = data.each(lambda column: torch.stack([column, 2 * column, 3 * column]))
    predicted = torch.randn(3, 2, 2, generator=generator(2)).requires_grad_()
    log_var = torch.full((3, 2, 2), 0.5)
    given: list[Any] = []

    def outputs(batch: Transitions, masks: Masks = ()) -> tuple[Tensor, Tensor, None]:
        given.extend((batch, masks))
        return predicted, log_var, None

    def target_loss(means: Tensor, log_var: Tensor | None, targets: Tensor) -> Tensor:
        errors = 2 * (means - targets).square()
        return (errors if log_var is None else errors + log_var).mean(1)

    masks = (torch.ones(3, 2, 4),)
    model.target_loss = target_loss
    with replaced(model, outputs=outputs, _targets=lambda data: data.next_obs - data.obs):
        result = model.loss(batch, masks)
    require(
        len(given) == 2 and given[0] is batch and given[1] is masks,
        "predict this batch, with its dropout masks",
    )
    change = batch.next_obs - batch.obs
    normalised = (change - 1) / 4

    def error(of: Tensor) -> float:
        return float((predicted.detach() - of).square().mean((1, 2)).sum())

    def total(of: Tensor) -> float:
        return 2 * error(of) + 3 * 0.5

    wrong = [
        (
            "self.target_loss is the loss of this model, which may be another than mse",
            error(normalised),
        ),
        ("pass the log-variances to self.target_loss", 2 * error(normalised)),
        ("the targets must be normalised by target_stats", total(change)),
        ("normalise the targets by target_stats, not by input_stats", total((change - 1) / 2)),
    ]
    expect("the total loss of the model", result.total, total(normalised), wrong)
    slope = gradient(result.total, predicted)
    require(slope is not None, "no gradient reaches the network: do not detach the outputs")


def update() -> None:
    """Check two gradient steps of SGD on a linear loss, by hand."""
    model = _Linear(takes_masks=False)
    optimizer, data = _descent(model, 0.5), _transitions()  # the default rate is 1
    for _ in range(2):
        metrics = training.gradient_step(model, optimizer, data)
    once = [
        ("gradients add up: clear the gradients of the step before", [-1.5, -3.0]),
        ("the optimiser took no step", [0.0, 0.0]),
        ("the step must follow the negative gradient of the total loss", [1.0, 2.0]),
        ("two steps per call", [-2.0, -4.0]),
    ]
    expect("weights after 2 steps", model.weights, [-1.0, -2.0], once)
    expect("learning rates that decay_weights got", model.decays, [0.5, 0.5])
    before = [("weights decay after the step, not before it", [0.0, -0.5])]
    expect("first weight at each decay", model.at_decay, [-0.5, -1.0], before)
    metrics = returned("gradient_step", metrics)
    require(list(metrics) == ["Training Loss"], f"expected the metrics of the loss, got {metrics}")
    require_tensor("Training Loss", metrics["Training Loss"])
    attached = metrics["Training Loss"].requires_grad
    require(not attached, "the metrics must be detached: they would keep the graphs of all steps")
    masks = (torch.ones(1),)
    dropping = _Linear(takes_masks=True)
    training.gradient_step(dropping, _descent(dropping), data, masks)
    require(dropping.masks == [masks], "the masks must reach model.loss")


def batches() -> None:
    """Check the indices of a fit: shape, range, independence and reproducibility."""
    replay = ReplayBuffer(100, 2, 1)
    rows = torch.arange(30.0)[:, None]
    flags = torch.zeros(30, dtype=torch.bool)
    replay.add(Transitions(rows.repeat(1, 2), rows, rows[:, 0], rows.repeat(1, 2), flags))
    config = ModelConfig(num_agent_train_steps_per_iter=50, train_batch_size=20)
    model, drawn = _Linear(takes_masks=False), []
    model.members = 2  # two of the three are elites

    def spy(*arguments: Any, **named: Any) -> dict[str, Tensor]:
        given = inspect.signature(_fit_ensemble_arguments).bind(*arguments, **named).arguments
        drawn.append(given["indices"])
        return {"Training Loss": torch.zeros(1)}

    with replaced(training, fit_ensemble=spy):
        for seed in (1, 1, 2):
            training.fit(model, _descent(model), replay, config, generator(seed))
    require(len(drawn) == 3, "`fit_ensemble` was not called")
    first, again, other = drawn
    require_tensor("indices", first, torch.long)
    shape, wanted = tuple(first.shape), (50, 3, 20)
    likely = ""
    if sorted(shape) == sorted(wanted) and shape != wanted:
        likely = "; likely mistake: the order is (steps, E, batch)"
    elif len(shape) == 2:
        likely = "; likely mistake: every member needs its own rows"
    require(shape == wanted, f"indices: expected the shape {wanted}, got {shape}{likely}")
    least, most = int(first.min()), int(first.max())
    require(least >= 0 and most < 30, f"indices: must be from 0 to 29, got {least} to {most}")
    require(not torch.equal(first[:, 0], first[:, 1]), "all members have the same rows")
    require(not torch.equal(first[0], first[1]), "all steps have the same rows")
    require(
        len(first.unique()) == 30, f"{len(first.unique())} of 30 rows are drawn: expected all rows"
    )
    ordered = first.sort(-1).values
    require(bool((ordered.diff() == 0).any()), "no batch has a row twice: draw with replacement")
    require(torch.equal(first, again), "the same generator gave other rows: draw from `generator`")
    require(not torch.equal(first, other), "another generator gave the same rows")


def _fit_ensemble_arguments(
    model: Any,
    optimizer: Any,
    data: Any,
    indices: Any,
    update: Any = None,
    peak: Any = None,
    generator: Any = None,
) -> None: ...


def fit() -> None:
    """Check the rows, learning rates and metrics of a fit with three steps."""
    data = _transitions(6)
    indices = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [0, 0]], [[1, 1], [2, 5]]])
    for peak, rates in ((None, [1, 1, 1]), (5.0, [5 * 3 / 4, 5 * 2 / 4, 5 * 1 / 4])):
        model, masked = _Linear(takes_masks=False), list[Masks]()
        seen, got = list[Tensor](), list[float]()
        optimizer = _descent(model)

        def record(
            model: Any,
            optimizer: Any,
            batch: Transitions,
            masks: Masks = (),
            seen: list[Tensor] = seen,
            got: list[float] = got,
            masked: list[Masks] = masked,
        ) -> dict[str, Tensor]:
            seen.append(batch.rewards)
            got.append(optimizer.param_groups[0]["lr"])
            masked.append(masks)
            return {"Training Loss": torch.tensor(float(len(seen)))}

        metrics = training.fit_ensemble(model, optimizer, data, indices, record, peak, generator())
        require(len(seen) == 3, f"expected one gradient step per entry of indices, got {len(seen)}")
        for step in range(3):
            expect(f"rows of step {step}", seen[step], data.rewards[indices[step]])
        wrong = [
            ("with `peak` the rate of step k of n is peak * (n - k) / (n + 1)", [5, 5, 5]),
            ("the rate must fall, and peak is its factor", [5 * 1 / 4, 5 * 2 / 4, 5 * 3 / 4]),
            ("count the steps from 0", [5 * 2 / 4, 5 * 1 / 4, 0]),
            ("divide by n + 1", [5, 5 * 2 / 3, 5 * 1 / 3]),
            ("`peak` is ignored", [1, 1, 1]),
        ]
        expect(f"learning rates with peak {peak}", got, rates, wrong)
        require(
            model.statistics == 1,
            f"the statistics were fitted {model.statistics} times: once per fit is enough",
        )
        require(all(masked), "the generator of the dropout masks does not reach `Fit`")
        curve = metrics.get("Training Loss") if isinstance(metrics, dict) else None
        expect("the metric of each step", curve, [1, 2, 3])
        require("Weight Norm" in metrics, 'the metrics of `Fit` have a "Weight Norm", too')


def predict() -> None:
    """Check next observations and rewards of two members, by hand."""
    obs = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]])
    outputs = torch.tensor([[[1.0, -1.0, 2.0]], [[2.0, -2.0, 4.0]], [[3.0, -3.0, 6.0]]])
    learner = _model(learns_reward=True)
    change = 4 * outputs + 1
    outputs.requires_grad_()
    with unchanged(obs=obs):
        state, prediction = returned("_predict", learner._predict(obs, outputs, None, None), 2)
    returned("_predict", prediction, kind=Prediction)
    expected = obs + change[..., :2]
    wrong: list[tuple[str, Any]] = [
        ("denormalise the change", obs + outputs[..., :2]),
        ("add the observation to the change", change[..., :2]),
        ("the last column is the reward, not the first one", obs + change[..., 1:]),
        ("the change is added", obs - change[..., :2]),
        ("denormalise the change, and then add the observation", 4 * (obs + outputs[..., :2]) + 1),
    ]
    expect("next observation", prediction.next_obs, expected, wrong)
    expect("next state", state, expected)
    plain: list[tuple[str, Any]] = [
        ("denormalise the reward, too", outputs[..., -1]),
        ("the reward is the last column", change[..., 0]),
    ]
    expect("rewards", prediction.rewards, change[..., -1], plain)
    for what, part in (("next observation", prediction.next_obs), ("rewards", prediction.rewards)):
        require(gradient(part, outputs) is not None, f"the {what} must be differentiable")
    require(prediction.terminated is None, "without logits, `terminated` must be None")
    model = _model(learns_reward=False)
    _, prediction = model._predict(obs, outputs[..., :2], None, None)
    expect("next observation without a learned reward", prediction.next_obs, expected)
    expect("rewards that are not learned", prediction.rewards, torch.zeros(3, 1))
    ending = _model(learns_reward=False, termination="learned")
    logits = torch.tensor([[[0.0, 0.0, 2.0]], [[0.0, 0.0, -2.0]], [[0.0, 0.0, 0.3]]])
    _, prediction = ending._predict(obs, logits, None, None)
    positive = [("`terminated` is True for a positive logit", [[False], [True], [False]])]
    ended = torch.tensor([[True], [False], [True]])
    expect("terminated", prediction.terminated, ended, positive)


class _Descent:
    """Gradient descent. The first step of a torch.optim optimiser takes a second to import."""

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": parameters, "lr": rate}]
        self.defaults = {"lr": 1.0}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move against the gradients."""
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter -= self.param_groups[0]["lr"] * parameter.grad


def _descent(model: nn.Module, rate: float = 1.0) -> Any:
    return _Descent(list(model.parameters()), rate)


def _transitions(rows: int = 2) -> Transitions:
    """Return transitions whose changes are (4, 6) and (9, -1), repeated."""
    repeats = -(-rows // 2)
    obs = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(repeats, 1)
    change = torch.tensor([[4.0, 6.0], [9.0, -1.0]]).repeat(repeats, 1)
    rewards = torch.tensor([0.5, -2.0]).repeat(repeats) + (0 if rows == 2 else torch.arange(rows))
    acs = torch.tensor([[7.0], [8.0]]).repeat(repeats, 1)
    return Transitions(obs, acs, rewards, obs + change, torch.zeros(rows, dtype=torch.bool))


def _model(learns_reward: bool, **settings: Any) -> FFModel:
    """Return a model of three members with known statistics."""
    config = ModelConfig(size=4, n_layers=1, **settings)
    model = FFModel(2, 1, config, learns_reward, generator())
    model.input_stats = Affine(3, 1.0, 2.0)  # type: ignore[assignment]
    model.target_stats = Affine(2 + learns_reward, 1.0, 4.0)  # type: ignore[assignment]
    return model


def _fitted(stats: Any) -> Tensor:
    if len(stats.fitted) != 1:
        raise WrongError(f"both statistics must be fitted once, got {len(stats.fitted)} calls")
    return stats.fitted[0]


class _Linear(DynamicsModel):
    """A model with the loss w1 + 2 w2, whose gradient is (1, 2)."""

    def __init__(self, takes_masks: bool) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2))
        self.takes_masks = takes_masks
        self.decays: list[float] = []
        self.at_decay: list[float] = []
        self.masks: list[Masks] = []
        self.statistics = 0

    @property
    def fitted_members(self) -> int:
        """The number of all members."""
        return 3

    def loss(self, batch: Transitions, masks: Masks | None = None) -> ModelLoss:
        """Return w1 + 2 w2."""
        require(
            self.takes_masks or masks is None,
            "a model without dropout has no argument `masks`: pass them only if there are any",
        )
        self.masks += [] if masks is None else [masks]
        total = (self.weights * torch.tensor([1.0, 2.0])).sum()
        return ModelLoss(total, {"Training Loss": total * 1.0})

    def decay_weights(self, learning_rate: Any) -> None:
        """Record the rate and the first weight."""
        self.decays.append(float(learning_rate))
        self.at_decay.append(float(self.weights.detach()[0]))

    def fit_statistics(self, data: Transitions) -> None:
        """Count the calls."""
        self.statistics += 1

    def draw_masks(self, rows: int, generator: torch.Generator) -> Sequence[Tensor | None]:
        """Return one mask."""
        return (torch.ones(1, rows, 1),)
