"""Test training rollouts: gradients and targets against closed forms and values by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cs285.agents.expanded_sac_agent import ExpandedSACAgent
from cs285.agents.sac_agent import SACAgent
from cs285.agents.sac_losses import actor_loss
from cs285.agents.value_expansion import (
    Draws,
    Rollout,
    ValueExpansion,
    expanded_actor_loss,
    expanded_critic_loss,
    soft_return,
)
from cs285.config.model import ModelConfig
from cs285.config.sac import SACConfig
from cs285.critics.sac_critic import NO_DRAWS, CriticDraws, SACCritic, td_target
from cs285.critics.value_bounds import ValueBounds
from cs285.envs import TaskSpec
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import make_generator
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.ff_model import FFModel
from cs285.models.propagation import draw_split
from cs285.models.task_model import TaskModel
from cs285.policies.sac_policy import SACPolicy, Sample
from tests.unit.test_mbpo_agent import DOUBLE_HORIZON, make_agent

ONE = np.ones(1, np.float32)
LEARNED = TaskModel(learns_reward=True)
NO_TEMPERATURE = torch.tensor(-torch.inf)  # its logarithm

# A linear-quadratic task: x' = A x + B a, reward -(x' Q x') - (a R a).
A, B = torch.tensor([[1.0, 0.1], [0.0, 1.0]]), torch.tensor([[0.0], [0.1]])
Q, R = torch.diag(torch.tensor([1.0, 0.1])), torch.tensor([[0.1]])
A, B, Q, R = (part.double() for part in (A, B, Q, R))
DISCOUNT = 0.95


def quadratic(rows: Tensor, matrix: Tensor) -> Tensor:
    return ((rows @ matrix) * rows).sum(-1)


class Linear(DynamicsModel):
    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = state @ A.T + acs @ B.T
        return next_obs, Prediction(next_obs, -quadratic(next_obs, Q) - quadratic(acs, R), None)


class LinearPolicy:
    """Acts with a = -K x, without noise and without entropy."""

    def __init__(self, gain: Tensor) -> None:
        self.gain = gain

    def sample(self, obs: Tensor, noise: Tensor) -> Sample:
        return Sample(-obs @ self.gain.T, obs.new_zeros(len(obs)))

    def scale_obs(self, obs: Tensor) -> Tensor:
        return obs

    def to_task(self, acs: Tensor) -> Tensor:
        return acs


class Quadratic:
    """The critic -(x W x) - (a R a) - ... of the state after the action, from a cost-to-go W."""

    def __init__(self, cost_to_go: Tensor) -> None:
        self.cost = cost_to_go

    def __call__(self, obs: Tensor, acs: Tensor, masks: Any = ()) -> Tensor:
        return -quadratic(obs, self.cost)[None]

    def target_value(self, obs: Tensor, acs: Tensor, members: Any) -> Tensor:
        return self(obs, acs)[0]

    def value_for_actor(self, obs: Tensor, acs: Tensor) -> Tensor:
        return self(obs, acs)[0]


def means(noise: Tensor) -> Draws:
    """Return draws for rollouts with propagation "mean", from the noise (H + 1, B, A)."""
    return Draws(noise, (None,) * (len(noise) - 1))


def linear_rollout(gain: Tensor, obs: Tensor, horizon: int) -> Rollout:
    expansion = ValueExpansion(Linear(), LEARNED, horizon, "mean")
    draws = expansion.draw(len(obs), 1, make_generator(0, "draws"))
    return expansion.roll_out(LinearPolicy(gain), obs, draws)  # type: ignore[arg-type]


@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_policy_gradient_equals_the_analytic_gradient(horizon: int) -> None:
    """Compare with the gradient of a linear policy's cost (Fazel et al. 2018, lemma 1)."""
    generator = make_generator(0, "states")
    obs = torch.randn(64, 2, generator=generator).double()
    gain = torch.tensor([[0.7, 0.4]]).double().requires_grad_()
    cost = torch.tensor([[3.0, 0.5], [0.5, 2.0]]).double()
    rollout = linear_rollout(gain, obs, horizon)
    critic: Any = Quadratic(cost)
    losses = expanded_actor_loss(rollout, critic, NO_TEMPERATURE, DISCOUNT, -1.0)
    (found,) = torch.autograd.grad(losses.loss, gain)

    K, closed = gain.detach(), A - B @ gain.detach()
    costs = [cost]  # from the last state backwards: cost-to-go after each step
    for _ in range(horizon):
        costs.append(closed.T @ (Q + DISCOUNT * costs[-1]) @ closed + K.T @ R @ K)
    covariance, expected, value = obs.T @ obs / len(obs), torch.zeros(1, 2).double(), costs[-1]
    torch.testing.assert_close(losses.loss, (value * covariance).sum())
    for t in range(horizon):
        M = Q + DISCOUNT * costs[horizon - 1 - t]
        expected += 2 * DISCOUNT**t * ((R + B.T @ M @ B) @ K - B.T @ M @ A) @ covariance
        covariance = closed @ covariance @ closed.T
    torch.testing.assert_close(found, expected)


