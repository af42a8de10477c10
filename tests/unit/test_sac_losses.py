"""Test the SAC losses against the paper's equations, and which parameters each loss trains."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cs285.agents.sac_losses import actor_loss, critic_loss
from cs285.config.sac import SACConfig
from cs285.critics.sac_critic import SACCritic
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Transitions
from cs285.policies.sac_policy import SACPolicy

O, A, B = 3, 2, 40
LOW, HIGH = np.array([-1, 0], np.float32), np.array([1, 10], np.float32)
DISCOUNT = 0.9


class Case(NamedTuple):
    """Networks in double precision with different weights, and a batch."""

    policy: SACPolicy
    critic: SACCritic
    target_critic: SACCritic
    batch: Transitions
    noise: Tensor  # (B, A)
    log_temperature: Tensor  # ()


def make_case() -> Case:
    config = SACConfig(sac_size=32)
    policy = SACPolicy(O, LOW, HIGH, config, make_generator(0, "policy")).double()
    critic, target = (
        SACCritic(O, A, config, make_generator(0, name)).double() for name in ("critic", "target")
    )
    generator = make_generator(0, "batch")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    obs, acs, rewards, next_obs = normal(B, O), normal(B, A).tanh(), normal(B), normal(B, O)
    terminated = torch.rand(B, generator=generator) < 0.3
    batch = Transitions(obs, acs, rewards, next_obs, terminated)
    log_temperature = nn.Parameter(torch.tensor(-0.4, dtype=torch.float64))
    return Case(policy, critic, target, batch, normal(B, A), log_temperature)


def test_critic_loss_is_the_squared_td_error_of_both_twins() -> None:
    policy, critic, target_critic, batch, noise, log_temperature = make_case()
    drawn = policy.sample(batch.next_obs, noise)
    least = target_critic(batch.next_obs, drawn.acs).amin(0)
    value = least - log_temperature.exp() * drawn.log_probs
    targets = torch.where(batch.terminated, batch.rewards, batch.rewards + DISCOUNT * value)
    values = critic(batch.obs, batch.acs)
    expected = ((values - targets.detach()) ** 2).sum() / B
    found = critic_loss(policy, critic, target_critic, batch, noise, log_temperature, DISCOUNT)
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(found.mean_value, values.detach().mean())
    assert not found.mean_value.requires_grad
    # Only the twin Q learns from this loss.
    others = [policy.network.vector, target_critic.network.vector, log_temperature]
    parameters = [critic.network.vector, *others]
    first, *rest = torch.autograd.grad(found.loss, parameters, allow_unused=True)
    torch.testing.assert_close(first, torch.autograd.grad(expected, critic.network.vector)[0])
    assert rest == [None] * 3


def test_actor_loss_is_the_entropy_term_minus_the_smaller_q_value() -> None:
    policy, critic, _, batch, noise, log_temperature = make_case()
    drawn = policy.sample(batch.obs, noise)
    values = critic(batch.obs, drawn.acs)
    assert 0 < int((values[0] < values[1]).sum()) < B  # each twin is the smaller one in some rows
    temperature = log_temperature.detach().exp()
    expected = (temperature * drawn.log_probs - values.amin(0)).mean()
    found = actor_loss(policy, critic, batch.obs, noise, log_temperature, -2.0)
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(found.entropy, -drawn.log_probs.mean().detach())
    gradient, temperature_gradient = torch.autograd.grad(
        found.loss, [policy.network.vector, log_temperature], allow_unused=True
    )
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, policy.network.vector)[0])
    assert temperature_gradient is None  # the temperature has a separate loss


@pytest.mark.parametrize("target_entropy", [-2.0, 5.0])
def test_temperature_loss_is_proportional_to_the_excess_entropy(target_entropy: float) -> None:
    policy, critic, _, batch, noise, log_temperature = make_case()
    found = actor_loss(policy, critic, batch.obs, noise, log_temperature, target_entropy)
    excess = found.entropy - target_entropy
    torch.testing.assert_close(found.temperature_loss, log_temperature * excess)
    parameters = [log_temperature, policy.network.vector, critic.network.vector]
    slope, *others = torch.autograd.grad(found.temperature_loss, parameters, allow_unused=True)
    torch.testing.assert_close(slope, excess)
    assert others == [None] * 2


def test_losses_match_values_computed_by_hand() -> None:
    """The batch has two rows, and the first one terminates.

    All weights are 0, so the networks return their last biases: the Gaussian is standard, the twins
    are 1 and 2, and the target twins are 5 and 3.
    """
    policy, critic, target_critic, batch, _, log_temperature = make_case()
    with torch.no_grad():
        for network, outputs in (
            (policy.network, [[[0.0] * 2 * A]]),
            (critic.network, [[[1.0]], [[2.0]]]),
            (target_critic.network, [[[5.0]], [[3.0]]]),
        ):
            network.vector.zero_()
            network.layers[-1][1].copy_(torch.tensor(outputs))
        log_temperature.fill_(float(np.log(0.5)))
    batch = batch.each(lambda column: column[:2])
    batch = batch._replace(rewards=torch.ones(2), terminated=torch.tensor([True, False]))
    noise = torch.zeros(2, A).double()  # actions of 0, with density 1 / sqrt(2 pi) per dimension
    log_prob = -A * 0.5 * np.log(2 * np.pi)
    target = 1 + 0.5 * (3 - 0.5 * log_prob)
    found = critic_loss(policy, critic, target_critic, batch, noise, log_temperature, 0.5)
    by_hand = ((1 - 1) ** 2 + (1 - target) ** 2 + (2 - 1) ** 2 + (2 - target) ** 2) / 2
    assert float(found.loss.detach()) == pytest.approx(by_hand)
    assert float(found.mean_value) == 1.5
    actor = actor_loss(policy, critic, batch.obs, noise, log_temperature, -2.0)
    assert float(actor.loss.detach()) == pytest.approx(0.5 * log_prob - 1)
    assert float(actor.entropy) == pytest.approx(-log_prob)
    expected = np.log(0.5) * (-log_prob + 2)
    assert float(actor.temperature_loss.detach()) == pytest.approx(expected)
