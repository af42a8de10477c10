"""Test the ensemble: separate networks, their losses and their predictions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cs285.config.model import ModelConfig
from cs285.infrastructure.pytorch_util import Normalizer, make_generator
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.ff_model import FFModel
from cs285.models.losses import BOUND_WEIGHT, NOISE_FLOOR, bounded
from cs285.models.training import fit_ensemble
from cs285.networks.ensemble_mlp import LayerNorm

E, O, A, SIZE = 3, 4, 2, 50


def make_model(learns_reward: bool = False, **changes: Any) -> FFModel:
    config = ModelConfig(**{"ensemble_size": E, "size": SIZE, **changes})
    return FFModel(O, A, config, learns_reward, make_generator(1, "test"))


def make_data(rows: int = 400, seed: int = 0) -> Transitions:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, O, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 3.0])
    acs = torch.rand(rows, A, generator=generator) * 2 - 1
    change = torch.tanh(obs @ torch.randn(O, O, generator=generator)) + acs.sum(1, keepdim=True)
    rewards = 500 + 30 * (obs[:, 0] - acs[:, 1])
    return Transitions(obs, acs, rewards, obs + change, torch.zeros(rows, dtype=torch.bool))


def adam(model: FFModel, rate: float = 1e-3) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), rate)


def predict(model: FFModel, data: Transitions) -> tuple[Tensor, Tensor]:
    """Return the next observations (E, B, O) and the rewards (E, B) of a planning step."""
    acs = data.acs.expand(E, -1, -1)
    state, prediction = model.planning_step()(model.initial_state(data.obs), acs)
    assert state is prediction.next_obs  # a state is the observation
    return prediction.next_obs, prediction.rewards


def separate_networks(model: FFModel) -> list[nn.Sequential]:
    """Rebuild each member from torch.nn, without padding, with a copy of its weights."""
    networks = []
    widths = [O + A, SIZE, SIZE, O]
    for member in range(E):
        layers: list[nn.Module] = []
        for (weight, bias), i, o in zip(model.network.layers, widths[:-1], widths[1:], strict=True):
            linear = nn.Linear(i, o)
            linear.weight.data = weight[member, :i, :o].T.detach().clone()
            linear.bias.data = bias[member, 0, :o].detach().clone()
            layers += [linear, nn.Tanh()]
        networks.append(nn.Sequential(*layers[:-1]))
    return networks


@pytest.mark.parametrize(("model_loss", "peak"), [("mse", None), ("column_nll", 5.0)])
def test_ensemble_equals_separate_networks_with_separate_adams(
    model_loss: str, peak: float | None
) -> None:
    model, data = make_model(model_loss=model_loss), make_data()
    networks = separate_networks(model)
    indices = torch.randint(400, (10, E, 32), generator=torch.Generator().manual_seed(3))
    losses = fit_ensemble(model, adam(model), data, indices, peak=peak)

    change = data.next_obs - data.obs
    inputs = torch.cat([data.obs, data.acs], 1)
    x = (inputs - inputs.mean(0)) / inputs.std(0, correction=0)
    y = (change - change.mean(0)) / change.std(0, correction=0)
    expected = np.zeros((10, E))
    for member, network in enumerate(networks):
        own_adam = torch.optim.Adam(network.parameters(), 1e-3)
        for step in range(10):
            if peak:
                own_adam.param_groups[0]["lr"] = 1e-3 * peak * (10 - step) / 11
            rows = indices[step, member]
            mse = (network(x[rows]) - y[rows]).square().mean(0)
            loss = mse.mean() if model_loss == "mse" else (mse + NOISE_FLOOR).log().mean()
            own_adam.zero_grad()
            loss.backward()
            own_adam.step()
            expected[step, member] = mse.mean().item()
        means, *_ = model.outputs(data)
        torch.testing.assert_close(means[member], network(x), rtol=1e-4, atol=1e-5)
        next_obs, _ = predict(model, data)
        expected_next = data.obs + network(x) * change.std(0, correction=0) + change.mean(0)
        torch.testing.assert_close(next_obs[member], expected_next, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(losses["Training Loss"].numpy(), expected.mean(1), rtol=1e-5)


def test_column_nll_learns_the_other_columns_despite_noise_columns() -> None:
    """The other columns need fewer steps than with the mean squared error."""
    data, generator = make_data(2000), torch.Generator().manual_seed(5)
    noise = torch.randn(2000, 2, generator=generator) * torch.tensor([1.0, 10.0])
    noisy = data._replace(next_obs=torch.cat([data.obs[:, :2] + noise, data.next_obs[:, 2:]], 1))
    indices = torch.randint(2000, (300, E, 64), generator=generator)
    errors = []
    for model_loss in ("column_nll", "mse"):
        model = make_model(model_loss=model_loss)
        fit_ensemble(model, adam(model, 3e-3), noisy, indices)
        predicted, _ = predict(model, data)
        errors.append((predicted - data.next_obs).square().mean((0, 1))[2:])
    assert (errors[0] < 0.6 * errors[1]).all()


@pytest.mark.parametrize(
    ("model_init", "gains"),
    [("torch", [3**-0.5] * 3), ("lecun", [1.0, 1.0, 0.1]), ("he", [2**0.5] * 3)],
)
def test_initial_weights_follow_the_fan_in_of_each_layer(
    model_init: str, gains: list[float]
) -> None:
    """The bounds of --model_init torch are the bounds of torch.nn.Linear."""
    assert nn.Linear(64, 500).weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)
    model = make_model(ensemble_size=5, size=64, model_init=model_init)
    fans = [O + A, 64, 64]
    for (padded, bias), fan_in, gain in zip(model.network.layers, fans, gains, strict=True):
        weight = padded[:, :fan_in, :64]
        for parameter in (weight, bias):
            assert parameter.abs().max() <= gain * (3 / fan_in) ** 0.5
        stds = weight.flatten(1).std(1)
        torch.testing.assert_close(
            stds, torch.full_like(stds, gain * fan_in**-0.5), rtol=0.15, atol=0
        )
        assert len({tuple(row[:5].tolist()) for row in weight.flatten(1)}) == 5


@pytest.mark.parametrize("model_loss", ["mse", "column_nll", "nll"])
def test_constant_target_column_does_not_affect_the_fit(model_loss: str) -> None:
    """The column gets no gradient, and the metrics average over the other columns."""
    kind = "probabilistic" if model_loss == "nll" else "deterministic"
    model = make_model(model=kind, model_loss=model_loss)
    data = make_data()
    data = data._replace(next_obs=torch.cat([data.next_obs[:, :3], data.obs[:, 3:]], 1))
    model.fit_statistics(data)
    batch = data.each(lambda column: column.expand(E, *column.shape))
    found = model.loss(batch)
    (gradient,) = torch.autograd.grad(found.total, [model.network.vector])
    weight, bias = model.network.views_of(gradient)[-2:]
    constant = [3, 7] if kind == "probabilistic" else [3]
    assert not weight[..., constant].any() and not bias[..., constant].any()
    means, *_ = model.outputs(data)
    errors = means - model.target_stats.normalize(data.next_obs - data.obs)
    expected = errors[..., :3].square().mean()
    torch.testing.assert_close(found.metrics["Training Loss"], expected.detach())
    torch.testing.assert_close(model.evaluate(data)["New Data Loss"][0], expected.detach())


def test_padding_stays_exactly_zero_during_a_fit() -> None:
    model = make_model()
    indices = torch.randint(400, (20, E, 32), generator=torch.Generator().manual_seed(3))
    fit_ensemble(model, adam(model, 1e-2), make_data(), indices)
    (first, first_bias), (second, _), (last, _) = model.network.layers
    assert first.shape == (E, O + A, 64)
    for weights in (
        first[:, :, SIZE:],
        first_bias[:, :, SIZE:],
        second[:, SIZE:],
        second[:, :, SIZE:],
        last[:, SIZE:],
    ):
        assert not weights.any()


def test_members_do_not_influence_each_other() -> None:
    indices = torch.randint(400, (10, E, 32), generator=torch.Generator().manual_seed(3))
    others = indices.clone()
    others[:, 1:] = 0  # different batches for members 1 and 2
    predictions = []
    for batches in (indices, others):
        model = make_model()
        fit_ensemble(model, adam(model), make_data(), batches)
        predictions.append(model.network(torch.ones(E, 1, O + A)))
    assert torch.equal(predictions[0][0], predictions[1][0])
    assert not torch.equal(predictions[0][1], predictions[1][1])


def test_model_learns_state_and_reward() -> None:
    model, rows = make_model(learns_reward=True), make_data(2500)
    data = rows.each(lambda column: column[:2000])
    fresh = rows.each(lambda column: column[2000:])
    indices = torch.randint(2000, (400, E, 128), generator=torch.Generator().manual_seed(3))
    losses = fit_ensemble(model, adam(model, 3e-3), data, indices)
    assert losses["Training Loss"][-1] < 0.05 * losses["Training Loss"][0]
    assert losses["Reward Loss"][-1] < 0.05 * losses["Reward Loss"][0]
    next_obs, rewards = predict(model, fresh)
    assert next_obs.shape == (E, 500, O)
    errors = (next_obs - fresh.next_obs).square().mean((0, 1))
    assert (errors < 0.1 * (fresh.next_obs - fresh.obs).var(0)).all()
    assert (rewards - fresh.rewards).square().mean() < 0.1 * fresh.rewards.var()


def test_step_adds_the_denormalised_change() -> None:
    model, data = make_model(), make_data()
    model.fit_statistics(data)
    change = data.next_obs - data.obs
    out, *_ = model.outputs(data)
    next_obs, rewards = predict(model, data)
    expected = data.obs + out * change.std(0, correction=0) + change.mean(0)
    torch.testing.assert_close(next_obs, expected, rtol=1e-4, atol=1e-4)
    assert not rewards.any()


@pytest.mark.parametrize("value", [0.0, 0.7, -1e4])
def test_constant_column_normalises_to_zero_and_denormalises_exactly(value: float) -> None:
    columns = torch.stack([torch.full((1000,), value), torch.linspace(-3, 5, 1000)], 1)
    normalizer = Normalizer(2)
    normalizer.fit(columns)
    normalized = normalizer.normalize(columns)
    assert not normalized[:, 0].any()
    assert normalized[:, 1].std(correction=0) == pytest.approx(1, rel=1e-5)
    wild = torch.full((1, 2), 123.0)
    assert normalizer.denormalize(wild)[0, 0] == torch.tensor(value)


def test_weight_norm_shows_divergence_in_the_last_step() -> None:
    model, data = make_model(), make_data()
    indices = torch.randint(400, (1, E, 32), generator=torch.Generator().manual_seed(3))
    sgd = torch.optim.SGD(model.parameters(), 1e38)
    losses = fit_ensemble(model, sgd, data, indices)
    assert losses["Training Loss"].isfinite().all()  # computed before the step
    losses = fit_ensemble(model, torch.optim.SGD(model.parameters(), torch.inf), data, indices)
    assert not losses["Weight Norm"].isfinite().all()


KINDS: list[dict[str, Any]] = [
    {},
    {"learns_reward": True},
    {"learns_reward": True, "termination": "learned"},
    {"model": "probabilistic", "model_loss": "nll"},
    {"model": "probabilistic", "model_loss": "column_nll", "learns_reward": True},
    {"model": "probabilistic", "model_loss": "nll", "termination": "learned"},
    {"model": "probabilistic", "num_elites": 2, "holdout_ratio": 0.2},
]


def constant_model(outputs: list[list[float]], **kind: Any) -> FFModel:
    """Return a model of two members that always output `outputs` (2, out).

    The observation has one dimension. Changes have mean 1 and std 2, and rewards have mean 10 and
    std 5.
    """
    config = ModelConfig(ensemble_size=2, size=4, n_layers=1, **kind.pop("flags", {}), **kind)
    model = FFModel(1, 1, config, True, make_generator(1, "test"))
    stats = model.target_stats
    stats.mean.copy_(torch.tensor([1.0, 10.0]))
    stats.std.copy_(torch.tensor([2.0, 5.0]))
    stats.inverse_std.copy_(1 / stats.std)
    with torch.no_grad():
        model.network.vector.zero_()
        model.network.layers[-1][1].copy_(torch.tensor(outputs)[:, None])
    return model


def constant_batch() -> Transitions:
    """Return two rows for two members: normalised changes 0 and 2, normalised rewards 1 and 1."""
    obs = torch.tensor([[3.0], [4.0]])
    batch = Transitions(
        obs, obs * 0, torch.tensor([15.0, 15.0]), obs + torch.tensor([[1.0], [5.0]]),
        torch.tensor([True, False]),
    )  # fmt: skip
    return batch.each(lambda column: column.expand(2, *column.shape))


def test_deterministic_loss_matches_hand_calculation() -> None:
    """Member 0 has the errors (1, -1) and (2, 2), and member 1 has (0, -2) and (1, 1)."""
    logs = [math.log(mse + NOISE_FLOOR) for mse in (1, 4, 2, 1)]
    for model_loss, total in (("mse", (1 + 4 + 2 + 1) / 2), ("column_nll", sum(logs) / 2)):
        model = constant_model([[1.0, 3.0], [0.0, 2.0]], model_loss=model_loss)
        found = model.loss(constant_batch())
        assert found.total.item() == pytest.approx(total)
    metrics = {name: value.item() for name, value in found.metrics.items()}
    assert metrics == {"Training Loss": (1 + 2) / 2, "Reward Loss": (4 + 1) / 2}
    assert not any(value.requires_grad for value in found.metrics.values())


def test_probabilistic_loss_matches_hand_calculation() -> None:
    """The raw log-variances of the two columns are -1 and 2, and the bounds are far away."""
    raw = [-1.0, 2.0]
    outputs = [[1.0, 3.0, *raw], [0.0, 2.0, *raw]]
    errors = [1, 4, 2, 1]
    by_nll = sum(e / math.exp(v) + v for e, v in zip(errors, raw * 2, strict=True)) / 2
    by_mse, by_column = sum(errors) / 2, sum(math.log(e + NOISE_FLOOR) for e in errors) / 2
    for model_loss, expected in (
        ("nll", by_nll),
        ("mse", by_nll + by_mse),
        ("column_nll", by_nll + by_column),
    ):
        model = constant_model(outputs, model="probabilistic", model_loss=model_loss)
        with torch.no_grad():
            model.log_var_bounds.copy_(
                torch.tensor([-30.0, 30.0]).view(1, 2, 1, 1).expand(2, -1, 1, 2)
            )
        found = model.loss(constant_batch())
        penalty = 2 * BOUND_WEIGHT * 60  # over both members
        assert found.total.item() == pytest.approx(expected + penalty)
        assert found.metrics["Training Loss"].item() == pytest.approx(1.5)


@pytest.mark.parametrize("kind", ["deterministic", "probabilistic"])
def test_learned_termination_adds_its_cross_entropy(kind: str) -> None:
    width = 2 if kind == "deterministic" else 4
    plain = [[0.5] * width, [-0.5] * width]
    logits = [1.5, -2.0]
    without = constant_model(plain, model=kind).loss(constant_batch())
    model = constant_model(
        [[*row, logit] for row, logit in zip(plain, logits, strict=True)],
        model=kind,
        termination="learned",
    )
    found = model.loss(constant_batch())
    by_member = [(math.log1p(math.exp(-z)) + math.log1p(math.exp(z))) / 2 for z in logits]
    assert (found.total - without.total).item() == pytest.approx(sum(by_member), rel=1e-4)
    assert found.metrics["Termination Loss"].item() == pytest.approx(sum(by_member) / 2)
    assert {**found.metrics, "Termination Loss": None} == {
        **without.metrics,
        "Termination Loss": None,
    }


def test_weight_decay_adds_half_the_weighted_squares_of_each_layer() -> None:
    flags: dict[str, Any] = {"n_layers": 1, "weight_decay": "0.1,0.3"}
    model, plain = make_model(**flags), make_model(**{**flags, "weight_decay": "0"})
    data = make_data(20)
    batch = data.each(lambda column: column.expand(E, *column.shape))
    for each in (model, plain):
        each.fit_statistics(data)
    squares = [weight.square().sum().item() for weight, _ in model.network.layers]
    expected = 0.5 * (0.1 * squares[0] + 0.3 * squares[1])
    found = (model.loss(batch).total - plain.loss(batch).total).item()
    assert found == pytest.approx(expected, rel=1e-4)


def make_kind(learns_reward: bool = False, **kind: Any) -> FFModel:
    """Return a small model in double precision, with fitted statistics and large last layers."""
    network: dict[str, Any] = kind.pop("network", {})
    config = ModelConfig(**{"ensemble_size": E, "size": 6, **kind})
    generator = make_generator(1, "test")
    model = FFModel(O, A, config, learns_reward, generator, output_scale=1.0, **network)
    data = make_data(50)
    model.fit_statistics(data._replace(next_obs=data.obs + data.obs.flip(1)))
    if kind.get("num_elites"):
        model.elites.copy_(torch.tensor([2, 0]))
    return model.double()


def arguments_of(model: FFModel, rows: int = 5) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the states, actions and noise of a step in double precision."""
    data = make_data(rows, seed=1)
    noise = torch.randn(model.members, rows, model.noise_dim).double() if model.noise_dim else None
    acs = data.acs.double().expand(model.members, -1, -1)
    return model.initial_state(data.obs.double()), acs, noise


