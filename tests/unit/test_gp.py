"""Tests of the Gaussian processes and of BFGS: likelihood, curb, fits, and predictions."""

import math
from pathlib import Path

import pytest
import torch
from sklearn import gaussian_process as gp
from torch import Tensor

from cs285.infrastructure.replay_buffer import Transitions
from cs285.models.bfgs import SearchState, minimise
from cs285.models.gp import (
    Features,
    GPModel,
    curb,
    fit_hyperparameters,
    initial_hyperparameters,
    negative_log_likelihood,
)
from cs285.models.moments import KernelSum, kernel_sum_moments, linear_moments
from tests.unit.test_moments import double, golden_posterior


def golden_inputs() -> tuple[Tensor, Tensor]:
    return golden_posterior().centres, torch.arange(1, 7).double().cos()


def logs(scales: list[float], variance: float, noise: float) -> Tensor:
    """Return hyper-parameters from length-scales and variances."""
    return double([*map(math.log, scales), math.log(variance) / 2, math.log(noise) / 2])


def test_likelihood_has_the_golden_value() -> None:
    found = negative_log_likelihood(logs([0.8, 1.1, 1.4], 1.5, 0.01), *golden_inputs())
    assert found.item() == pytest.approx(8.57695987098387, abs=1e-9)


def test_likelihood_and_predictions_equal_scikit_learn() -> None:
    torch.manual_seed(0)
    data = walk(30)
    model = GPModel(2, 1, ())
    model.fit(data, 5)
    inputs, target = model.inputs, model.targets[:, 1]
    scales, variance = model.log_scales[1].exp(), (2 * model.log_signal[1]).exp().item()
    noise = (2 * model.log_noise[1]).exp().item()
    kernel = gp.kernels.ConstantKernel(variance) * gp.kernels.RBF(scales.numpy())
    kernel += gp.kernels.WhiteKernel(noise)
    oracle = gp.GaussianProcessRegressor(kernel, alpha=0, optimizer=None)
    oracle.fit(inputs.numpy(), target.numpy())
    own = negative_log_likelihood(logs(scales.tolist(), variance, noise), inputs, target)
    assert own.item() == pytest.approx(-oracle.log_marginal_likelihood_value_, rel=1e-9)
    new = walk(10, seed=1)
    mean, std = oracle.predict(model.inputs_of(new.obs, new.acs).numpy(), return_std=True)
    own_mean, own_std = model.predict(new.obs, new.acs)
    torch.testing.assert_close(own_mean[:, 1], torch.from_numpy(mean), rtol=1e-7, atol=1e-9)
    # The oracle's variance includes the noise.
    variances = torch.from_numpy(std).square() - noise
    torch.testing.assert_close(own_std[:, 1].square(), variances, rtol=1e-5, atol=1e-9)


def walk(rows: int, seed: int = 0, noise: float = 0.02) -> Transitions:
    """Return transitions of a smooth system with 2 observation dimensions and noise."""
    generator = torch.Generator().manual_seed(seed)
    obs = 2 * torch.randn(rows, 2, generator=generator)
    acs = torch.randn(rows, 1, generator=generator)
    changes = torch.stack([0.3 * torch.sin(obs[:, 1]) + 0.2 * acs[:, 0], 0.2 * obs[:, 0].cos()], 1)
    changes = changes + noise * torch.randn(rows, 2, generator=generator)
    ends = torch.zeros(rows, dtype=torch.bool)
    return Transitions(obs, acs, torch.zeros(rows), obs + changes, ends)


def test_fit_finds_the_noise_and_the_relevant_inputs() -> None:
    model = GPModel(2, 1, ())
    metrics = model.fit(walk(120), 100)
    assert metrics["GP Rows"].item() == 120
    torch.testing.assert_close(
        model.log_noise.exp(), torch.full((2,), 0.02).double(), rtol=0.3, atol=0
    )
    scales = model.log_scales.exp()
    assert scales[0, 0] > 10 * scales[0, 1]  # the first change does not depend on the first input
    assert scales[1, 1] > 10 * scales[1, 0]
    new = walk(200, seed=1, noise=0.0)
    mean, std = model.predict(new.obs, new.acs)
    errors = (mean - (new.next_obs - new.obs)).abs()
    assert errors.mean() < 0.02
    assert 0.85 < (errors < 2 * std).double().mean() <= 1


def test_second_fit_starts_from_the_first_and_is_not_worse() -> None:
    data = walk(40)
    model = GPModel(2, 1, ())
    first = model.fit(data, 30)["GP Loss"]
    again = model.fit(data, 2)["GP Loss"]  # two line searches alone do not get there
    assert again <= first + 1e-9
    assert again < GPModel(2, 1, ()).fit(data, 2)["GP Loss"] - 0.1


