import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cs285.config.model import ModelConfig
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.ff_model import FFModel, Normalizer
from cs285.models.losses import NOISE_FLOOR, Head
from cs285.models.training import FitGradient, fit_ensemble, fit_gradient
from cs285.networks.ensemble_mlp import EnsembleMLP
from cs285.networks.folded_tanh import fold

E, O, A, SIZE = 3, 4, 2, 50


def make_model(learns_reward: bool = False, **changes: int) -> FFModel:
    config = ModelConfig(**{"ensemble_size": E, "size": SIZE, **changes})  # type: ignore[arg-type]
    return FFModel(O, A, config, learns_reward, make_generator(1, "test"))


def make_data(rows: int = 400, seed: int = 0) -> Transitions:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, O, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 3.0])
    acs = torch.rand(rows, A, generator=generator) * 2 - 1
    change = torch.tanh(obs @ torch.randn(O, O, generator=generator)) + acs.sum(1, keepdim=True)
    rewards = 500 + 30 * (obs[:, 0] - acs[:, 1])
    return Transitions(obs, acs, rewards, obs + change, torch.zeros(rows, dtype=torch.bool))


def separate_networks(model: FFModel) -> list[nn.Sequential]:
    """Build each member anew from torch.nn, unpadded, with a copy of its weights."""
    networks = []
    widths = [O + A, SIZE, SIZE, O]
    for member in range(E):
        layers: list[nn.Module] = []
        for (weight, bias), i, o in zip(model.network.layers, widths[:-1], widths[1:], strict=True):
            linear = nn.Linear(i, o)
            linear.weight.data = weight[member, :i, :o].T.clone()
            linear.bias.data = bias[member, 0, :o].clone()
            layers += [linear, nn.Tanh()]
        networks.append(nn.Sequential(*layers[:-1]))
    return networks