@pytest.mark.parametrize("kind", KINDS)
def test_step_is_differentiable_in_states_actions_and_weights(kind: dict[str, Any]) -> None:
    """The padded tanh ensembles, which planning folds, are differentiable, too."""
    model = make_kind(**kind)
    state, acs, noise = (
        None if part is None else part.clone().requires_grad_() for part in arguments_of(model)
    )
    assert state is not None and acs is not None
    vector = model.network.vector

    def outcome(state: Tensor, acs: Tensor, vector: Tensor, noise: Tensor | None) -> Any:
        assert vector is model.network.vector  # gradcheck changes it in place
        next_state, prediction = model.step(state, acs, noise)
        return next_state, prediction.rewards

    assert torch.autograd.gradcheck(outcome, (state, acs, vector, noise), fast_mode=True)
    next_state, _ = model.step(state, acs, noise)
    for gradient in torch.autograd.grad(next_state.square().sum(), [state, acs, vector]):
        assert gradient.any()


def test_gradient_flows_through_many_steps() -> None:
    model = make_kind()
    state, acs, _ = arguments_of(model)
    acs = acs.clone().requires_grad_()
    for _ in range(5):
        state, prediction = model.step(state, acs)
    assert state.requires_grad
    (gradient,) = torch.autograd.grad(prediction.next_obs.sum(), acs)
    assert gradient.ne(0).all()


