"""Test the planner on tasks with a known optimal plan."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cs285.config.planner import PlannerConfig
from cs285.infrastructure.errors import UsageError
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Memory
from cs285.policies.MPC_policy import Draws, MPCPolicy
from cs285.policies.planners.cem import cross_entropy
from cs285.policies.planners.sampling import (
    SamplingContext,
    elite_statistics,
    rank_non_finite_last,
)

HORIZON = 4
LOW, HIGH = np.array([-1.0, -2.0], np.float32), np.array([1.0, 0.5], np.float32)


class LinearModel(DynamicsModel):
    """An analytic ensemble: s' = s + gain * a, with one gain per member."""

    def __init__(self, gains: list[float]) -> None:
        super().__init__()
        self.gains = torch.tensor(gains)[:, None, None]
        self.members = len(gains)

    def step(self, obs: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = obs + self.gains * acs
        return next_obs, Prediction(next_obs, self.rewards(acs), None)

    def rewards(self, acs: Tensor) -> Tensor:
        return torch.zeros(acs.shape[:-1])


def quadratic_reward(observations: Any, actions: Any) -> tuple[Any, Any]:
    """Return the negative LQR cost of the post-step state and the action."""
    cost = (observations**2).sum(-1) + 0.5 * (actions**2).sum(-1)
    return -cost, cost < 0


def lqr_first_action(state: np.ndarray, horizon: int) -> np.ndarray:
    """Minimise sum_t |s_t+1|^2 + 0.5 |a_t|^2 with s_t+1 = s_t + a_t by the Riccati recursion."""
    value = 0.0  # coefficient of the cost-to-go, 0 after the last step
    for _ in range(horizon):
        cost = 1 + value
        gain = cost / (cost + 0.5)
        value = cost * 0.5 / (cost + 0.5)
    return -gain * state


def make_policy(model: Any, reward: Any, low: Any = LOW, high: Any = HIGH, **flags: Any) -> Any:
    config = PlannerConfig(**{"mpc_horizon": HORIZON, **flags})
    task = TaskModel(reward, learns_reward=reward is None)
    return MPCPolicy(model, task, low, high, config, torch.device("cpu"))


def memories(*seeds: int) -> list[Memory]:
    return [Memory(torch.Generator().manual_seed(seed)) for seed in seeds]


CEM = {
    "mpc_action_sampling_strategy": "cem",
    "mpc_num_action_sequences": 2000,
    "cem_iterations": 10,
    "cem_num_elites": 50,
}


def test_cem_finds_the_linear_quadratic_optimum() -> None:
    wide = np.array([4.0, 4.0], np.float32)
    policy = make_policy(LinearModel([1.0]), quadratic_reward, -wide, wide, **CEM)
    state = np.array([1.5, -0.8], np.float32)
    action = policy.get_action(state[None], memories(0))
    np.testing.assert_allclose(action[0], lqr_first_action(state, HORIZON), atol=0.03)


def test_cem_stays_in_an_asymmetric_box_and_finds_its_corner() -> None:
    policy = make_policy(LinearModel([1.0]), quadratic_reward, **CEM)
    action = policy.get_action(np.array([[9.0, -9.0]], np.float32), memories(0))
    np.testing.assert_allclose(action[0], [-1.0, 0.5], atol=1e-3)


def test_more_cem_iterations_reduce_the_error() -> None:
    state = np.array([[1.5, -0.8]], np.float32)
    wide = np.array([4.0, 4.0], np.float32)
    errors = []
    for iterations in (1, 3, 10):
        flags = {**CEM, "cem_iterations": iterations, "mpc_num_action_sequences": 200}
        policy = make_policy(LinearModel([1.0]), quadratic_reward, -wide, wide, **flags)
        actions = np.concatenate([policy.get_action(state, memories(i)) for i in range(20)])
        errors.append(np.abs(actions - lqr_first_action(state, HORIZON)).mean())
    assert errors[0] > errors[1] > errors[2]


def test_random_shooting_executes_its_best_candidate() -> None:
    policy = make_policy(LinearModel([1.0]), quadratic_reward, mpc_num_action_sequences=64)
    state = np.array([0.4, -0.3], np.float32)
    action = policy.get_action(state[None], memories(5))
    context = SamplingContext(policy.ac_low, policy.ac_high, policy.config, memories(5))
    sequences = context.uniform()[0].numpy()
    assert ((sequences >= LOW) & (sequences <= HIGH)).all()
    best, best_return = None, -np.inf
    for sequence in sequences:  # an independent evaluation in numpy
        position, total = state.copy(), 0.0
        for step in sequence:
            position = position + step
            total -= (position**2).sum() + 0.5 * (step**2).sum()
        if total > best_return:
            best, best_return = sequence[0], total
    np.testing.assert_allclose(action[0], best)


def test_return_is_the_mean_over_members_with_separate_states() -> None:
    policy = make_policy(LinearModel([1.0, 3.0]), quadratic_reward)
    sequences = torch.tensor([[1.0, 0.0], [2.0, 0.0]]).view(1, 1, 2, 2)
    returns = policy.evaluate_sequences(torch.zeros(2, 1, 2), sequences, Draws())
    slow = (1**2 + 0.5) + (3**2 + 0.5 * 4)
    fast = (3**2 + 0.5) + (9**2 + 0.5 * 4)
    assert returns.item() == pytest.approx(-(slow + fast) / 2)


@pytest.mark.parametrize("strategy", ["random", "cem"])
def test_environments_in_a_batch_do_not_influence_each_other(strategy: str) -> None:
    policy = make_policy(
        LinearModel([0.9, 1.1]), quadratic_reward, mpc_action_sampling_strategy=strategy
    )
    states = np.array([[1.0, 0.2], [-0.5, 0.4], [0.0, 0.0]], np.float32)
    together = policy.get_action(states, memories(1, 2, 3))
    alone = [policy.get_action(states[i : i + 1], memories(i + 1))[0] for i in range(3)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("strategy", ["random", "cem"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_candidates_are_never_executed(strategy: str, bad: float) -> None:
    def reward(observations: Any, actions: Any) -> tuple[Any, Any]:
        """Return `bad` if the first action component is positive, else a negative reward."""
        diverges = actions[..., 0] > 0
        value = torch.where(diverges, bad, -10 - actions[..., 0].abs())
        return value, diverges

    policy = make_policy(
        LinearModel([1.0]), reward, mpc_action_sampling_strategy=strategy, cem_num_elites=100
    )
    actions = policy.get_action(np.zeros((5, 2), np.float32), memories(*range(5)))
    assert (actions[:, 0] <= 0).all()


@pytest.mark.parametrize("strategy", ["random", "cem"])
def test_no_finite_plan_gives_nan(strategy: str) -> None:
    def reward(observations: Any, actions: Any) -> tuple[Any, Any]:
        return observations[..., 0] * torch.nan, None

    policy = make_policy(LinearModel([1.0]), reward, mpc_action_sampling_strategy=strategy)
    assert np.isnan(policy.get_action(np.zeros((1, 2), np.float32), memories(0))).all()


def test_non_finite_returns_rank_last() -> None:
    returns = torch.tensor([[-5.0, torch.nan, torch.inf, -torch.inf, -1e30]])
    assert rank_non_finite_last(returns).argsort(descending=True)[0, :2].tolist() == [0, 4]


def test_elite_statistics_by_hand() -> None:
    sequences = torch.tensor([1.0, 2.0, 4.0, 100.0]).view(1, 4, 1, 1)
    returns = torch.tensor([[3.0, 1.0, 2.0, torch.nan]])
    mean, std = elite_statistics(lambda _: returns, sequences, 2)
    assert (mean.item(), std.item()) == (2.5, 1.5)  # of 1 and 4; the std divides by n
    mean, std = elite_statistics(lambda _: returns, sequences, 4)
    assert mean.item() == pytest.approx(7 / 3)  # the NaN candidate is not an elite


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, 4.0), (0.0, 1.0), (0.25, 1.75)])
def test_alpha_weights_the_new_elites(alpha: float, expected: float) -> None:
    """The elite means are 1 and then 4, so the result is alpha * 4 + (1 - alpha) * 1."""
    config = PlannerConfig(
        mpc_horizon=1,
        mpc_num_action_sequences=1,
        mpc_action_sampling_strategy="cem",
        cem_iterations=2,
        cem_num_elites=1,
        cem_alpha=alpha,
    )

    class Scripted(SamplingContext):
        def uniform(self) -> Tensor:
            return torch.full((1, 1, 1, 1), 1.0)

        def gaussian(self, mean: Tensor, std: Tensor) -> Tensor:
            assert (mean.item(), std.item()) == (1.0, 0.0)
            return torch.full((1, 1, 1, 1), 4.0)

    context = Scripted(torch.tensor([-9.0]), torch.tensor([9.0]), config, memories(0))
    assert cross_entropy(lambda s: torch.zeros(1, 1), context).item() == pytest.approx(expected)


def test_gaussian_population_has_the_given_moments_and_stays_in_the_box() -> None:
    config = PlannerConfig(mpc_horizon=2, mpc_num_action_sequences=20000)
    context = SamplingContext(torch.tensor([-1.0]), torch.tensor([1.0]), config, memories(0))
    mean = torch.tensor([0.2, -0.1]).view(1, 2, 1)
    std = torch.tensor([0.1, 0.2]).view(1, 2, 1)
    sequences = context.gaussian(mean, std)
    torch.testing.assert_close(sequences.mean(1), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(sequences.std(1), std, atol=0.01, rtol=0)
    assert context.gaussian(mean, 100 * std).abs().max() == 1


def test_planner_uses_the_models_reward_if_the_task_has_none() -> None:
    class RewardingModel(LinearModel):
        def rewards(self, acs: Tensor) -> Tensor:
            return -(acs - 0.25).square().sum(-1)

    policy = make_policy(RewardingModel([1.0]), None, **CEM)
    action = policy.get_action(np.zeros((1, 2), np.float32), memories(0))
    np.testing.assert_allclose(action[0], [0.25, 0.25], atol=0.02)


def test_terminal_value_counts_unless_the_episode_has_terminated() -> None:
    """Three steps of 1 from state 0 have the rewards 1, 4 and 9; the value of state 3 is 300."""

    def value(obs: Tensor) -> Tensor:
        assert obs.shape == (2, 1, 2)
        return 100 * obs[..., 0]

    def square(obs: Tensor, acs: Tensor) -> tuple[Tensor, Tensor]:
        return obs[..., 0] ** 2, obs[..., 0] > 1.5

    sequences = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2)
    for propagation in ("tsinf", "mean", "ts1"):
        config = PlannerConfig(mpc_horizon=3, mpc_propagation=propagation)
        for ends_plans, expected in ((False, 1 + 4 + 9 + 300), (True, 1 + 4)):
            task, model = TaskModel(square, ends_plans=ends_plans), LinearModel([1.0, 1.0])
            value_of = value if propagation != "mean" else lambda obs: 100 * obs[..., 0]
            policy = MPCPolicy(
                model, task, LOW, HIGH, config, torch.device("cpu"), terminal_value=value_of
            )
            states, draws = model.initial_state(torch.zeros(1, 2)), policy.draw(memories(0))
            assert policy.evaluate_sequences(states, sequences, draws).item() == expected


def test_terminal_value_of_the_optimal_cost_replaces_a_long_horizon() -> None:
    """With the Riccati cost of HORIZON - 1 further steps, a horizon of 1 is enough."""
    wide, state = np.array([4.0, 4.0], np.float32), np.array([1.5, -0.8], np.float32)
    cost = 0.0
    for _ in range(HORIZON - 1):
        cost = (1 + cost) * 0.5 / (1.5 + cost)
    task = TaskModel(quadratic_reward)
    found = {}
    for name, value in (("none", None), ("cost", lambda obs: -cost * obs.square().sum(-1))):
        config = PlannerConfig(**{**CEM, "mpc_horizon": 1})
        policy = MPCPolicy(
            LinearModel([1.0]), task, -wide, wide, config, torch.device("cpu"), terminal_value=value
        )
        found[name] = policy.get_action(state[None], memories(0))[0]
    optimal = lqr_first_action(state, HORIZON)
    np.testing.assert_allclose(found["cost"], optimal, atol=0.01)
    assert np.abs(found["none"] - optimal).max() > 0.05


@pytest.mark.parametrize("strategy", ["random", "cem", "icem", "mppi"])
def test_proposals_of_a_policy_prior_are_candidates(strategy: str) -> None:
    """The box is so wide that 20 draws do not find the optimum. Proposals are clipped to it."""
    wide = np.array([50.0, 50.0], np.float32)
    config = PlannerConfig(
        mpc_horizon=HORIZON, mpc_action_sampling_strategy=strategy, cem_iterations=1,
        mpc_num_action_sequences=20, cem_num_elites=1,
    )  # fmt: skip

    def best(obs: Tensor, memories: Any) -> Tensor:
        first = torch.as_tensor(lqr_first_action(obs.numpy(), 1))
        plan = torch.zeros(len(obs), HORIZON, 2)
        plan[:, 0] = first
        return torch.stack([plan, torch.full_like(plan, 1e6)], 1)

    policy = MPCPolicy(
        LinearModel([1.0]), TaskModel(quadratic_reward), -wide, wide, config,
        torch.device("cpu"), policy_prior=best,
    )  # fmt: skip
    state = np.array([[1.5, -0.8], [0.3, 0.2]], np.float32)
    plans = policy.plan(state, memories(0, 1))
    torch.testing.assert_close(plans, best(torch.as_tensor(state), None)[:, 0])
    without = make_policy(LinearModel([1.0]), quadratic_reward, -wide, wide, **vars(config))
    assert not torch.allclose(without.plan(state, memories(0, 1)), plans, atol=0.1)


def test_a_user_defined_function_can_be_the_planner() -> None:
    def best_of_two(returns_of: Any, context: SamplingContext) -> Tensor:
        candidates = torch.stack([context.ac_low, context.ac_high])[None, :, None]
        candidates = candidates.expand(len(context.memories), -1, HORIZON, -1)
        best = returns_of(candidates).argmax(1)
        return candidates[torch.arange(len(best)), best]

    policy = MPCPolicy(
        LinearModel([1.0]), TaskModel(quadratic_reward), LOW, HIGH,
        PlannerConfig(mpc_horizon=HORIZON), torch.device("cpu"), planner=best_of_two,
    )  # fmt: skip
    actions = policy.get_action(np.array([[9, 9], [-9, -9]], np.float32), memories(0, 1))
    np.testing.assert_array_equal(actions, [LOW, HIGH])


def test_a_planner_can_use_the_gradient_of_returns() -> None:
    def ascend(returns_of: Any, context: SamplingContext) -> Tensor:
        plan = torch.zeros(len(context.memories), 1, HORIZON, 1)
        for _ in range(200):
            with torch.enable_grad():
                leaf = plan.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(returns_of(leaf).sum(), leaf)
            plan = plan + 0.05 * gradient
        return plan[:, 0]

    ascend.uses_gradients = True  # type: ignore[attr-defined]
    wide, config = np.full(1, 9, np.float32), PlannerConfig(mpc_horizon=HORIZON)
    parts = LinearModel([1.0]), TaskModel(quadratic_reward), -wide, wide, config
    policy = MPCPolicy(*parts, torch.device("cpu"), planner=ascend)
    state = np.array([[1.5], [-0.3]], np.float32)
    plans = policy.plan(state, memories(0, 1))
    better = replace(config, mpc_action_sampling_strategy="cem", cem_iterations=20)
    cem = MPCPolicy(*parts[:4], better, torch.device("cpu")).plan(state, memories(0, 1))
    torch.testing.assert_close(plans, cem, atol=0.05, rtol=0)


def test_more_elites_than_candidates_give_an_error() -> None:
    with pytest.raises(UsageError, match="--cem_num_elites 30: must be at most"):
        PlannerConfig(mpc_num_action_sequences=20, cem_num_elites=30)
    PlannerConfig(mpc_num_action_sequences=2)  # random shooting has no elites
