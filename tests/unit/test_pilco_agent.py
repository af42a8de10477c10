"""Tests of PILCO's policies and agent: moments of whole steps, gradients, and the comparison."""

import dataclasses
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from cs285.agents import pilco_agent
from cs285.agents.pilco_agent import MORE_STARTS, PilcoAgent, PredictedTrial
from cs285.agents.pilco_problem import SaturatingCost
from cs285.collection.episodes import EpisodeKey, fresh_memory, run_episodes
from cs285.config.flags import from_flat
from cs285.config.pilco import PilcoConfig
from cs285.envs import inspect_task, make_env
from cs285.infrastructure.errors import TaskError, UsageError
from cs285.infrastructure.replay_buffer import Path
from cs285.models import bfgs
from cs285.models.base_model import Prediction
from cs285.models.gp import Features
from cs285.policies.base_policy import RandomPolicy
from cs285.policies.rbf_policy import (
    LinearPolicy,
    RBFPolicy,
    SquashedPolicy,
    measurement_noise,
)
from tests.toys import LinearReach
from tests.unit.test_moments import assert_sampled, double, products

CARTPOLE = "cartpole-swingup-v0"
SMALL = {"pilco_basis": 5, "pilco_line_searches": 3, "pilco_gp_line_searches": 20}


def make_agent(env_name: str = CARTPOLE, **flags: Any) -> PilcoAgent:
    values = {"env_name": env_name, "pilco_noise": "0.01", **SMALL, **flags}
    config = from_flat(PilcoConfig, values)
    return PilcoAgent(inspect_task(env_name), config, torch.device("cpu"))


def trial(agent: PilcoAgent, iteration: int, policy: Any = None, ep_len: int = 40) -> list[Path]:
    env_name = CARTPOLE if agent.task.ob_dim == 4 else "pendulum-swingup-v0"
    env = make_env(env_name, ep_len)
    policy = policy or RandomPolicy(agent.task.ac_low, agent.task.ac_high)
    return run_episodes([env], policy, [EpisodeKey(agent.seed, "train", iteration, 0)])


def fitted_agent(env_name: str = CARTPOLE, **flags: Any) -> PilcoAgent:
    agent = make_agent(env_name, **{"pilco_line_searches": 0, **flags})
    agent.add_to_replay_buffer(trial(agent, 0), 0)
    agent.train(0)
    return agent


FEATURES = Features(3, (1,))
BOX = np.array([-1.0, 0.0], np.float32), np.array([3.0, 0.5], np.float32)