OTHER_NETWORKS: list[dict[str, Any]] = [
    {"network": {"padded": False}},
    {"network": {"padded": False, "layer_norm": LayerNorm(affine=True)}},
    {"network": {"padded": False, "activation": nn.functional.softplus}},
]


@pytest.mark.parametrize("kind", [*KINDS, *OTHER_NETWORKS])
def test_planning_step_equals_step_without_gradients(kind: dict[str, Any]) -> None:
    model = make_kind(**kind).float()
    state, acs, noise = (
        None if part is None else part.float() for part in arguments_of(model, rows=700)
    )
    assert state is not None and acs is not None
    with_noise = [None] if noise is None else [None, noise]
    for each in with_noise:
        exact_state, exact = model.step(state, acs, each)
        fast_state, fast = model.planning_step()(state, acs, each)
        torch.testing.assert_close(fast_state, exact_state.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fast.rewards, exact.rewards.detach(), rtol=1e-4, atol=1e-4)
        assert not fast_state.requires_grad
        assert (
            (fast.terminated is None)
            == (exact.terminated is None)
            == (not model.learns_termination)
        )
        if fast.terminated is not None and exact.terminated is not None:
            assert (fast.terminated == exact.terminated).float().mean() > 0.99


def test_planning_step_uses_the_current_weights() -> None:
    model = make_kind()
    state, acs, _ = arguments_of(model)
    before = model.planning_step()(state, acs)[0]
    assert torch.equal(before, model.planning_step()(state, acs)[0])
    with torch.no_grad():
        model.network.vector.mul_(1.5)
    assert not torch.allclose(before, model.planning_step()(state, acs)[0])


def test_noise_is_scaled_by_the_bounded_std() -> None:
    """The noise moves the state by noise times std, in units of the change."""
    model = make_kind(model="probabilistic")
    state, acs, noise = arguments_of(model)
    assert noise is not None
    moved = model.step(state, acs, noise)[0] - model.step(state, acs)[0]
    inputs = model.input_stats.normalize(torch.cat([state, acs], -1))
    raw = model.network(inputs)[..., O:]
    std = (0.5 * bounded(raw, model.log_var_bounds)).exp() * model.target_stats.std
    torch.testing.assert_close(moved, std * noise)


def test_constant_reward_has_no_loss() -> None:
    model = FFModel(O, A, ModelConfig(), True, make_generator(0, "reward"))
    data = make_data()._replace(rewards=torch.ones(400))
    model.fit_statistics(data)
    metrics = model.loss(data).metrics
    assert metrics["Reward Loss"] == 0
    assert metrics["Training Loss"] > 0


def test_obs_scale_is_the_std_of_the_observations() -> None:
    model, data = make_model(), make_data()
    model.fit_statistics(data)
    torch.testing.assert_close(model.obs_scale, data.obs.std(0, correction=0))
