"""Test fits with early stopping: validation sets, best weights, elites and epochs."""

import math
from typing import Any

import pytest
import torch

from cs285.config.model import ModelConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import make_adam, make_generator
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions
from cs285.models import training
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.ff_model import VALIDATION_FLOOR, FFModel
from cs285.models.training import (
    _BestWeights,
    _bootstrap_epochs,
    fit_ensemble,
    fit_until_converged,
    gradient_step,
)

O, A = 2, 1
STD = torch.tensor([0.1, 0.3, 0.2])  # std of the noise on both observations and on the reward
SMALL = {
    "model": "probabilistic",
    "model_loss": "nll",
    "activation": "swish",
    "ensemble_size": 4,
    "num_elites": 2,
    "holdout_ratio": 0.25,
    "size": 24,
    "train_batch_size": 32,
    "num_agent_train_steps_per_iter": 100_000,
    "learning_rate": 3e-3,
}


def make_model(learns_reward: bool = True, seed: int = 1, **flags: Any) -> FFModel:
    config = ModelConfig(**{**SMALL, **flags})
    return FFModel(O, A, config, learns_reward, make_generator(seed, "test"))


def make_data(rows: int = 1500, seed: int = 0) -> Transitions:
    """Return transitions with a known change and reward, plus noise of std STD."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, O, generator=generator)
    acs = torch.rand(rows, A, generator=generator) * 2 - 1
    change = torch.stack([obs[:, 1].sin() + acs[:, 0], obs[:, 0] * 0.5], 1)
    noise = STD * torch.randn(rows, O + 1, generator=generator)
    rewards = obs.sum(1) + noise[:, 2]
    return Transitions(obs, acs, rewards, obs + change + noise[:, :2], obs[:, 0] > 1)


def fit(model: FFModel, data: Transitions, seed: int = 3) -> dict[str, torch.Tensor]:
    adam = torch.optim.Adam(model.parameters(), model.config.learning_rate)
    return fit_until_converged(model, adam, data, model.config, make_generator(seed, "fit"))


def predict(model: FFModel, data: Transitions, noise: torch.Tensor | None = None) -> Prediction:
    """Return every elite's prediction of a planning step."""
    acs = data.acs.expand(model.members, -1, -1)
    return model.planning_step()(model.initial_state(data.obs), acs, noise)[1]


def test_means_and_variances_are_learned_and_calibrated() -> None:
    model, fresh = make_model(), make_data(2000, seed=9)
    metrics = fit(model, make_data(4000))
    assert metrics["Training Loss"][-1] < 0.3 * metrics["Training Loss"][0]
    K, mean = model.members, predict(model, fresh)
    errors = (mean.next_obs - fresh.next_obs).square().mean((0, 1))
    torch.testing.assert_close(errors, STD[:2] ** 2, rtol=0.5, atol=0)
    generator = torch.Generator().manual_seed(0)
    drawn = [
        predict(model, fresh, torch.randn(K, 2000, O + 1, generator=generator)).next_obs
        for _ in range(20)
    ]
    spread = torch.stack(drawn).std(0).mean((0, 1))
    torch.testing.assert_close(spread, STD[:2], rtol=0.2, atol=0)
    for level, share in (("50", 0.5), ("80", 0.8), ("95", 0.95)):
        measured = model.evaluate(fresh)[f"Coverage {level}"].item()
        assert measured == pytest.approx(share, abs=0.06)