def test_learning_reaches_the_riccati_optimum() -> None:
    P = Q
    for _ in range(1000):
        M = Q + DISCOUNT * P
        optimum = torch.linalg.solve(R + B.T @ M @ B, B.T @ M @ A)
        P = (A - B @ optimum).T @ M @ (A - B @ optimum) + optimum.T @ R @ optimum
    gain = torch.zeros(1, 2).double().requires_grad_()
    cost = torch.zeros(2, 2).double().requires_grad_()
    actor, learner = torch.optim.Adam([gain], 0.03), torch.optim.Adam([cost], 0.1)
    generator, critic = make_generator(0, "states"), Quadratic(cost)
    frozen: Any = Quadratic(cost.detach())
    zero = torch.tensor(0.0)
    for _ in range(300):
        obs = torch.randn(128, 2, generator=generator).double()
        rollout = linear_rollout(gain, obs, 5)
        losses = expanded_actor_loss(rollout, frozen, NO_TEMPERATURE, DISCOUNT, -1.0)
        (gain.grad,) = torch.autograd.grad(losses.loss, gain)
        found = expanded_critic_loss(
            rollout, obs, critic, frozen, NO_DRAWS, zero, DISCOUNT  # type: ignore[arg-type]
        )  # fmt: skip
        (cost.grad,) = torch.autograd.grad(found.loss, cost)
        actor.step()
        learner.step()
    torch.testing.assert_close(gain.detach(), optimum, atol=2e-3, rtol=0)
    torch.testing.assert_close(cost.detach() + cost.detach().T, P + P.T, atol=5e-2, rtol=0)


class Chain(DynamicsModel):
    """Position x moves to x + 1 + a / 10, and pays 10^x of the old position x."""

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = state + 1 + acs / 10
        return next_obs, Prediction(next_obs, 10 ** state[..., 0], None)


def chain_task(end: float) -> TaskModel:
    """Episodes terminate on reaching `end`."""
    return TaskModel(learns_reward=True, get_termination=lambda obs: obs[..., 0] > end - 0.5)


class FixedPolicy(LinearPolicy):
    """Draws a = noise with log-probability 1 + 2 x."""

    def __init__(self) -> None:
        pass

    def sample(self, obs: Tensor, noise: Tensor) -> Sample:
        return Sample(noise, 1 + 2 * obs[..., 0])


def chain_rollout(noise: Tensor, end: float = 3.0) -> Rollout:
    expansion = ValueExpansion(Chain(), chain_task(end), len(noise) - 1, "mean")
    obs = torch.tensor([[0.0], [1.0], [2.0]])
    return expansion.roll_out(FixedPolicy(), obs, means(noise))  # type: ignore[arg-type]