def random_policy(kind: type[SquashedPolicy], third_harmonic: bool) -> SquashedPolicy:
    extra = (7,) if kind is RBFPolicy else ()
    policy = kind(FEATURES, *BOX, third_harmonic, *extra)
    starts = double([[0.1, 0.2, 0.3], [1.0, -2.0, 0.5], [-1.0, 3.0, 0.0]])
    vector = policy.initial_vector(starts, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    policy.vector.copy_(vector + 0.4 * torch.randn(len(vector), generator=generator))
    return policy


@pytest.mark.parametrize("kind", [RBFPolicy, LinearPolicy])
@pytest.mark.parametrize("third_harmonic", [True, False])
def test_action_moments_without_uncertainty_are_the_action(kind: Any, third_harmonic: bool) -> None:
    policy = random_policy(kind, third_harmonic)
    preliminary = policy.preliminary(policy.vector)
    obs = double([0.4, -0.7, 0.2])
    joint = FEATURES.augment(obs, torch.zeros(3, 3).double())
    found = policy.moments(preliminary, *joint)
    action = policy.act(preliminary, obs[None])[0]
    # The RBF network has a variance of at least 1e-6, which shifts the mean by half of that.
    torch.testing.assert_close(found.mean, action, atol=2e-5, rtol=0)
    assert found.cov.abs().max() < 1e-4
    many = policy.act(preliminary, 5 * torch.randn(1000, 3).double())
    low, high = (torch.from_numpy(bound) for bound in BOX)
    assert ((many >= low) & (many <= high)).all()
    assert many.std(0).min() > 0.005


@pytest.mark.parametrize("kind", [RBFPolicy, LinearPolicy])
def test_action_moments_equal_sampled_moments_for_gaussian_features(kind: Any) -> None:
    """Without angles, no approximation is left but the squash of a non-Gaussian output."""
    policy = random_policy(kind, True)
    preliminary = policy.preliminary(policy.vector)
    torch.manual_seed(0)
    mean, factor = double([0.3, 0.1, 0.9, 0.2]), 0.3 * torch.randn(4, 4).double()
    cov = factor @ factor.mT
    inner = preliminary.moments(mean, cov)
    inputs = mean + torch.randn(100_000, 4).double() @ factor.mT
    values = preliminary.values(inputs)
    floor = 1e-6 * torch.eye(2).double() if kind is RBFPolicy else 0.0
    assert_sampled(inner.mean, values)
    assert_sampled(inner.cov - floor, products(values, values))
    assert_sampled(cov @ inner.cross, products(inputs, values))


def test_values_of_the_network_are_near_its_targets_at_distant_centres() -> None:
    policy = RBFPolicy(Features(1, ()), BOX[0][:1], BOX[1][:1], True, 4)
    centres, targets = double([-9.0, -3.0, 3.0, 9.0]), double([0.3, -0.2, 0.5, 0.1])
    preliminary = policy.preliminary(torch.cat([double([0.0]), centres, targets]))
    found = preliminary.values(centres[:, None])[:, 0]
    torch.testing.assert_close(found, targets, atol=1e-3, rtol=0)


def test_one_step_equals_sampled_steps() -> None:
    """Moment matching is exact but for two Gaussian approximations, so the start is narrow."""
    agent = fitted_agent()
    mean, factor = double([0.3, -0.4, 0.5, 2.5]), 0.02 * torch.eye(4).double()
    features = agent.problem.features
    preliminary = agent.policy.preliminary(agent._random_vector(5, 0))
    joint = features.augment(mean, factor @ factor.mT)
    found_mean, found_cov = agent.model.propagate(*joint, agent.policy.moments(preliminary, *joint))
    torch.manual_seed(1)
    obs = mean + torch.randn(50_000, 4).double() @ factor.mT
    acs = agent.policy.act(preliminary, obs)
    change, std = agent.model.predict(obs, acs)
    values = obs + change
    cov = values.mT.cov() + torch.diag(std.square().mean(0))
    torch.testing.assert_close(found_mean, values.mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(found_cov, cov, atol=1e-4, rtol=0.05)


def test_uncertainty_and_prediction_noise_are_flags() -> None:
    full = fitted_agent()
    variants = {
        name: fitted_agent(**{name: value})
        for name, value in (("pilco_model_uncertainty", False), ("pilco_prediction_noise", True))
    }
    preliminary = full.policy.preliminary(full.policy.vector)
    joint = full.problem.features.augment(full.problem.start_mean, full.problem.start_cov)
    action = full.policy.moments(preliminary, *joint)
    mean, cov = full.model.propagate(*joint, action)
    certain_mean, certain = variants["pilco_model_uncertainty"].model.propagate(*joint, action)
    torch.testing.assert_close(certain_mean, mean)
    assert (certain.diagonal() < cov.diagonal()).all()
    _, noisy = variants["pilco_prediction_noise"].model.propagate(*joint, action)
    noise = (2 * full.model.log_noise).exp()
    torch.testing.assert_close(noisy - cov, torch.diag(noise), atol=1e-12, rtol=1e-6)


@pytest.mark.parametrize("exploration", [0.0, -0.5])
def test_gradient_of_the_predicted_cost_equals_finite_differences(exploration: float) -> None:
    agent = fitted_agent(pilco_horizon=3, pilco_max_rows=10, pilco_basis=3)
    start = agent._random_vector(1, 0) * 1.5

    def cost(vector: Tensor) -> Tensor:
        return agent.predict_moments(agent.policy.preliminary(vector), exploration).costs.sum()

    assert torch.autograd.gradcheck(cost, start.requires_grad_(), eps=1e-5, atol=1e-6)


def test_exploration_adds_the_sampled_std_of_the_cost() -> None:
    agent = fitted_agent(pilco_horizon=2)
    preliminary, cost = agent.policy.preliminary(agent.policy.vector), agent.problem.cost
    assert cost is not None
    plain = agent.predict_moments(preliminary)
    bonus = agent.predict_moments(preliminary, -0.5).costs - plain.costs
    torch.manual_seed(0)
    for t in (1, 2):
        joint_mean, joint_cov = agent.problem.features.augment(plain.mean[t], plain.cov[t])
        factor = torch.linalg.cholesky(joint_cov + 1e-12 * torch.eye(len(joint_mean)))
        draws = joint_mean + torch.randn(100_000, len(joint_mean)).double() @ factor.mT
        torch.testing.assert_close(bonus[t - 1], -0.5 * cost.at(draws).std(), atol=0, rtol=0.02)


@pytest.mark.parametrize("exploration", [0.0, -0.5])
def test_gradient_of_the_particles_cost_equals_finite_differences(exploration: float) -> None:
    agent = fitted_agent(
        pilco_horizon=3, pilco_max_rows=10, pilco_basis=3, pilco_propagation="particles",
        pilco_particles=4,
    )  # fmt: skip
    predict = agent._predictor(0)

    def cost(vector: Tensor) -> Tensor:
        return predict(agent.policy.preliminary(vector), exploration).costs.sum()

    start = (agent._random_vector(1, 0) * 1.5).requires_grad_()
    assert torch.autograd.gradcheck(cost, start, eps=1e-5, atol=1e-6)


def test_both_propagations_predict_about_the_same() -> None:
    """Their costs are 1 - reward and -reward per step."""
    flags: dict[str, Any] = {"pilco_horizon": 5, "pilco_policy": "linear"}
    moments = fitted_agent("pendulum-swingup-v0", **flags).predicted
    particles = fitted_agent(
        "pendulum-swingup-v0", pilco_propagation="particles", pilco_particles=2000, **flags
    ).predicted
    assert moments is not None
    assert particles is not None
    torch.testing.assert_close(particles.mean, moments.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(particles.cov, moments.cov, atol=0.02, rtol=0.2)
    torch.testing.assert_close(particles.costs + 1, moments.costs, atol=1e-3, rtol=0)


def test_search_lowers_the_predicted_cost_and_restarts_keep_the_best() -> None:
    def trained(**flags: Any) -> dict[str, Tensor]:
        agent = make_agent("pendulum-swingup-v0", pilco_noise="0.1,0.01", **flags)
        agent.add_to_replay_buffer(trial(agent, 0), 0)
        return agent.train(0)

    none = trained(pilco_line_searches=0)
    one, three = (trained(pilco_line_searches=4, pilco_restarts=count) for count in (1, 3))
    assert one["Predicted Cost"] < none["Predicted Cost"] - 0.02
    assert three["Predicted Cost"] <= one["Predicted Cost"]
    assert three["Policy Evaluations"] > 2 * one["Policy Evaluations"]


def test_real_cost_and_coverage_of_a_trial() -> None:
    agent = fitted_agent()
    paths = trial(agent, 1, agent.actor)
    agent.add_to_replay_buffer(paths, 1)
    metrics = agent.trial_metrics
    assert metrics["Trial Cost"].item() == pytest.approx(40 - paths[0].total_reward, abs=1e-4)
    assert agent.forecast is not None
    mean, std, real = agent.forecast
    assert mean.shape == std.shape == real.shape == (41, 4)
    np.testing.assert_array_equal(real[0], paths[0].obs[0])
    inside = (np.abs(real - mean) <= 1.96 * std)[1:].mean()
    assert metrics["Trial Coverage"].item() == pytest.approx(inside)


def test_noise_that_is_stored_is_the_noise_that_the_policy_saw() -> None:
    agent = fitted_agent(pilco_noise="0.5")
    paths = trial(agent, 1, agent.actor, ep_len=6)
    (measured,) = agent._measured(paths, 1)
    noise = measured.obs - paths[0].obs
    assert 0.3 < noise.std() < 0.7
    np.testing.assert_allclose(measured.next_obs[:-1], measured.obs[1:], atol=1e-5)
    seen = agent.eval_policy.get_action(measured.obs, [None] * 6)  # type: ignore[list-item]
    np.testing.assert_allclose(seen, paths[0].acs, atol=1e-3)
    unseen = agent.eval_policy.get_action(paths[0].obs, [None] * 6)  # type: ignore[list-item]
    assert np.abs(unseen - paths[0].acs).max() > 0.01


def test_noise_of_random_episodes_does_not_depend_on_their_actions() -> None:
    agent = make_agent(pilco_noise="0.5")
    (path,) = trial(agent, 0)
    (measured,) = agent._measured([path], 0)
    drew_actions = fresh_memory(EpisodeKey(1, "train", 0, 0), agent.device).generator
    same = measurement_noise(agent.problem.noise_std.float(), drew_actions).numpy()
    assert np.abs(measured.obs[0] - path.obs[0] - same).min() > 1e-3


def test_model_has_the_newest_rows_only() -> None:
    agent = make_agent(pilco_line_searches=0, pilco_max_rows=50, pilco_noise="0")
    agent.add_to_replay_buffer(trial(agent, 0), 0)
    agent.train(0)
    second = trial(agent, 1)
    agent.add_to_replay_buffer(second, 1)
    metrics = agent.train(1)
    assert metrics["GP Rows"].item() == 50
    newest = torch.from_numpy(second[0].acs[:, 0]).double()
    torch.testing.assert_close(agent.model.inputs[-40:, -1], newest)


def test_saturating_cost_of_a_certain_state_is_its_cost() -> None:
    weights = torch.diag(double([1.0, 2.0]))
    cost = SaturatingCost(double([0.5, -1.0]), torch.stack([weights, 4 * weights]))
    state = double([0.3, -0.2])
    squared = 0.2**2 + 2 * 0.8**2
    expected = 1 - (math.exp(-squared / 2) + math.exp(-4 * squared / 2)) / 2
    assert cost.at(state[None]).item() == pytest.approx(expected)
    assert cost.expected(state, torch.zeros(2, 2).double()).item() == pytest.approx(expected)


class Declares(LinearReach):
    """LinearReach with all declarations for PILCO."""

    angle_dims: Any = ()
    start_mean, start_std = np.zeros(2), np.ones(2)
    cost_target, cost_matrix, cost_width = np.zeros(2), np.eye(2), (0.5, 1)


gym.register("Declares-v0", entry_point=Declares, max_episode_steps=5)


@pytest.mark.parametrize(
    ("name", "value", "must_be"),
    [
        ("angle_dims", (7,), "different dimensions below 2"),
        ("angle_dims", (0, 0), "different dimensions below 2"),
        ("angle_dims", 1, "different dimensions below 2"),
        ("start_mean", np.zeros(9), "2 finite numbers"),
        ("start_mean", None, "2 finite numbers"),
        ("start_std", [0, -1], "2 non-negative, finite numbers"),
        ("cost_target", np.full(2, np.nan), "2 finite numbers"),
        ("cost_target", "near", "2 finite numbers"),
        ("cost_matrix", np.eye(3), "a matrix of finite numbers with 2 columns"),
        ("cost_matrix", np.ones(2), "a matrix of finite numbers with 2 columns"),
        ("cost_width", 0.0, "a positive, finite number or a list of them"),
        ("cost_width", [], "a positive, finite number or a list of them"),
    ],
)
def test_wrong_declaration_is_named(
    name: str, value: Any, must_be: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Declares, name, value)
    message = f"--env_name Declares-v0: its {name} is .*; must be {must_be}"
    with pytest.raises(UsageError, match=message):
        make_agent("Declares-v0")


def test_task_may_declare_several_widths() -> None:
    cost = make_agent("Declares-v0").problem.cost
    assert cost is not None
    torch.testing.assert_close(cost.weights, torch.stack([4 * torch.eye(2), torch.eye(2)]).double())


def test_task_without_declarations_needs_flags() -> None:
    for propagation, message in (
        ("moments", "for these --pilco_angle_dims; pass --pilco_target and --pilco_weights"),
        ("particles", "must be moments with --pilco_target and --pilco_weights, because"),
    ):
        with pytest.raises(UsageError, match=message):
            make_agent("Pendulum-v1", pilco_propagation=propagation)
    agent = make_agent("Pendulum-v1", pilco_target="1,0,0", pilco_weights="2,2,0.3")
    assert agent.problem.features.dims == [0, 1, 2]
    starts = agent.problem.start_cov.diagonal()
    assert (starts > 0.2).all()  # a uniform angle
    for flags, message in (
        ({"pilco_target": "1,0"}, "--pilco_target 1,0: must be 3 numbers"),
        ({"pilco_noise": "1,2"}, "--pilco_noise 1,2: must be 1 or 3 numbers"),
        ({"pilco_angle_dims": "3"}, "--pilco_angle_dims 3: must be different dimensions below 3"),
        ({"pilco_propagation": "particles"}, "this task has no get_reward"),
    ):
        values: dict[str, Any] = {"pilco_target": "1,0,0", "pilco_weights": "2,2,0.3", **flags}
        with pytest.raises(UsageError, match=message):
            make_agent("Pendulum-v1", **values)


@pytest.mark.parametrize(
    "reward",
    [
        lambda obs, acs: ((obs[..., 0] > 0).long(), None),
        lambda obs, acs: (obs[..., 0].detach(), None),
        lambda obs, acs: (torch.tensor(np.sin(obs[..., 0].numpy())), None),
    ],
)
def test_particles_need_a_differentiable_reward(reward: Any) -> None:
    config = from_flat(PilcoConfig, {"env_name": CARTPOLE, "pilco_propagation": "particles"})
    task = dataclasses.replace(inspect_task(CARTPOLE), get_reward=reward)
    with pytest.raises(UsageError, match="must be moments, because autograd cannot"):
        PilcoAgent(task, config, torch.device("cpu"))


def test_model_of_a_task_without_get_reward_returns_minus_the_cost() -> None:
    agent = make_agent("Pendulum-v1", pilco_target="1,0,0", pilco_weights="2,2,0.3")
    task, obs = agent.diagnosed().task, torch.randn(2, 5, 3)
    prediction = Prediction(obs, torch.zeros(2, 5), None)
    squares = 2 * (obs[..., 0] - 1) ** 2 + 2 * obs[..., 1] ** 2 + 0.3 * obs[..., 2] ** 2
    rewards, terminated = task.outcome(prediction, torch.zeros(2, 5, 1))
    torch.testing.assert_close(rewards, (-squares / 2).exp() - 1)
    assert terminated is None


class Large(gym.Env):
    """Starts with two equal, large observations, in an array that it reuses."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    broken_seed = -1

    def __init__(self) -> None:
        self.obs = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        assert seed != self.broken_seed
        self.obs.fill(1e6 * self.np_random.normal())
        return self.obs, {}


def test_start_distribution_of_equal_columns() -> None:
    gym.register("large-v0", Large, max_episode_steps=5)
    agent = make_agent("large-v0", pilco_target="0,0", pilco_weights="1,1")
    stds = agent.problem.start_cov.diagonal().sqrt()
    assert stds[0] == pytest.approx(1e6, rel=0.2)
    assert stds[1] == pytest.approx(stds[0])


def test_reset_that_fails_is_an_error_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Large, "broken_seed", 7)
    gym.register("seventh-v0", Large, max_episode_steps=5)
    with pytest.raises(TaskError, match="the environment seventh-v0 raised AssertionError"):
        make_agent("seventh-v0", pilco_target="0,0", pilco_weights="1,1")


def test_angle_dims_flag_replaces_the_declaration() -> None:
    agent = make_agent(pilco_angle_dims="none", pilco_target="0,0,0,3.14", pilco_weights="1,0,0,1")
    assert agent.problem.features.dims == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="declares no saturating cost for these"):
        make_agent(pilco_angle_dims="none")


def test_search_without_a_finite_prediction_keeps_the_policy_and_the_run() -> None:
    agent = fitted_agent(pilco_line_searches=3, pilco_horizon=3)
    before = agent.policy.vector.clone()
    agent.problem = agent.problem._replace(start_mean=torch.full((4,), torch.nan).double())
    agent.add_to_replay_buffer(trial(agent, 1), 1)
    metrics = agent.train(1)
    assert agent.predicted is None
    assert "Predicted Cost" not in metrics
    assert metrics["Policy Searches"].item() == 1 + MORE_STARTS
    assert all(part.isfinite().all() for part in metrics.values())
    assert torch.equal(agent.policy.vector, before)


def test_search_tries_random_policies_if_the_current_one_has_no_finite_prediction() -> None:
    agent = fitted_agent(pilco_line_searches=3, pilco_horizon=3)
    agent.policy.vector.fill_(torch.nan)
    agent.add_to_replay_buffer(trial(agent, 1), 1)
    metrics = agent.train(1)
    assert metrics["Policy Searches"].item() == 2
    assert agent.policy.vector.isfinite().all()
    assert agent.predicted is not None


class Kept:
    """Stands in for the trainer's file: keeps all states, and can begin with one."""

    def __init__(self, first: Any = None) -> None:
        self.first, self.states = first, list[Any]()

    def read(self, iteration: int) -> Any:
        return self.first

    def write(self, iteration: int, state: Any) -> None:
        self.states.append(state)


def test_search_continues_after_any_block_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bfgs, "BLOCK", 2)
    flags: dict[str, Any] = {
        "pilco_line_searches": 5, "pilco_restarts": 2, "pilco_noise": "0", "pilco_horizon": 3,
        "pilco_max_rows": 15,
    }  # fmt: skip

    def trained(kept: Kept) -> tuple[PilcoAgent, dict[str, Tensor]]:
        agent = make_agent("pendulum-swingup-v0", **flags)
        agent.unfinished = kept  # type: ignore[assignment]
        agent.add_to_replay_buffer(trial(agent, 0), 0)
        return agent, agent.train(0)

    kept = Kept()
    whole, metrics = trained(kept)
    assert len(kept.states) == 6  # after 2, 4 and 5 line searches of both searches
    for state in kept.states:
        agent, found = trained(Kept(state))
        assert torch.equal(agent.policy.vector, whole.policy.vector)
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in metrics.items()
        }


def test_start_without_variance_and_a_single_transition() -> None:
    agent = make_agent(pilco_line_searches=1, pilco_max_rows=1)
    agent.problem = agent.problem._replace(start_factor=torch.zeros(4, 4).double())
    agent.add_to_replay_buffer(trial(agent, 0), 0)
    metrics = agent.train(0)
    assert all(part.isfinite().all() for part in metrics.values())


def test_cost_of_the_task_must_fit_the_angles() -> None:
    with pytest.raises(UsageError, match="declares no saturating cost for these"):
        make_agent(pilco_angle_dims="none", pilco_target="0,0,0,3.14")


def test_std_of_the_cost_is_the_mean_over_its_widths() -> None:
    weights = torch.diag(double([1.0, 2.0]))
    cost = SaturatingCost(double([0.5, -1.0]), torch.stack([weights, 9 * weights]))
    mean, cov = double([0.3, -0.2]), 0.1 * torch.eye(2).double()
    stds = [cost._replace(weights=each[None]).std(mean, cov) for each in cost.weights]
    torch.testing.assert_close(cost.std(mean, cov), torch.stack(stds).mean())
    assert (stds[0] - stds[1]).abs() > 0.05


def test_starts_have_the_declared_or_estimated_distribution() -> None:
    declared = make_agent().problem
    torch.testing.assert_close(declared.start_cov, 0.01 * torch.eye(4).double())
    factor = torch.tril(torch.ones(4, 4)).double()
    drawn = declared._replace(start_factor=factor).draw_starts(torch.eye(4).double())
    torch.testing.assert_close(drawn - declared.start_mean, factor.mT)
    pendulum = make_agent("Pendulum-v1", pilco_target="1,0,0", pilco_weights="2,2,0.3").problem
    assert pendulum.start_mean.abs().max() < 0.2  # cosine and sine of a uniform angle


def test_exploration_of_particles_adds_the_weighted_std_of_the_rewards() -> None:
    agent = make_agent(
        "pendulum-swingup-v0", pilco_noise="0", pilco_propagation="particles", pilco_horizon=2
    )
    get_reward, rewards = agent.task.get_reward, list[Tensor]()
    assert get_reward is not None

    def recorded(obs: Tensor, acs: Tensor) -> Any:
        rewards.append(get_reward(obs, acs)[0])
        return rewards[-1], None

    agent.task = dataclasses.replace(agent.task, get_reward=recorded)
    agent.model.step = lambda state, acs, noise: (state + noise, None)  # type: ignore
    found = agent._predictor(0)(agent.policy.preliminary(agent.policy.vector), -0.5).costs
    expected = [-each.mean() - 0.5 * each.std(correction=0) for each in rewards]
    torch.testing.assert_close(found, torch.stack(expected))


def test_replay_buffer_has_the_observations_as_measured() -> None:
    agent = make_agent(pilco_noise="0.5")
    paths = trial(agent, 0, ep_len=5)
    agent.add_to_replay_buffer(paths, 0)
    (measured,) = agent._measured(paths, 0)
    np.testing.assert_array_equal(agent.replay_buffer.all().obs.numpy(), measured.obs)
    np.testing.assert_array_equal(agent.replay_buffer.all().next_obs.numpy(), measured.next_obs)


def test_searches_start_from_the_current_and_from_different_random_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They minimise the cost with exploration; the predicted trial is without it."""
    agent = make_agent(pilco_restarts=3, pilco_exploration=-0.5)
    starts, explorations = list[Tensor](), list[float]()

    def search(function: Any, progress: bfgs.SearchState, report: Any) -> bfgs.Minimum:
        starts.append(progress.point)
        function(progress.point)
        return bfgs.Minimum(progress.point, float(len(starts)), 1)

    def predict(preliminary: Any, exploration: float) -> PredictedTrial:
        explorations.append(exploration)
        return PredictedTrial(*(torch.zeros(shape) for shape in ((1,), (2, 4), (2, 4, 4))))

    monkeypatch.setattr(pilco_agent, "minimise", search)
    agent.predict_moments = predict  # type: ignore[method-assign]
    current = agent.policy.vector.clone()
    agent._search(0)
    assert torch.equal(starts[0], current)
    assert len({tuple(start.tolist()) for start in starts}) == 3
    assert explorations == [-0.5] * 3 + [0.0]
    assert torch.equal(agent.policy.vector, current)  # the best of the three


def test_predicted_cost_of_a_short_trial_is_that_of_its_steps() -> None:
    agent = make_agent()
    costs, cov = torch.arange(1.0, 6.0).double(), torch.eye(4).double().expand(6, 4, 4)
    agent.predicted = PredictedTrial(costs, torch.zeros(6, 4).double(), cov)
    agent.add_to_replay_buffer(trial(agent, 0, ep_len=3), 0)
    assert agent.trial_metrics["Trial Predicted Cost"].item() == 1 + 2 + 3


def test_initial_length_scales_of_the_policy() -> None:
    """The features are two plain columns, and sine and cosine of the angle."""
    policy = RBFPolicy(FEATURES, *BOX, True, 7)
    vector = policy.initial_vector(torch.zeros(3, 3).double(), torch.Generator())
    scales = vector[:8].view(2, 4).exp()
    torch.testing.assert_close(scales, double([[1.0, 1.0, 0.7, 0.7]] * 2))