def test_curb_is_flat_and_then_steep_on_both_sides() -> None:
    std = double([2.0, 0.5])
    start = torch.cat([std.log(), double([0.0, -math.log(10)])])
    assert curb(start, std) < 1e-12
    for index, step in ((0, math.log(110)), (1, -math.log(110)), (3, -math.log(150))):
        moved = start.clone()
        moved[index] += step
        assert curb(moved, std) > 1.5
        moved[index] -= step / 2
        assert curb(moved, std) < 1e-3


def test_noise_free_data_do_not_break_the_fit() -> None:
    data = walk(60, noise=0.0)
    model = GPModel(2, 1, ())
    model.fit(data, 300)
    assert (model.signal_to_noise < 3000).all()
    mean, _ = model.predict(data.obs, data.acs)
    assert (mean - (data.next_obs - data.obs)).abs().max() < 0.01


def test_constant_columns_and_changes_are_harmless() -> None:
    data = walk(30)
    obs = torch.cat([data.obs, torch.full((30, 1), 0.7), torch.arange(30.0)[:, None]], 1)
    still = torch.stack([torch.zeros(30), torch.full((30,), 0.5)], 1)
    changes = torch.cat([data.next_obs - data.obs, still], 1)
    model = GPModel(4, 1, ())
    model.fit(data._replace(obs=obs, next_obs=obs + changes), 50)
    mean, std = model.predict(obs, data.acs)
    assert mean[:, 2].abs().max() < 1e-6
    assert std[:, 2].max() < 1e-5
    assert (mean[:, 3] - 0.5).abs().max() < 0.01


def test_duplicate_rows_do_not_break_the_posterior() -> None:
    data = walk(20, noise=0.0).each(lambda part: torch.cat([part, part]))
    model = GPModel(2, 1, ())
    model.fit(data, 100)
    model.log_noise.fill_(-40.0)  # far beyond the curb
    model._functions = None
    assert model.functions.beta.isfinite().all()
    assert all(part.isfinite().all() for part in model.predict(data.obs, data.acs))


def test_features_replace_angles_by_sine_and_cosine() -> None:
    features = Features(3, (0, 2))
    obs = double([[0.5, 7.0, -2.0]])
    expected = [0.5, 7.0, -2.0, math.sin(0.5), math.cos(0.5), math.sin(-2), math.cos(-2)]
    torch.testing.assert_close(features.augmented(obs)[0], double(expected))
    torch.testing.assert_close(features.of(obs)[0], double([7.0, *expected[3:]]))
    mean, cov = features.augment(obs[0], torch.zeros(3, 3).double())
    torch.testing.assert_close(mean, double(expected))
    assert not cov.any()
    assert Features(3, ()).dims == [0, 1, 2]
    torch.testing.assert_close(Features(3, ()).of(obs), obs)


def test_step_is_a_dynamics_model_step() -> None:
    data = walk(50)
    model = GPModel(2, 1, (1,))
    model.fit(data, 30)
    state = model.initial_state(data.obs[:7])
    next_state, prediction = model.step(state, data.acs[None, :7])
    assert next_state.dtype == torch.float32
    assert prediction.next_obs.shape == (1, 7, 2)
    mean, std = model.predict(data.obs[:7], data.acs[:7])
    torch.testing.assert_close(next_state[0].double(), data.obs[:7] + mean, atol=1e-6, rtol=0)
    noise = torch.ones(1, 7, 2)
    sampled, _ = model.step(state, data.acs[None, :7], noise)
    torch.testing.assert_close((sampled - next_state)[0].double(), std, atol=1e-6, rtol=0)


def test_gradients_after_a_step_in_inference_mode() -> None:
    model = GPModel(2, 1, (1,))
    data = walk(50)
    model.fit(data, 30)
    with torch.inference_mode():
        model.step(model.initial_state(data.obs[:7]), data.acs[None, :7])
    acs = data.acs[None, :7].clone().requires_grad_()
    next_obs, _ = model.step(model.initial_state(data.obs[:7]), acs)
    next_obs.sum().backward()
    assert acs.grad is not None and acs.grad.abs().min() > 0


def test_saved_model_predicts_the_same(tmp_path: Path) -> None:
    data = walk(50)
    model, copy = GPModel(2, 1, (1,)), GPModel(2, 1, (1,))
    model.fit(data, 30)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    copy.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(copy.predict(data.obs, data.acs)[0], model.predict(data.obs, data.acs)[0])


