"""Test the parts of SAC against hand-computed cases, torch.distributions and known optima."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from cs285.agents.sac_agent import SACAgent
from cs285.config.sac import SACConfig
from cs285.critics.sac_critic import SACCritic, td_target
from cs285.envs import TaskSpec
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Path, Transitions
from cs285.policies.base_policy import Memory
from cs285.policies.sac_policy import LOG_STD_RANGE, STD_FLOOR, SACActor, SACPolicy

LOW, HIGH = np.array([-1, 0], np.float32), np.array([1, 10], np.float32)
CPU = torch.device("cpu")


def task(ob_dim: int = 3, low: Any = LOW, high: Any = HIGH) -> TaskSpec:
    return TaskSpec(ob_dim, len(low), low, high, get_reward=None, ep_len=10)


def make_agent(ob_dim: int = 3, low: Any = LOW, high: Any = HIGH, **flags: Any) -> SACAgent:
    flags = {"sac_size": 16, "sac_train_batch_size": 8, "sac_n_iter": 3, **flags}
    return SACAgent(task(ob_dim, low, high), SACConfig(**flags), seed=1, device=CPU)


def random_path(T: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(T + 1, 3)).astype(np.float32)
    acs = rng.uniform(LOW, HIGH, (T, 2)).astype(np.float32)
    rewards = rng.normal(size=T).astype(np.float32)
    return Path(obs[:-1], acs, rewards, obs[1:], np.zeros(T, bool))


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_td_target_bootstraps_a_truncated_but_not_a_terminated_step() -> None:
    """Both rewards are 1. The next state has the value 3, and log pi -2."""
    target = td_target(
        rewards=torch.ones(2),
        terminated=torch.tensor([True, False]),  # the second step is truncated
        next_values=torch.tensor([3.0, 3.0]),
        next_log_probs=torch.full((2,), -2.0),
        temperature=torch.tensor(0.5),
        discount=0.9,
    )
    torch.testing.assert_close(target, torch.tensor([1.0, 1.0 + 0.9 * (3.0 + 0.5 * 2.0)]))


def test_td_target_ignores_a_non_finite_value_after_termination() -> None:
    next_values = torch.tensor([math.inf, math.nan])
    target = td_target(
        torch.ones(2), torch.ones(2) > 0, next_values, torch.zeros(2), torch.tensor(1.0), 0.9
    )
    assert target.tolist() == [1.0, 1.0]


def test_log_probabilities_match_torch_distributions() -> None:
    policy = SACPolicy(3, LOW, HIGH, SACConfig(sac_size=16), make_generator(0, "t")).double()
    obs, noise = torch.randn(50, 3).double(), torch.randn(50, 2).double()
    acs, log_probs, *_ = policy.sample(obs, noise)
    mean, log_std = policy(obs)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    torch.testing.assert_close(log_probs, squashed.log_prob(acs).sum(-1), rtol=1e-6, atol=1e-8)
    # In the task's units, the log density differs by the constant of the affine transform.
    scale = policy.ac_half_range
    in_task = TransformedDistribution(
        squashed, [AffineTransform(policy.ac_center, scale)]
    ).log_prob(policy.to_task(acs))
    torch.testing.assert_close(log_probs - scale.log().sum(), in_task.sum(-1), rtol=1e-4, atol=1e-4)


def test_log_probability_stays_finite_if_tanh_saturates() -> None:
    policy = SACPolicy(3, LOW, HIGH, SACConfig(sac_size=16), make_generator(0, "t"))
    obs = torch.randn(4, 3, requires_grad=True)
    acs, log_probs, *_ = policy.sample(obs, torch.full((4, 2), 60.0))
    assert acs.abs().max() == 1
    log_probs.sum().backward()
    assert log_probs.isfinite().all()
    assert obs.grad is not None
    assert obs.grad.isfinite().all()


def test_actions_are_scaled_per_dimension() -> None:
    policy = SACPolicy(3, LOW, HIGH, SACConfig(sac_size=16), make_generator(0, "t"))
    ends = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    assert policy.to_task(ends).tolist() == [[-1, 0], [1, 10], [0, 5]]
    torch.testing.assert_close(policy.from_task(policy.to_task(ends)), ends)
    actor = SACActor(policy, CPU, deterministic=False)
    memories = [Memory(make_generator(0, "a", n)) for n in range(200)]
    drawn = actor.get_action(10 * np.random.default_rng(0).normal(size=(200, 3)), memories)
    assert (drawn >= LOW).all()
    assert (drawn <= HIGH).all()
    assert drawn[:, 1].max() > 8


def test_evaluation_is_deterministic_and_collection_is_random() -> None:
    agent = make_agent()
    obs = np.ones((1, 3), np.float32)

    def act(policy: Any, number: int) -> list[float]:
        return policy.get_action(obs, [Memory(make_generator(0, "a", number))])[0].tolist()

    mode = agent.policy.to_task(agent.policy(torch.ones(1, 3))[0].tanh())[0].tolist()
    assert act(agent.eval_policies["Eval"], 1) == act(agent.eval_policies["Eval"], 2) == mode
    assert act(agent.actor, 1) != act(agent.actor, 2)


@pytest.mark.parametrize(("target_entropy", "direction"), [(50.0, 1), (-50.0, -1)])
def test_temperature_rises_below_the_target_entropy_and_falls_above(
    target_entropy: float, direction: int
) -> None:
    agent = make_agent(sac_target_entropy=target_entropy)
    agent.add_to_replay_buffer([random_path(20)], 0)
    agent.train(0)
    assert math.copysign(1, float(agent.log_temperature.detach())) == direction


def test_default_target_entropy_is_minus_the_action_dimension() -> None:
    assert make_agent().target_entropy == -2
    assert make_agent(sac_init_temperature=0.1).log_temperature.exp().item() == pytest.approx(0.1)


def test_twins_have_different_weights_and_separate_gradients() -> None:
    critic = SACCritic(3, 2, SACConfig(sac_size=16), make_generator(0, "t"))
    values = critic(torch.randn(5, 3), torch.randn(5, 2))
    assert values.shape == (2, 5)
    assert not torch.allclose(values[0], values[1])
    (gradient,) = torch.autograd.grad(values[0].sum(), critic.network.vector)
    for part in critic.network.views_of(gradient):
        assert part[0].abs().sum() > 0
        assert part[1].abs().sum() == 0


def test_initial_weights() -> None:
    """The default is the initialisation of torch.nn.Linear."""
    for flags, policy_gain, critic_gain in (
        ({}, 3**-0.5, 3**-0.5),
        ({"sac_policy_init": "lecun", "sac_critic_init": "he"}, 1.0, 2**0.5),
    ):
        agent = make_agent(ob_dim=60, sac_size=64, **flags)
        for part, gain in ((agent.policy, policy_gain), (agent.critic, critic_gain)):
            for weight, bias in [[x.detach() for x in layer] for layer in part.network.layers]:
                bound = gain * (3 / weight.shape[1]) ** 0.5
                assert 0.95 * bound < float(weight.abs().max()) <= bound
                assert float(bias.abs().max()) <= bound


@pytest.mark.parametrize("ob_dim", [5, 100])
def test_orthogonal_initial_weights(ob_dim: int) -> None:
    """Rows or columns are orthonormal, whichever are shorter, as torch.nn.init.orthogonal_ says."""
    agent = make_agent(ob_dim=ob_dim, sac_size=64, sac_policy_init="orthogonal")
    for weight, bias in agent.policy.network.layers:
        matrix = weight[0].detach() if weight.shape[1] <= weight.shape[2] else weight[0].detach().T
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), rtol=0, atol=1e-5)
        assert not bias.any()


def test_unclipped_observations_keep_the_function_when_the_scaler_changes() -> None:
    """The second data have another range; with clipping, far states would get other actions."""
    agent = make_agent(sac_n_iter=1, sac_obs_scaling="unclipped")
    narrow, wide = random_path(40), random_path(400, seed=1)
    agent.add_to_replay_buffer([narrow._replace(obs=0.01 * narrow.obs)], 0)
    agent._fit_obs_scaler()
    obs = 100 * torch.randn(20, 3)
    before = agent.policy(agent.policy.scale_obs(obs))
    agent.add_to_replay_buffer([wide], 1)
    agent._fit_obs_scaler()
    assert agent.scaled_rows == 440
    after = agent.policy(agent.policy.scale_obs(obs))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_observations_are_normalised_and_clipped() -> None:
    agent = make_agent(sac_n_iter=1)
    path = random_path(20)
    obs = path.obs * np.array([1, 100, 0], np.float32) + np.array([0, 50, 3], np.float32)
    agent.add_to_replay_buffer([path._replace(obs=obs)], 0)
    agent.train(0)
    scaled = agent.policy.scale_obs(torch.as_tensor(obs))
    torch.testing.assert_close(scaled[:, :2].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled[:, :2].std(0, correction=0), torch.ones(2))
    assert (scaled[:, 2] == 0).all()  # a constant dimension carries no information
    far = agent.policy.scale_obs(torch.full((1, 3), 1e6))
    assert far[0, :2].tolist() == [5, 5]
    # The statistics are recomputed after 10% more data, not earlier.
    before = agent.policy.obs_scaler.mean.clone()
    agent.add_to_replay_buffer([random_path(1, seed=1)], 1)
    agent.train(1)
    assert torch.equal(agent.policy.obs_scaler.mean, before)
    agent.add_to_replay_buffer([random_path(1, seed=2)], 2)
    agent.train(2)
    assert not torch.equal(agent.policy.obs_scaler.mean, before)


def test_new_statistics_do_not_change_the_policy_and_the_values() -> None:
    """The third dimension is constant in the first data, and varies in the new data."""
    agent, path = make_agent(sac_policy_averaging=0.1), random_path(200)
    constant = np.concatenate([path.obs[:, :2], np.full((200, 1), 0.5, np.float32)], 1)
    agent.add_to_replay_buffer([path._replace(obs=constant)], 0)
    agent.train(0)
    obs, acs = torch.as_tensor(constant[:50]), torch.rand(50, 2) * 2 - 1

    def outputs() -> list[torch.Tensor]:
        scaled = agent.policy.scale_obs(obs)
        critics = (agent.critic, agent.target_critic)
        values = (critic(scaled, acs) for critic in critics)
        return [*agent.policy(scaled), *agent.acting_policy(scaled), *values]

    before, mean = outputs(), agent.policy.obs_scaler.mean.clone()
    shifted = path._replace(obs=0.7 * path.obs + np.array([0.5, -0.3, 0.1], np.float32))
    agent.add_to_replay_buffer([shifted], 1)
    agent._fit_obs_scaler()
    assert (agent.policy.obs_scaler.mean != mean).all()
    for new, old in zip(outputs(), before, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)


def test_observation_scaling_can_be_switched_off() -> None:
    agent = make_agent(sac_obs_scaling="none")
    agent.add_to_replay_buffer([random_path(20)], 0)
    agent.train(0)
    obs = 100 * torch.randn(7, 3)
    assert torch.equal(agent.policy.scale_obs(obs), obs)


def test_update_frequencies() -> None:
    """Updates are counted over the whole run, as in the homework: due at 0, f, 2f, ..."""
    agent = make_agent(
        sac_n_iter=1,
        sac_actor_update_frequency=2,
        sac_critic_target_update_frequency=3,
    )
    agent.add_to_replay_buffer([random_path(20)], 0)
    actor_moves, target_moves = [], []
    for iteration in range(7):
        before = weights(agent.policy), weights(agent.target_critic), weights(agent.critic)
        agent.train(iteration)
        actor_moves.append(not same(before[0], weights(agent.policy)))
        target_moves.append(not same(before[1], weights(agent.target_critic)))
        assert not same(before[2], weights(agent.critic))
    assert actor_moves == [True, False] * 3 + [True]
    assert target_moves == [True, False, False] * 2 + [True]


@pytest.mark.parametrize(
    ("flag", "part", "steps"),
    [
        ("sac_num_critic_updates_per_agent_update", "critic_optimizer", 9),
        ("sac_num_actor_updates_per_agent_update", "actor_optimizer", 9),
        ("sac_num_agent_train_steps_per_iter", "critic_optimizer", 9),
        ("sac_num_agent_train_steps_per_iter", "actor_optimizer", 9),
    ],
)
def test_each_count_multiplies_the_gradient_steps(flag: str, part: str, steps: int) -> None:
    agent = make_agent(**{flag: 3})
    agent.add_to_replay_buffer([random_path(20)], 0)
    agent.train(0)  # 3 SAC iterations
    for state in getattr(agent, part).state_dict()["state"].values():
        assert int(state["step"]) == steps


def test_target_networks_move_by_the_target_rate() -> None:
    agent = make_agent(sac_n_iter=1, sac_target_rate=0.25)
    agent.add_to_replay_buffer([random_path(20)], 0)
    before = weights(agent.target_critic)
    agent.train(0)
    for old, new, source in zip(
        before, agent.target_critic.parameters(), agent.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(new, old + 0.25 * (source - old))


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_the_acting_policy_is_a_moving_average_of_the_learned_one(rate: float) -> None:
    agent = make_agent(sac_n_iter=1, sac_policy_averaging=rate)
    agent.add_to_replay_buffer([random_path(20)], 0)
    average = weights(agent.policy)
    for iteration in range(4):
        agent.train(iteration)
        learned = weights(agent.policy)
        average = [old + rate * (new - old) for old, new in zip(average, learned, strict=True)]
    for found, expected in zip(agent.acting_policy.parameters(), average, strict=True):
        torch.testing.assert_close(found, expected)
    assert same(weights(agent.acting_policy), learned) == (rate == 1)
    for actor in (agent.actor, agent.eval_policy):
        assert isinstance(actor, SACActor)
        assert actor.policy is agent.acting_policy


def test_a_checkpoint_without_an_average_starts_it_with_the_learned_policy() -> None:
    old, new = make_agent(), make_agent(sac_policy_averaging=0.1)
    old.add_to_replay_buffer([random_path(20)], 0)
    old.train(0)
    state = old.state_dict()
    del state["acting_policy"]
    new.load_state_dict(state)
    assert same(weights(new.acting_policy), weights(old.policy))


def test_td_target_uses_the_target_networks() -> None:
    """Target values of about 100 and a discount of 0.99 give errors of about 99 in both twins."""
    agent = make_agent(sac_n_iter=1)
    agent.add_to_replay_buffer([random_path(50)], 0)
    with torch.no_grad():
        agent.target_critic.network.layers[-1][1].fill_(100)
    loss = agent.train(0)["Critic Loss"].item()
    assert loss == pytest.approx(2 * 99**2, rel=0.1)


def test_clipped_stds_have_no_gradient() -> None:
    policy = SACPolicy(3, LOW, HIGH, SACConfig(sac_size=32), make_generator(0, "p")).double()
    with torch.no_grad():
        policy.network.layers[-1][1][..., -1] += 2.0  # clips some stds of the second action
    obs = torch.randn(200, 3).double()
    _, log_std = policy(obs)
    raw = policy.network(obs[None])[0, :, 3]
    clipped = raw > LOG_STD_RANGE[1]
    assert 0 < int(clipped.sum()) < 200
    assert log_std[clipped, 1].unique().tolist() == [LOG_STD_RANGE[1]]
    torch.testing.assert_close(log_std[~clipped, 1], raw[~clipped])
    (slopes,) = torch.autograd.grad(log_std[clipped, 1].sum(), policy.network.vector)
    assert not slopes.any()


def test_gradients_of_samples_match_finite_differences() -> None:
    """Check actions and log-probabilities with respect to observations and weights."""
    policy = SACPolicy(3, LOW, HIGH, SACConfig(sac_size=8), make_generator(0, "p")).double()
    obs, noise = torch.randn(5, 3).double().requires_grad_(), torch.randn(5, 2).double()

    def sample(obs: torch.Tensor, vector: torch.Tensor) -> Any:
        assert vector is policy.network.vector  # gradcheck changes it in place
        return tuple(policy.sample(obs, noise))

    assert torch.autograd.gradcheck(sample, (obs, policy.network.vector))


def test_each_step_changes_only_its_own_networks() -> None:
    agent = make_agent()
    parts = ("policy", "critic", "target_critic")

    def moved() -> list[str]:
        return [name for name in parts if not same(before[name], weights(getattr(agent, name)))]

    before = {name: weights(getattr(agent, name)) for name in parts}
    agent._step_actor(torch.randn(8, 3), torch.randn(8, 2))
    assert moved() == ["policy"]
    assert float(agent.log_temperature.detach()) != 0
    before = {name: weights(getattr(agent, name)) for name in parts}
    batch = Transitions(
        torch.randn(8, 3), torch.randn(8, 2), torch.randn(8), torch.randn(8, 3), torch.rand(8) < 0.5
    )
    temperature = agent.log_temperature.detach().clone()
    agent._step_critic(batch, torch.randn(8, 2))
    assert moved() == ["critic"]
    assert torch.equal(agent.log_temperature.detach(), temperature)


def test_updates_do_not_depend_on_their_division_into_iterations() -> None:
    """This needs batches that are drawn in equal parts."""
    one, two = make_agent(sac_n_iter=4), make_agent(sac_n_iter=2)
    for agent in (one, two):
        agent.add_to_replay_buffer([random_path(20)], 0)
    one.train_on(lambda first, at_most: one.draw_real(first, 2), 4)
    two.train_on(two.draw_real, 2)
    two.train_on(two.draw_real, 2)
    assert same(weights(one.policy), weights(two.policy))


def test_batch_larger_than_the_replay_buffer_repeats_rows() -> None:
    agent = make_agent(sac_train_batch_size=64)
    agent.add_to_replay_buffer([random_path(2)], 0)
    assert agent.draw_real(0, 1).shape == (1, 64, 3 + 2 + 3 + 2)
    assert all(metric.isfinite().all() for metric in agent.train(0).values())


def test_restored_agent_continues_bit_for_bit() -> None:
    agent, other = make_agent(), make_agent(sac_init_temperature=0.3)
    agent.add_to_replay_buffer([random_path(20)], 0)
    agent.train(0)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    first, second = agent.train(1), other.train(1)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert same(weights(agent.policy), weights(other.policy))
    assert same(weights(agent.target_critic), weights(other.target_critic))


def test_q_values_of_a_terminated_and_a_truncated_state() -> None:
    """Both states have a reward of 1. The first terminates the episode, so Q = 1.

    The second leads to itself and is truncated, so Q = 1 + 0.5 Q = 2. The temperature is so low
    that the entropy hardly counts.
    """
    low, high = np.array([-1], np.float32), np.array([1], np.float32)
    agent = make_agent(
        2, low, high, sac_size=32, sac_n_iter=600, sac_train_batch_size=32, sac_discount=0.5,
        sac_init_temperature=1e-6, sac_learning_rate=3e-3, sac_target_rate=0.1,
        sac_target_entropy=-20.0,
    )  # fmt: skip
    obs = np.eye(2, dtype=np.float32).repeat(100, 0)
    acs = np.random.default_rng(0).uniform(-1, 1, (200, 1)).astype(np.float32)
    terminated = np.arange(200) < 100
    agent.add_to_replay_buffer([Path(obs, acs, np.ones(200, np.float32), obs, terminated)], 0)
    agent.train(0)
    scaled = agent.policy.scale_obs(torch.eye(2).repeat_interleave(5, 0))
    values = agent.critic(scaled, torch.linspace(-0.8, 0.8, 5)[:, None].repeat(2, 1)).detach()
    expected = torch.tensor([1.0] * 5 + [2.0] * 5).expand(2, -1)
    torch.testing.assert_close(values, expected, atol=0.1, rtol=0)


def test_sac_finds_the_optimum_of_a_bandit() -> None:
    """There is one state, and every step terminates. Actions a are in [5, 10].

    The reward is -(a - 8.75)^2 / 6.25. For actions scaled to [-1, 1], it is -(a - 0.5)^2, which Q
    must approximate.
    """
    low, high = np.array([5], np.float32), np.array([10], np.float32)
    agent = make_agent(
        1, low, high, sac_size=32, sac_n_iter=1500, sac_train_batch_size=128,
        sac_init_temperature=0.01, sac_learning_rate=3e-3, sac_target_entropy=-3.0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    acs = rng.uniform(5, 10, (1000, 1)).astype(np.float32)
    obs = np.zeros((1000, 1), np.float32)
    rewards = -((acs[:, 0] - 8.75) ** 2) / 6.25
    agent.add_to_replay_buffer([Path(obs, acs, rewards, obs, np.ones(1000, bool))], 0)
    agent.train(0)
    mode = agent.eval_policies["Eval"].get_action(obs[:1], [Memory(make_generator(0, "a"))])
    assert mode[0, 0] == pytest.approx(8.75, abs=0.25)
    grid = torch.linspace(-0.9, 0.9, 19)[:, None]
    values = agent.critic(torch.zeros(19, 1), grid).detach()
    torch.testing.assert_close(values, (-((grid[:, 0] - 0.5) ** 2)).expand(2, -1), atol=0.1, rtol=0)


def test_the_acting_policy_scales_observations_like_the_learned_one() -> None:
    agent, path = make_agent(sac_n_iter=1, sac_policy_averaging=0.5), random_path(20)
    obs = 50 + 10 * path.obs
    agent.add_to_replay_buffer([path._replace(obs=obs)], 0)
    agent.train(0)
    scaled = agent.acting_policy.scale_obs(torch.as_tensor(obs))
    assert torch.equal(scaled, agent.policy.scale_obs(torch.as_tensor(obs)))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    return int(next(iter(optimizer.state.values()))["step"])


def test_frequencies_count_the_updates_of_all_sac_iterations() -> None:
    """Two updates per SAC iteration: the actor's are 0, 3 and 6 of 0 to 7."""
    agent = make_agent(sac_num_agent_train_steps_per_iter=2, sac_actor_update_frequency=3)
    agent.add_to_replay_buffer([random_path(20)], 0)
    steps = []
    for _ in range(4):
        agent.train_on(agent.draw_real, 1)
        steps.append(steps_of(agent.actor_optimizer))
    assert steps == [1, 2, 2, 3]