def test_members_end_with_the_weights_of_their_best_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation losses are scripted, so the best epoch of each member is known."""
    script = torch.tensor(
        [
            [4.0, 9.0, 5.0, 1.0],
            [3.0, 8.0, 4.99, 2.0],  # 4.99 improves by less than 1%
            [5.0, 7.0, 6.0, 2.0],
            [5.0, 7.0, 6.0, math.nan],
        ]
    )
    seen: list[list[torch.Tensor]] = []

    def scripted(model: FFModel, data: Transitions) -> torch.Tensor:
        seen.append([tensor.clone() for tensor in model.member_tensors()])
        return script[len(seen) - 1]

    monkeypatch.setattr(FFModel, "validation_errors", scripted)
    model = make_model(fit_patience=0)
    metrics = fit(model, make_data(200))
    assert metrics["Fit Epochs"].item() == 4
    for index, tensor in enumerate(model.member_tensors()):
        for member, epoch in enumerate([1, 2, 0, 0]):
            assert torch.equal(tensor[member], seen[epoch][index][member])
        assert not torch.equal(seen[0][index], seen[3][index])
    assert model.elites.tolist() == [3, 0]  # validation losses 1 and 3
    assert metrics["Validation Loss"].item() == 2


def test_only_elites_predict() -> None:
    model, data = make_model(), make_data(100)
    fit(model, data)
    found = predict(model, data)
    means, *_ = model.outputs(data)
    by_all = model.target_stats.denormalize(means)
    expected = data.obs + by_all[model.elites][..., :O]
    torch.testing.assert_close(found.next_obs, expected.detach(), rtol=1e-4, atol=1e-4)
    errors = model.validation_errors(data)
    assert errors.shape == (4,)
    assert predict(make_model(num_elites=4), data).next_obs.shape == (4, 100, O)


def test_elites_use_their_own_bounds_and_coverage_measures_only_elites() -> None:
    """Members 3 and 1 are the elites, and the bounds fix a different variance per member."""
    model, data = make_model(), make_data(50)
    model.fit_statistics(data)
    model.elites.copy_(torch.tensor([3, 1]))
    log_vars = torch.tensor([-6.0, 0.0, -6.0, -2.0]).view(4, 1, 1, 1)
    with torch.no_grad():
        model.log_var_bounds.copy_(log_vars.expand_as(model.log_var_bounds))
        _, log_var, _ = model.outputs(data)
    moved = predict(model, data, torch.ones(2, 50, O + 1)).next_obs
    deviations = moved - predict(model, data).next_obs
    assert log_var is not None
    expected = (0.5 * log_var[[3, 1]]).exp()[..., :O] * model.target_stats.std[:O]
    torch.testing.assert_close(deviations, expected, rtol=1e-3, atol=1e-4)
    measured = model.evaluate(data)
    with torch.no_grad():
        model.log_var_bounds[[0, 2]] = 5.0
    assert model.evaluate(data) == measured


def test_validation_set_is_not_used_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Transitions] = []

    def recorded(model: FFModel, data: Transitions) -> torch.Tensor:
        seen.append(data)
        return torch.zeros(4)

    monkeypatch.setattr(FFModel, "validation_errors", recorded)
    taken: list[torch.Tensor] = []

    def spy(model: DynamicsModel, optimizer: Any, batch: Transitions, masks: Any) -> Any:
        taken.append(torch.cat([batch.obs, batch.acs], -1).flatten(0, 1))
        return gradient_step(model, optimizer, batch)

    model, data = make_model(), make_data(400)
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    fit_until_converged(model, adam, data, model.config, make_generator(3, "fit"), spy)
    held_out = torch.cat([seen[0].obs, seen[0].acs], -1)
    assert len(held_out) == 100
    for stats, columns, validation in (
        (model.input_stats.mean[:O], data.obs, seen[0].obs),
        (model.target_stats.mean[O:], data.rewards[:, None], seen[0].rewards[:, None]),
    ):
        torch.testing.assert_close(stats, (columns.sum(0) - validation.sum(0)) / 300)
    learned = {tuple(row) for row in torch.cat(taken).tolist()}
    assert len(learned) > 250
    assert not learned & {tuple(row) for row in held_out.tolist()}


def test_validation_set_has_a_maximum_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def recorded(model: FFModel, data: Transitions) -> torch.Tensor:
        seen.append(len(data.rewards))
        return torch.zeros(4)

    monkeypatch.setattr(FFModel, "validation_errors", recorded)
    monkeypatch.setattr(training, "MAX_HELD_OUT", 30)
    fit(make_model(), make_data(400))
    assert set(seen) == {30}


def test_constant_columns_do_not_affect_errors_and_coverage() -> None:
    """With 60 constant columns and one that varies, the error is that column's error."""

    def with_constants(data: Transitions, count: int) -> Transitions:
        still = torch.ones(len(data.rewards), count)
        obs = torch.cat([data.obs[:, :1], still], 1)
        return data._replace(obs=obs, next_obs=torch.cat([data.next_obs[:, :1], still], 1))

    data = with_constants(make_data(500), 60)
    model = FFModel(61, A, ModelConfig(**SMALL), False, make_generator(1, "test"))
    model.fit_statistics(data)
    mean, log_var, _ = model.outputs(data)
    targets = model.target_stats.normalize(data.next_obs - data.obs)
    errors = (mean - targets)[..., 0].square().detach()
    torch.testing.assert_close(model.validation_errors(data), errors.mean(1) + VALIDATION_FLOOR)
    assert log_var is not None
    within = errors / log_var[..., 0].exp() < 1.96**2
    measured = model.evaluate(data)["Coverage 95"]
    assert measured.item() == pytest.approx(within[:2].float().mean().item(), abs=1e-3)