def test_targets_of_a_chain_match_values_computed_by_hand() -> None:
    """From 0, 1 and 2, the chain takes 2 steps. It ends at 3: never, at the end, in the middle."""
    rollout = chain_rollout(torch.zeros(3, 3, 1))
    assert rollout.alive.tolist() == [[True] * 3, [True, True, False], [True, False, False]]
    values = torch.tensor([[50.0, 50.0, 50.0], [70.0, 70.0, 70.0]])
    critic: Any = SimpleNamespace(
        target_value=lambda obs, acs, members: values.amin(0) + 0 * obs[:, 0]
    )
    temperature = torch.tensor(0.1)
    learner: Any = lambda obs, acs, masks: torch.zeros(1, 3)  # noqa: E731
    found = expanded_critic_loss(
        rollout, rollout.last_obs, learner, critic, NO_DRAWS, temperature, 0.5
    )
    by_hand = torch.tensor(
        [
            1 + 0.5 * (10 - 0.1 * 3) + 0.25 * (50 - 0.1 * 5),
            10 + 0.5 * (100 - 0.1 * 5),
            100.0,
        ]
    )
    torch.testing.assert_close(found.loss, by_hand.square().mean())
    entropy_of_first = torch.tensor([0.1 * 1, 0.1 * 3, 0.1 * 5])
    total = soft_return(rollout, values[0], temperature, 0.5)
    torch.testing.assert_close(total, by_hand - entropy_of_first)


def test_gradients_vanish_after_a_termination() -> None:
    noise = torch.zeros(4, 3, 1, requires_grad=True)
    rollout = chain_rollout(noise)
    last = 7 * rollout.last_obs[:, 0] + rollout.last_acs[:, 0]
    total = soft_return(rollout, last, torch.tensor(0.1), 0.5)
    (gradient,) = torch.autograd.grad(total.sum(), noise)
    steps = (gradient[..., 0] != 0).sum(0)
    assert steps.tolist() == [2, 1, 0]  # the actions of the steps whose successor is alive
    assert (rollout.last_obs[:, 0] == 2).all()  # rows stay at their last state


def make_sac(**flags: Any) -> tuple[SACPolicy, SACCritic]:
    config = SACConfig(sac_size=16, **flags)
    low = -np.ones(2, np.float32)
    policy = SACPolicy(3, low, -low, config, make_generator(0, "policy"))
    return policy, SACCritic(3, 2, config, make_generator(0, "critic"))