def test_all_updates_of_the_first_iterations_train_only_the_critic() -> None:
    agent = make_agent(sac_num_agent_train_steps_per_iter=3)
    agent.add_to_replay_buffer([random_path(20)], 0)
    agent.train_on(agent.draw_real, 3, critic_iterations=2)
    assert [steps_of(agent.critic_optimizer), steps_of(agent.actor_optimizer)] == [9, 3]


def test_metrics_are_means_over_all_updates() -> None:
    agent, losses = make_agent(sac_n_iter=4), iter([1.0, 2.0, 4.0, 9.0])
    agent.add_to_replay_buffer([random_path(20)], 0)
    agent.update = lambda *args: {"Critic Loss": torch.tensor(next(losses))}
    assert agent.train(0)["Critic Loss"].tolist() == [4.0]


def test_bounds_follow_the_rewards_of_a_batch() -> None:
    """The quantiles of 0, 1 ... 100 are 1 and 99; a discount of 0.5 doubles them.

    The value of a termination is 0.
    """
    agent = make_agent(sac_value_bounds=0.25, sac_discount=0.5)
    obs, acs = torch.randn(101, 3), torch.rand(101, 2)
    batch = Transitions(obs, acs, torch.arange(101.0), obs, torch.zeros(101, dtype=torch.bool))
    agent._step_critic(batch, torch.randn(101, 2))
    assert agent.critic.bounds is not None
    assert agent.critic.bounds.bounds.tolist() == pytest.approx([2, 198])
    batch.terminated[3] = True
    agent._step_critic(batch, torch.randn(101, 2))
    assert agent.critic.bounds.bounds.tolist() == pytest.approx([0, 198])