def test_noise_column_does_not_hide_the_error_of_other_columns() -> None:
    """Column 0 is noise with error 1, so the error is the root of the MSE of column 1."""
    model, data = make_model(learns_reward=False), make_data(4000)
    noise = 1e3 * torch.randn(4000, generator=make_generator(0, "noise"))
    data = data._replace(next_obs=torch.stack([noise, data.next_obs[:, 1]], 1))
    model.fit_statistics(data)
    before = model.validation_errors(data)
    with torch.no_grad():
        targets = model.target_stats.normalize(data.next_obs - data.obs)
        means = model.outputs(data)[0][..., 1]
    expected = ((means - targets[:, 1]).square().mean(1) + 1e-3).sqrt()  # noise has variance 1
    torch.testing.assert_close(before, expected, rtol=0.05, atol=0)


def test_model_with_memory_is_fitted_to_sequences_of_one_episode() -> None:
    """Batches are (E, B, T, ...) for a model with memory, and (E, B, ...) for FFModel."""

    class WithMemory(FFModel):
        sequence_length = 3  # type: ignore[assignment]

    flags = {"holdout_ratio": 0.0, "num_elites": None, "num_agent_train_steps_per_iter": 5}
    config = ModelConfig(**{**SMALL, **flags})  # type: ignore[arg-type]
    replay, episodes = ReplayBuffer(100, O, A), 4
    for number in range(episodes):  # rewards count the steps, from 10 * number
        data = make_data(6, number)
        replay.add(data._replace(rewards=10.0 * number + torch.arange(6.0)))
    stopping = ModelConfig(**{**SMALL, "holdout_ratio": 0.2})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--holdout_ratio 0.2: must be 0 for a model that"):
        recurrent = WithMemory(O, A, stopping, True, make_generator(0, "init"))
        training.fit(
            recurrent,
            make_adam(recurrent.parameters(), 1e-3),
            replay,
            stopping,
            make_generator(1, "x"),
        )
    for kind, shape in ((WithMemory, (4, 32, 3)), (FFModel, (4, 32))):
        seen: list[torch.Tensor] = []

        def spy(
            model: DynamicsModel,
            optimizer: Any,
            batch: Transitions,
            masks: Any,
            seen: list[torch.Tensor] = seen,
        ) -> Any:
            seen.append(batch.rewards)
            return {"Training Loss": batch.rewards.mean()}

        model = kind(O, A, config, True, make_generator(1, "test"))
        adam = torch.optim.Adam(model.parameters(), 1e-3)
        training.fit(model, adam, replay, config, make_generator(3, "fit"), spy)
        assert [tuple(rewards.shape) for rewards in seen] == [shape] * 5
        if kind is WithMemory:
            assert all((rewards.diff(dim=-1) == 1).all() for rewards in seen)