def test_fit_keeps_the_better_of_two_starts() -> None:
    model = GPModel(2, 1, ())
    data = walk(40)
    inputs = model.inputs_of(data.obs, data.acs)
    target = (data.next_obs - data.obs)[:, 0].double()
    good, bad = initial_hyperparameters(inputs, target), double([9.0, 9.0, 9.0, 5.0, -9.0])
    both = fit_hyperparameters(inputs, target, [bad, good], 5).value
    alone = [fit_hyperparameters(inputs, target, [start], 5).value for start in (bad, good)]
    assert both == min(alone)
    assert alone[0] != alone[1]


def test_minimise_finds_a_minimum_and_survives_failures() -> None:
    def rosenbrock(point: Tensor) -> Tensor:
        x, y = point
        value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
        return value if x < 1.05 else value * torch.nan

    found = minimise(rosenbrock, SearchState.at(double([-1.0, 1.0]), 200))
    torch.testing.assert_close(found.point, double([1.0, 1.0]), atol=1e-5, rtol=0)
    assert found.value < 1e-9

    def fails(point: Tensor) -> Tensor:
        if point[0] > 0.5:
            torch.linalg.cholesky(-torch.eye(2))
        return (point[0] - 0.4) ** 2

    assert minimise(fails, SearchState.at(double([-3.0]), 50)).point.item() == pytest.approx(
        0.4, abs=1e-6
    )
    nothing = minimise(lambda point: point.sum() * torch.nan, SearchState.at(double([1.0]), 5))
    assert (nothing.value, nothing.point.item()) == (math.inf, 1.0)
    assert minimise(rosenbrock, SearchState.at(double([-1.0, 1.0]), 0)).evaluations == 0


def test_minimise_leaves_a_flat_start() -> None:
    """PILCO's cost differs from its largest value by 1e-4 at the start."""

    def well(point: Tensor) -> Tensor:
        return 40 - 39 * (-0.5 * (point - 4.5).square().sum()).exp()

    start = double([0.0])
    assert 40 - well(start) < 2e-3
    assert minimise(well, SearchState.at(start, 50)).point.item() == pytest.approx(4.5, abs=1e-4)


def test_much_noise_gives_the_prior() -> None:
    data = walk(30)
    model = GPModel(2, 1, ())
    model.fit(data, 5)
    model.log_noise.fill_(20.0)
    model._functions = None
    mean, std = model.predict(data.obs, data.acs)
    assert mean.abs().max() < 1e-6
    torch.testing.assert_close(std, model.log_signal.exp().expand_as(std))


def test_model_without_change_keeps_the_moments() -> None:
    """Zero targets: the next observation has the mean and the covariance of this one."""
    model = GPModel(2, 1, (), is_uncertain=False)
    data = walk(20)
    model.fit(data._replace(next_obs=data.obs), 5)
    mean, cov = double([0.3, -0.2]), double([[0.5, 0.1], [0.1, 0.3]])
    action = linear_moments(double([[1.0, 2.0]]), double([0.5]), mean, cov)
    next_mean, next_cov = model.propagate(mean, cov, action)
    torch.testing.assert_close(next_mean, mean)
    torch.testing.assert_close(next_cov, cov)


def test_moments_of_many_functions_equal_those_of_each_pair() -> None:
    functions, mean, cov = golden_posterior(), double([0.1, -0.2, 0.3]), 0.1 * torch.eye(3).double()
    assert functions.inverse is not None
    whole = kernel_sum_moments(functions, mean, cov)
    for a in range(2):
        alone = KernelSum.of(
            functions.centres,
            functions.inverse_scales[a : a + 1],
            functions.variances[a : a + 1],
            functions.beta[a : a + 1],
            functions.inverse[a : a + 1],
        )
        found = kernel_sum_moments(alone, mean, cov)
        torch.testing.assert_close(found.mean[0], whole.mean[a])
        torch.testing.assert_close(found.cov[0, 0], whole.cov[a, a])
        torch.testing.assert_close(found.cross[:, 0], whole.cross[:, a])


def test_posterior_belongs_to_the_last_fit_and_to_loaded_weights() -> None:
    model, other = GPModel(2, 1, ()), GPModel(2, 1, ())
    for seed, each in ((0, model), (1, other)):
        each.fit(walk(15, seed), 3)
        assert torch.equal(each.functions.centres, each.inputs)  # computes the posterior
    model.fit(walk(15, seed=2), 3)
    assert torch.equal(model.functions.centres, model.inputs)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.functions.beta, model.functions.beta)


def test_scales_are_in_units_of_the_data() -> None:
    data, model = walk(20), GPModel(2, 1, ())
    model.fit(data, 1)
    torch.testing.assert_close(model.obs_scale, data.obs.double().std(0, correction=0))
    model.log_scales.copy_(double([[2.0, 0.5, 4.0], [1.0, 3.0, 8.0]]).log())
    shortest = double([1.0, 0.5, 4.0])
    torch.testing.assert_close(model.relative_scales(), shortest / model.inputs.std(0))