@pytest.mark.parametrize(
    ("form", "raw", "std"),
    [
        ("softplus", [1.0, -200.0], [math.log1p(math.e) + STD_FLOOR, STD_FLOOR]),
        ("exp", [1.0, -200.0], [math.e, math.exp(LOG_STD_RANGE[0])]),
    ],
)
def test_stds_have_a_floor(form: Any, raw: list[float], std: list[float]) -> None:
    config = SACConfig(sac_size=16, sac_policy_std=form)
    policy = SACPolicy(3, LOW, HIGH, config, make_generator(0, "p"))
    with torch.no_grad():
        policy.network.vector.zero_()
        policy.network.layers[-1][1].copy_(torch.tensor([0.0, 0.0, *raw]))
    _, log_std = policy(torch.randn(5, 3))
    torch.testing.assert_close(log_std, torch.tensor(std).log().expand(5, 2))


def test_actions_at_the_limits_stay_in_a_box_that_rounding_would_leave() -> None:
    """Centre plus half width is one bit above -2.7. The second action cannot vary."""
    low, high = np.array([-3, 1], np.float32), np.array([-2.7, 1], np.float32)
    policy = SACPolicy(3, low, high, SACConfig(sac_size=16), make_generator(0, "p"))
    assert (policy.ac_center + policy.ac_half_range)[0] > policy.ac_high[0]
    assert policy.to_task(torch.ones(2)).tolist() == high.tolist()
    torch.testing.assert_close(policy.from_task(torch.from_numpy(high)), torch.tensor([1.0, 0.0]))