def test_gradient_steps_have_a_maximum() -> None:
    curve = fit(make_model(num_agent_train_steps_per_iter=7), make_data())["Training Loss"]
    assert len(curve) == 7 + 1  # the last value belongs to the restored weights


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_fit_to_very_few_rows_stays_finite(rows: int) -> None:
    model = make_model()
    fit(model, make_data(rows))
    assert all(tensor.isfinite().all() for tensor in model.member_tensors())


@pytest.mark.parametrize(("rows", "steps"), [(4, 15), (70, 16), (700, 21)])
def test_epoch_of_few_rows_is_several_passes(rows: int, steps: int) -> None:
    """A batch has 32 rows, or all 4. Rows that do not fill a batch are left out of the pass."""
    epochs = _bootstrap_epochs(3, rows, ModelConfig(**SMALL), make_generator(0, "epochs"))
    first, second = next(epochs), next(epochs)
    assert first.shape == second.shape == (steps, 3, min(rows, 32))
    assert not torch.equal(first, second)
    batches_per_pass = rows // min(rows, 32)
    first_pass = first[:batches_per_pass].transpose(0, 1).flatten(1)  # (E, rows of a pass)
    last_pass = first[-batches_per_pass:].transpose(0, 1).flatten(1)
    if rows == 4:  # no row is left out: a pass is the member's bootstrap sample
        assert torch.equal(first_pass.sort(1).values, last_pass.sort(1).values)


def test_epoch_of_many_rows_is_one_pass() -> None:
    """Each member draws a bootstrap sample with replacement, which has 1 - 1/e of the rows."""
    epochs = _bootstrap_epochs(3, 2400, ModelConfig(**SMALL), make_generator(0, "epochs"))
    first, second = next(epochs), next(epochs)
    assert len(first) == len(second) == 75
    assert not torch.equal(first, second)
    samples = [rows.transpose(0, 1).flatten(1).sort(1).values for rows in (first, second)]
    assert torch.equal(*samples)
    by_member = [set(sample.tolist()) for sample in samples[0]]
    for sample in by_member:
        assert len(sample) / 2400 == pytest.approx(1 - math.exp(-1), abs=0.03)
    assert by_member[0] != by_member[1] != by_member[2] != by_member[0]


def test_fit_is_deterministic_for_a_seed() -> None:
    models = [make_model() for _ in range(3)]
    for model, seed in zip(models, (3, 3, 4), strict=True):
        fit(model, make_data(300), seed)
    assert torch.equal(models[0].network.vector, models[1].network.vector)
    assert not torch.equal(models[0].network.vector, models[2].network.vector)