@pytest.mark.parametrize("value", ["min", "mean"])
def test_horizon_zero_is_the_actor_loss_of_sac(value: str) -> None:
    policy, critic = make_sac(sac_actor_value=value, sac_critics=3)
    obs, noise = torch.randn(10, 3), torch.randn(1, 10, 2)
    rollout = ValueExpansion(Linear(), LEARNED, 0, "mean").roll_out(policy, obs, means(noise))
    log_temperature = nn.Parameter(torch.tensor(-1.0))
    found = expanded_actor_loss(rollout, critic, log_temperature, 0.9, -2.0)
    expected = actor_loss(policy, critic, obs, noise[0], log_temperature, -2.0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    gradients = [
        torch.autograd.grad(losses.loss, policy.network.vector)[0] for losses in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


class Drift(DynamicsModel):
    """Adds the actions to the first two of three observations; terminates where the first is > 0"""

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = state + nn.functional.pad(acs, (0, 1))
        return next_obs, Prediction(next_obs, next_obs.sum(-1), next_obs[..., 0] > 0)


def test_horizon_one_is_the_target_of_sac_on_the_imagined_transition() -> None:
    policy, critic = make_sac()
    obs, noise = torch.randn(40, 3), torch.randn(2, 40, 2)
    task = TaskModel(learns_reward=True, termination="learned")
    rollout = ValueExpansion(Drift(), task, 1, "mean").roll_out(policy, obs, means(noise))
    acs = policy.sample(obs, noise[0]).acs
    _, prediction = Drift().step(obs, acs)
    drawn = policy.sample(prediction.next_obs, noise[1])
    next_values = critic(prediction.next_obs, drawn.acs).amin(0)
    temperature, terminated = torch.tensor(0.3), prediction.terminated
    expected = td_target(
        prediction.rewards, terminated, next_values, drawn.log_probs, temperature, 0.9
    )
    assert 0 < int(terminated.sum()) < 40
    found = expanded_critic_loss(rollout, obs, critic, critic, NO_DRAWS, temperature, 0.9)
    values = critic(obs, acs)
    torch.testing.assert_close(found.loss, (values - expected).square().mean(1).sum())


def test_splits_are_even_and_change_at_every_step() -> None:
    model = SimpleNamespace(members=8, noise_dim=3, has_memory=False)
    expansion = ValueExpansion(model, LEARNED, 5, "random_member")  # type: ignore[arg-type]
    draws = expansion.draw(256, 2, make_generator(0, "splits"))
    assert draws.noise.shape == (6, 256, 2)
    assert len(draws.splits) == 5
    for split in draws.splits:
        members = split.slots // 32
        assert members.bincount().tolist() == [32] * 8
        assert torch.equal(split.rows.flatten()[split.slots], torch.arange(256))
        assert split.noise is not None
        assert split.noise.shape == (8, 32, 3)
    for one, other in zip(draws.splits, draws.splits[1:], strict=False):
        assert float((one.slots // 32 == other.slots // 32).float().mean()) < 0.3
    uneven = draw_split(3, 7, make_generator(0, "splits"))
    assert (uneven.slots // 3).bincount(minlength=3).max() <= 3


def test_bounds_follow_the_quantiles() -> None:
    """The quantiles of 0, 1 ... 100 are 1 and 99; a discount of 0.5 doubles them."""
    bounds = ValueBounds(rate=0.25)
    no_end = torch.zeros(101, dtype=torch.bool)
    bounds.follow(torch.arange(101.0), 0.5, no_end)
    assert bounds.bounds.tolist() == pytest.approx([2, 198])
    outputs = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    assert bounds.scale(outputs).tolist() == pytest.approx([2, 100, 149, 198])
    assert bounds.clip(torch.tensor([-5.0, 20.0, 300.0])).tolist() == pytest.approx([2, 20, 198])
    bounds.follow(torch.arange(101.0) + 100, 0.5, no_end)
    assert bounds.bounds.tolist() == pytest.approx([52, 248])  # a quarter of the way
    diverged = torch.cat([torch.full((50,), -1e12), torch.arange(101.0) + 200])
    for valid in (diverged > 0, diverged > 1e9):  # the second has no valid row: nothing moves
        bounds.follow(diverged, 0.5, torch.zeros(151, dtype=torch.bool), valid)
        assert bounds.bounds.tolist() == pytest.approx([139.5, 335.5])
    constant = ValueBounds(rate=0.25)
    constant.follow(torch.full((9,), 3.0), 0.5, no_end[:9])
    assert constant.scale(outputs).tolist() == pytest.approx([5, 6, 6.5, 7])  # still learnable


@pytest.mark.parametrize(("sign", "expected"), [(1, (0, 198)), (-1, (-198, 0))])
def test_bounds_include_the_value_of_a_termination(
    sign: int, expected: tuple[float, float]
) -> None:
    """The quantiles are 2 and 198, or -198 and -2; a termination has the value 0."""
    rewards, no_end = sign * torch.arange(101.0), torch.zeros(101, dtype=torch.bool)
    bounds, ended = ValueBounds(rate=0.25), torch.arange(101) == 7
    bounds.follow(rewards, 0.5, ended, valid=~ended)  # a row that does not count
    assert 0 not in bounds.bounds
    bounds.follow(rewards, 0.5, ended)
    assert bounds.bounds.tolist() == pytest.approx(expected, abs=0.1)
    bounds.follow(rewards, 0.5, no_end)  # from now on
    assert bounds.bounds.tolist() == pytest.approx(expected, abs=0.1)


def test_bounds_load_a_state_without_terminations() -> None:
    """Checkpoints from before the bounds included 0 have no `has_end`."""
    _, old = make_sac(sac_value_bounds=0.1)
    state = old.state_dict()
    del state["bounds.has_end"]
    _, critic = make_sac(sac_value_bounds=0.1)
    assert critic.bounds is not None
    critic.bounds.has_end.fill_(True)
    critic.load_state_dict(state)
    assert not critic.bounds.has_end
    assert "bounds.has_end" not in state


def test_bounded_critics_start_at_the_centre_and_clip_targets() -> None:
    _, critic = make_sac(sac_value_bounds=0.1)
    assert critic.bounds is not None
    rewards = torch.tensor([0.0] * 5 + [1.0] * 5)
    critic.bounds.follow(rewards, 0.9, torch.zeros(10, dtype=torch.bool))
    obs, acs = torch.randn(6, 3), torch.randn(6, 2)
    torch.testing.assert_close(critic(obs, acs), torch.full((2, 6), 5.0))
    with torch.no_grad():
        critic.network.layers[-1][1].copy_(torch.tensor([3.0, -7.0]).view(2, 1, 1))
    assert critic.target_value(obs, acs, torch.tensor([0])).tolist() == pytest.approx([10] * 6)
    assert critic.target_value(obs, acs, None).tolist() == pytest.approx([0] * 6, abs=1e-5)


def test_target_value_is_the_minimum_of_the_drawn_networks() -> None:
    _, critic = make_sac(sac_critics=5, sac_critics_drawn=2, sac_critic_dropout=0.5)
    obs, acs, generator = torch.randn(6, 3), torch.randn(6, 2), make_generator(0, "draws")
    draws = [critic.draw(6, generator) for _ in range(300)]
    pairs = {tuple(sorted(draw.members.tolist())) for draw in draws if draw.members is not None}
    assert len(pairs) == 10  # every pair of five occurs
    members = torch.tensor([3, 1])
    expected = torch.minimum(critic(obs, acs)[3], critic(obs, acs)[1])
    torch.testing.assert_close(critic.target_value(obs, acs, members), expected)
    assert [mask.shape for mask in draws[0].masks if mask is not None] == [(5, 6, 16)] * 2
    assert make_sac(sac_critic_layer_norm=0.25)[1].network.eps == (0.25, 0.25)
    assert make_sac()[1].draw(6, generator) == CriticDraws()


def make_learner(horizon: int = 2) -> tuple[SACAgent, FFModel]:
    low = -np.ones(2, np.float32)
    task = TaskSpec(3, 2, low, -low, None, 10)
    config = ModelConfig(
        model="homoscedastic", model_loss="nll", size=16, activation="swish",
        model_layer_norm="1", ensemble_size=4, holdout_ratio=0.2, num_elites=3,
    )  # fmt: skip
    model = FFModel(3, 2, config, True, make_generator(0, "model"))
    model.choose_members(torch.tensor([4.0, 1.0, 2.0, 3.0]))
    expansion = ValueExpansion(model, LEARNED, horizon, "random_member")
    sac = SACConfig(sac_size=16, sac_critics=5, sac_critics_drawn=2, sac_value_bounds=0.1)
    return ExpandedSACAgent(expansion, task, sac, 1, torch.device("cpu")), model


def test_no_weight_of_the_model_gets_a_gradient() -> None:
    agent, model = make_learner()
    expansion = agent.expansion
    assert expansion is not None
    obs = torch.randn(12, 3)
    draws = expansion.draw(12, 2, make_generator(0, "draws"))
    rollout = expansion.roll_out(agent.policy, obs, draws)
    total = soft_return(rollout, rollout.last_obs.sum(1), torch.tensor(0.1), 0.9).sum()
    weights = list(model.parameters())
    found = torch.autograd.grad(total, weights, allow_unused=True, retain_graph=True)
    assert len(weights) == 2
    assert found == (None, None)
    (gradient,) = torch.autograd.grad(total, agent.policy.network.vector)
    assert gradient.abs().sum() > 0
    # `step` differentiates its weights, too, and gives the same prediction.
    acs, state = torch.rand(3, 12, 2), model.initial_state(obs)
    _, prediction = model.step(state, acs)
    torch.testing.assert_close(model.frozen_step()(state, acs)[1], prediction)
    assert torch.autograd.grad(prediction.rewards.sum(), weights[1])[0].abs().sum() > 0


def test_an_update_trains_policy_critic_and_temperature_only() -> None:
    agent, model = make_learner()
    parts = {"model": model, "policy": agent.policy, "critic": agent.critic}
    before = {name: part.network.vector.detach().clone() for name, part in parts.items()}
    rows = torch.randn(3, 32, 10)
    agent.actor_waits_until = 2
    list(agent._updates_on(rows[:2], 0))
    moved = {
        name for name, part in parts.items() if not torch.equal(part.network.vector, before[name])
    }
    assert moved == {"critic"}
    assert agent.log_temperature.item() == 0
    (metrics,) = agent._updates_on(rows[2:], 2)
    assert agent.log_temperature.item() != 0
    assert not torch.equal(agent.policy.network.vector, before["policy"])
    assert torch.equal(model.network.vector, before["model"])
    assert all(value.isfinite().all() for value in metrics.values())


def test_rewards_must_be_differentiable() -> None:
    assert TaskModel(get_reward=lambda obs, acs: (obs.sum(-1), None)).is_differentiable(3, 2)
    for reward in (
        lambda obs, acs: ((obs.sum(-1) > 0).float(), None),
        lambda obs, acs: obs.numpy(),
    ):
        assert not TaskModel(get_reward=reward).is_differentiable(3, 2)
        assert TaskModel(get_reward=reward, learns_reward=True).is_differentiable(3, 2)
        wanted = "--mbpo_value_expansion 2: must be 0, because autograd cannot differentiate"
        with pytest.raises(UsageError, match=wanted):
            make_agent(reward, **{**DOUBLE_HORIZON, "learned_reward": False})


class Explodes(DynamicsModel):
    """Multiplies a row by a factor at each step, unless it is below 1."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = torch.where(state < 1, state, self.factor * state) + acs
        return next_obs, Prediction(next_obs, next_obs.sum(-1).square(), None)


@pytest.mark.parametrize(
    ("factor", "task"),
    [(1e15, LEARNED), (1e6, TaskModel(get_reward=lambda obs, acs: (-(obs[..., 0] ** 8), None)))],
    ids=["state", "reward"],
)
def test_a_row_that_diverges_does_not_count(factor: float, task: TaskModel) -> None:
    """Row 0 would have an infinite reward, and NaN gradients."""
    config = SACConfig(sac_size=16)
    policy = SACPolicy(1, -ONE, ONE, config, make_generator(0, "p"))
    critic = SACCritic(1, 1, config, make_generator(0, "c"))
    losses = []
    for obs in (torch.tensor([[2.0], [0.3], [-0.4]]), torch.tensor([[0.3], [-0.4]])):
        expansion = ValueExpansion(Explodes(factor), task, 3, "mean")
        noise = torch.zeros(4, len(obs), 1)
        rollout = expansion.roll_out(policy, obs, means(noise))
        critics = critic, critic, NO_DRAWS, torch.tensor(0.1)
        of_critic = expanded_critic_loss(rollout, obs, *critics, 0.9).loss
        of_actor = expanded_actor_loss(rollout, critic, NO_TEMPERATURE, 0.9, -1.0).loss
        gradients = [
            torch.autograd.grad(of_critic, critic.network.vector)[0],
            torch.autograd.grad(of_actor, policy.network.vector)[0],
        ]
        losses.append([part * len(obs) for part in (of_critic, of_actor, *gradients)])
    assert rollout.valid.tolist() == [True, True]
    for whole, without in zip(*losses, strict=True):
        torch.testing.assert_close(whole, without)