def test_stack_is_separate_networks_with_separate_adams() -> None:
    model, data = make_model(), make_data()
    networks = separate_networks(model)
    indices = torch.randint(400, (10, E, 32), generator=torch.Generator().manual_seed(3))
    losses = fit_ensemble(model, torch.optim.Adam(model.parameters(), 1e-3), data, indices)

    change = data.next_obs - data.obs
    inputs = torch.cat([data.obs, data.acs], 1)
    x = (inputs - inputs.mean(0)) / inputs.std(0, correction=0)
    y = (change - change.mean(0)) / change.std(0, correction=0)
    expected = np.zeros((10, E))
    for member, network in enumerate(networks):
        adam = torch.optim.Adam(network.parameters(), 1e-3)
        for step in range(10):
            adam.param_groups[0]["lr"] = 5e-3 * (10 - step) / 11  # from five times it to 0
            rows = indices[step, member]
            mse = (network(x[rows]) - y[rows]).square().mean(0)
            loss = (mse + NOISE_FLOOR).log().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            expected[step, member] = mse.mean().item()
        prediction = model(x.expand(E, -1, -1))[member]
        torch.testing.assert_close(prediction, network(x), rtol=1e-4, atol=1e-5)
        next_obs, *_ = model.predictor()(data.obs.expand(E, -1, -1), data.acs.expand(E, -1, -1))
        expected_next = data.obs + network(x) * change.std(0, correction=0) + change.mean(0)
        torch.testing.assert_close(next_obs[member], expected_next, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(losses["Training Loss"].numpy(), expected.mean(1), rtol=1e-5)


def plain_gradient(
    network: EnsembleMLP, head: Head, decay: Tensor, inputs: Tensor, targets: Tensor
) -> FitGradient:
    """The gradient of the plain mean squared error, as the homework takes it."""
    trace = network.trace(inputs)
    errors = trace.outputs - targets
    gradient = network.gradient(trace, errors * (2 / errors[0].numel()))
    return FitGradient((gradient,), errors.square().mean((0, 1)))


def test_columns_of_noise_do_not_drown_the_others() -> None:
    """Those are learned in fewer steps than by the plain mean squared error."""
    data, generator = make_data(2000), torch.Generator().manual_seed(5)
    noise = torch.randn(2000, 2, generator=generator) * torch.tensor([1.0, 10.0])
    noisy = data._replace(next_obs=torch.cat([data.obs[:, :2] + noise, data.next_obs[:, 2:]], 1))
    indices = torch.randint(2000, (300, E, 64), generator=generator)
    errors = []
    for differentiate in (fit_gradient, plain_gradient):
        model = make_model()
        adam = torch.optim.Adam(model.parameters(), 3e-3)
        fit_ensemble(model, adam, noisy, indices, differentiate)
        predicted, *_ = model.predictor()(data.obs.expand(E, -1, -1), data.acs.expand(E, -1, -1))
        errors.append((predicted - data.next_obs).square().mean((0, 1))[2:])
    assert (errors[0] < 0.6 * errors[1]).all()


def test_every_member_is_drawn_by_its_own_fan_in() -> None:
    model = make_model(ensemble_size=5, size=64)
    fans, gains = [O + A, 64, 64], [1.0, 1.0, 0.1]
    for (padded, bias), fan_in, gain in zip(model.network.layers, fans, gains, strict=True):
        weight = padded[:, :fan_in, :64]
        for parameter in (weight, bias):
            assert parameter.abs().max() <= gain * (3 / fan_in) ** 0.5
        stds = weight.flatten(1).std(1)
        torch.testing.assert_close(
            stds, torch.full_like(stds, gain * fan_in**-0.5), rtol=0.15, atol=0
        )
        assert len({tuple(row[:5].tolist()) for row in weight.flatten(1)}) == 5


def test_padding_stays_exactly_zero_through_training() -> None:
    model = make_model()
    (first, first_bias), (second, _), (last, _) = model.network.layers
    assert first.shape == (E, O + A, 64)
    indices = torch.randint(400, (20, E, 32), generator=torch.Generator().manual_seed(3))
    fit_ensemble(model, torch.optim.Adam(model.parameters(), 1e-2), make_data(), indices)
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
    others[:, 1:] = 0  # other batches for members 1 and 2
    predictions = []
    for batches in (indices, others):
        model = make_model()
        fit_ensemble(model, torch.optim.Adam(model.parameters(), 1e-3), make_data(), batches)
        predictions.append(model(torch.ones(E, 1, O + A)))
    assert torch.equal(predictions[0][0], predictions[1][0])
    assert not torch.equal(predictions[0][1], predictions[1][1])


def test_model_learns_state_and_reward() -> None:
    model, rows = make_model(learns_reward=True), make_data(2500)
    data = Transitions(*(column[:2000] for column in rows))
    fresh = Transitions(*(column[2000:] for column in rows))
    indices = torch.randint(2000, (400, E, 128), generator=torch.Generator().manual_seed(3))
    losses = fit_ensemble(model, torch.optim.Adam(model.parameters(), 3e-3), data, indices)
    assert losses["Training Loss"][-1] < 0.05 * losses["Training Loss"][0]
    assert losses["Reward Loss"][-1] < 0.05 * losses["Reward Loss"][0]
    next_obs, rewards, _ = model.predictor()(
        fresh.obs.expand(E, -1, -1), fresh.acs.expand(E, -1, -1)
    )
    assert next_obs.shape == (E, 500, O)
    errors = (next_obs - fresh.next_obs).square().mean((0, 1))
    assert (errors < 0.1 * (fresh.next_obs - fresh.obs).var(0)).all()
    assert (rewards - fresh.rewards).square().mean() < 0.1 * fresh.rewards.var()


def test_predict_denormalises_the_change_and_adds_it() -> None:
    model, data = make_model(), make_data()
    model.fit_statistics(data)
    change = data.next_obs - data.obs
    inputs, _ = model.regression_data(data)
    out = model(inputs.expand(E, -1, -1))
    next_obs, rewards, _ = model.predictor()(data.obs.expand(E, -1, -1), data.acs.expand(E, -1, -1))
    expected = data.obs + out * change.std(0, correction=0) + change.mean(0)
    torch.testing.assert_close(next_obs, expected, rtol=1e-4, atol=1e-4)
    assert not rewards.any()


@pytest.mark.parametrize("value", [0.0, 0.7, -1e4])
def test_constant_column_is_silent_and_comes_back_exactly(value: float) -> None:
    columns = torch.stack([torch.full((1000,), value), torch.linspace(-3, 5, 1000)], 1)
    normalizer = Normalizer(2)
    normalizer.fit(columns)
    normalized = normalizer.normalize(columns)
    assert not normalized[:, 0].any()
    assert normalized[:, 1].std(correction=0) == pytest.approx(1, rel=1e-5)
    wild = torch.full((1, 2), 123.0)
    assert normalizer.denormalize(wild)[0, 0] == torch.tensor(value)


def test_weights_that_diverge_in_the_very_last_step_are_seen() -> None:
    model, data = make_model(), make_data()
    indices = torch.randint(400, (1, E, 32), generator=torch.Generator().manual_seed(3))
    sgd = torch.optim.SGD(model.parameters(), 1e38)
    losses = fit_ensemble(model, sgd, data, indices)
    assert losses["Training Loss"].isfinite().all()  # taken before the step
    losses = fit_ensemble(model, torch.optim.SGD(model.parameters(), torch.inf), data, indices)
    assert not losses["Weight Norm"].isfinite().all()


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [32, 50, 64])
def test_folding_changes_nothing(n_layers: int, size: int) -> None:
    model = make_model(n_layers=n_layers, size=size)
    for _, bias in model.network.layers:
        bias *= 3
    inputs = torch.randn(E, 20, O + A)
    with_one = torch.cat([inputs, torch.ones(E, 20, 1)], -1)
    folded = fold(model.network.layers, model.network.widths)(with_one)
    torch.testing.assert_close(folded, model(inputs), rtol=1e-5, atol=1e-5)
    assert torch.sigmoid(torch.full((64,), 20.0)).eq(1).all()