def test_weight_decay_is_per_layer_and_skips_biases() -> None:
    plain, decayed = make_model(), make_model(weight_decay="0.1,0,0.5")
    data, rows = make_data(), torch.zeros(1, 4, 32, dtype=torch.long)
    gradients = []
    for model in (plain, decayed):
        model.fit_statistics(data)
        sgd = torch.optim.SGD(model.parameters(), 1.0)
        before = model.network.vector.detach().clone()
        fit_ensemble(model, sgd, data, rows, peak=5.0)
        gradients.append(before - model.network.vector.detach())
    network = make_model().network
    decay = network.views_of(gradients[1] - gradients[0])
    for (weight, bias), weight_change, bias_change, factor in zip(
        network.layers, decay[::2], decay[1::2], (0.1, 0.0, 0.5), strict=True
    ):
        expected = 5 / 2 * factor * weight.detach()  # the rate of the only step is 5 / 2
        torch.testing.assert_close(weight_change, expected, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(bias_change, torch.zeros_like(bias), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["deterministic", "probabilistic"])
def test_termination_is_learned(kind: str) -> None:
    model = make_model(termination="learned", model=kind, model_loss="column_nll")
    fit(model, make_data(3000))
    fresh = make_data(500, seed=5)
    terminated = predict(model, fresh).terminated
    assert terminated is not None
    assert (terminated == fresh.terminated).float().mean() > 0.97
    assert predict(make_model(), fresh).terminated is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_elites": 5}, "--num_elites 5: must be at most --ensemble_size"),
        ({"holdout_ratio": 0.0}, "--num_elites 2: must be --ensemble_size"),
        ({"weight_decay": "1,2"}, "--weight_decay 1,2: must be one non-negative number, or 3"),
        ({"weight_decay": "x"}, "--weight_decay x"),
        ({"weight_decay": "-1"}, "--weight_decay -1"),
    ],
)
def test_invalid_flags_are_rejected(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_model(**flags)


def homoscedastic(**flags: Any) -> FFModel:
    return make_model(**{"model": "homoscedastic", "num_elites": 4, "size": 48, **flags})


def test_homoscedastic_members_learn_the_std_of_the_noise() -> None:
    """The std of a sampled prediction, minus the spread of the means, is the noise of the data."""
    model, data = homoscedastic(), make_data()
    fit(model, data)
    rows = make_data(2000, seed=5)
    measured = model.evaluate(rows)
    for level in (50, 80, 95):
        assert measured[f"Coverage {level}"].item() == pytest.approx(level / 100, abs=0.06)
    noise = torch.randn(4, 2000, O + 1, generator=make_generator(0, "noise"))
    mean, sampled = (predict(model, rows, noise=draws) for draws in (None, noise))
    for column, found in enumerate([*(sampled.next_obs - mean.next_obs).unbind(-1),
                                    sampled.rewards - mean.rewards]):  # fmt: skip
        assert float(found.std()) == pytest.approx(float(STD[column]), rel=0.15)


def test_homoscedastic_loss_is_the_likelihood_with_one_std_per_output_and_member() -> None:
    model, data = homoscedastic(), make_data(64)
    model.fit_statistics(data)
    with torch.no_grad():
        model.raw_std.copy_(torch.randn(4, 1, O + 1, generator=make_generator(0, "std")) / 10)
    batch = data.each(lambda column: column.expand(4, *column.shape))
    means, log_var, _ = model.outputs(batch)
    assert log_var is not None
    assert log_var.shape == (4, 1, O + 1)
    std = (10 * model.raw_std).exp() + 1e-3
    targets = torch.cat([data.next_obs - data.obs, data.rewards[:, None]], 1)
    normal = torch.distributions.Normal(means, std.expand_as(means))
    nll = -normal.log_prob(model.target_stats.normalize(targets))
    expected = 2 * (nll - 0.5 * math.log(2 * math.pi)).mean((1, 2)).sum()
    torch.testing.assert_close(model.loss(batch).total, expected, rtol=1e-4, atol=1e-4)


def test_decoupled_weight_decay_is_adamw() -> None:
    """Compare with torch's AdamW, which decays before its step: equal up to rate x decay."""
    flags = {"decoupled_weight_decay": True, "weight_decay": "0.5,0,1"}
    model, plain, data = homoscedastic(**flags), homoscedastic(), make_data(64)
    batch = data.each(lambda column: column.expand(4, *column.shape))
    for each in (model, plain):
        each.fit_statistics(data)
    weights = [weight for weight, _ in plain.network.layers]
    rate, steps = 1e-3, 5
    adams = [torch.optim.Adam(each.parameters(), rate) for each in (model, plain)]
    for _ in range(steps):
        gradient_step(model, adams[0], batch)
        loss = plain.loss(batch)
        for parameter, gradient in zip(
            plain.parameters(), torch.autograd.grad(loss.total, list(plain.parameters())),
            strict=True,
        ):  # fmt: skip
            parameter.grad = gradient
        with torch.no_grad():
            for weight, decay in zip(weights, (0.5, 0.0, 1.0), strict=True):
                weight *= 1 - rate * decay
        adams[1].step()
    torch.testing.assert_close(model.network.vector, plain.network.vector, atol=3e-5, rtol=0)
    without = homoscedastic().network.vector
    assert (model.network.vector - without).detach().abs().max() > 3e-3


def test_dropout_acts_in_fits_only() -> None:
    data = make_data(200)
    models = [homoscedastic(model_dropout=share) for share in ("0", "0.5,0")]
    for model in models:
        model.fit_statistics(data)
    plain, dropped = (model.validation_errors(data) for model in models)
    assert torch.equal(plain, dropped)
    first, second = (fit(model, data)["Training Loss"][0] for model in models)  # same batch
    assert float(first) != float(second)
    mask, none = models[1].draw_masks(7, make_generator(0, "masks"))
    assert none is None
    assert mask is not None
    assert mask.shape == (4, 7, 48)


def test_sharp_fit_has_the_golden_values_of_the_former_default() -> None:
    """The values are from commit b0c3007, whose default was what --preset sharp sets."""
    config = ModelConfig(size=50, model_loss="column_nll", learning_rate_schedule="falling")
    rows, columns = torch.arange(400.0)[:, None], torch.arange(1.0, 5.0)
    obs, acs = (rows * columns * 0.7).sin(), (rows * columns[:2] * 1.3).cos()
    noise = torch.tensor([0, 0.1, 1, 0.01]) * (3 * rows * columns).sin()
    next_obs = obs + 0.1 * obs.roll(1, 1) * acs[:, :1] + noise
    data = Transitions(obs, acs, obs[:, 0], next_obs, torch.zeros(400, dtype=torch.bool))
    model = FFModel(4, 2, config, False, torch.Generator().manual_seed(1))
    steps, members, batch = torch.arange(40), torch.arange(3), torch.arange(64)
    indices = steps[:, None, None] * 97 + members[:, None] * 31 + batch * 7
    optimizer = make_adam(model.parameters(), 1e-3)
    metrics = fit_ensemble(model, optimizer, data, indices % 400, peak=config.learning_rate_peak)
    curve = metrics["Training Loss"][[0, 10, -1]].tolist()
    assert curve == pytest.approx([0.99828899, 0.94489717, 0.83777562], rel=1e-5)
    vector = model.network.vector.detach()
    assert vector.norm().item() == pytest.approx(18.7977447, rel=1e-5)
    assert vector.double().abs().sum().item() == pytest.approx(1376.756204, rel=1e-5)


def test_new_data_loss_is_the_error_of_the_elites_in_the_observation() -> None:
    model, data = make_model(), make_data(50)
    model.fit_statistics(data)
    model.elites.copy_(torch.tensor([3, 1]))
    errors = (predict(model, data).next_obs - data.next_obs) / model.target_stats.std[:O]
    found = model.evaluate(data)["New Data Loss"][0]
    torch.testing.assert_close(found, errors.square().mean(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["probabilistic", "homoscedastic"])
def test_weights_of_the_best_epoch_include_the_spread(kind: str) -> None:
    model = make_model(model=kind)
    best = _BestWeights(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    best.restore()
    assert len(before) == 2
    assert all(map(torch.equal, model.parameters(), before))


def test_slow_progress_counts_from_the_last_better_epoch() -> None:
    """Each loss is 0.6 percentage points lower, so every second one is better by more than 1%."""
    best = _BestWeights(make_model())
    better = [best.update(torch.full((4,), loss)) for loss in (1.0, 0.994, 0.988, 0.982, 0.976)]
    assert better == [True, False, True, False, True]
    assert best.losses.tolist() == pytest.approx([0.976] * 4)


def test_fits_of_a_fixed_length_have_dropout() -> None:
    replay, losses = ReplayBuffer(200, O, A), []
    replay.add(make_data(200))
    for share in ("0", "0.5"):
        flags = {"holdout_ratio": 0.0, "num_agent_train_steps_per_iter": 1}
        model = homoscedastic(model_dropout=share, **flags)
        adam = make_adam(model.parameters(), 1e-3)
        metrics = training.fit(model, adam, replay, model.config, make_generator(3, "fit"))
        losses.append(metrics["Training Loss"].item())
    assert losses[0] != losses[1]
