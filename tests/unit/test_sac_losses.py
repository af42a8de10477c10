"""The losses of SAC against the paper's equations, computed by hand, and who learns from which."""

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
    """Networks in double precision, all of different weights, and a batch."""

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


def test_critics_loss_is_the_squared_td_error_of_both_twins() -> None:
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
    # The target is a number: nothing but the twin Q learns from it.
    others = [policy.network.vector, target_critic.network.vector, log_temperature]
    parameters = [critic.network.vector, *others]
    first, *rest = torch.autograd.grad(found.loss, parameters, allow_unused=True)
    torch.testing.assert_close(first, torch.autograd.grad(expected, critic.network.vector)[0])
    assert rest == [None] * 3


def test_actors_loss_is_that_of_the_entropy_and_the_lesser_twin() -> None:
    policy, critic, _, batch, noise, log_temperature = make_case()
    drawn = policy.sample(batch.obs, noise)
    values = critic(batch.obs, drawn.acs)
    assert 0 < int((values[0] < values[1]).sum()) < B  # each twin is the lesser one somewhere
    temperature = log_temperature.detach().exp()
    expected = (temperature * drawn.log_probs - values.amin(0)).mean()
    found = actor_loss(policy, critic, batch.obs, noise, log_temperature, -2.0)
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(found.entropy, -drawn.log_probs.mean().detach())
    gradient, of_temperature = torch.autograd.grad(
        found.loss, [policy.network.vector, log_temperature], allow_unused=True
    )
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, policy.network.vector)[0])
    assert of_temperature is None  # it has a loss of its own


@pytest.mark.parametrize("target_entropy", [-2.0, 5.0])
def test_temperatures_loss_is_of_what_the_entropy_is_more_than_asked_for(
    target_entropy: float,
) -> None:
    policy, critic, _, batch, noise, log_temperature = make_case()
    found = actor_loss(policy, critic, batch.obs, noise, log_temperature, target_entropy)
    excess = found.entropy - target_entropy
    torch.testing.assert_close(found.temperature_loss, log_temperature * excess)
    parameters = [log_temperature, policy.network.vector, critic.network.vector]
    slope, *others = torch.autograd.grad(found.temperature_loss, parameters, allow_unused=True)
    torch.testing.assert_close(slope, excess)
    assert others == [None] * 2


def test_losses_by_hand() -> None:
    """Two rows, one terminal; Q' is 3, of the twin 5; log pi and Q are those of given weights.

    All networks return constants, as all weights are 0 and the last biases are given: the Gaussian
    is standard, and Q is 1 and 2.
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
    batch = Transitions(*(column[:2] for column in batch))
    batch = batch._replace(rewards=torch.ones(2), terminated=torch.tensor([True, False]))
    noise = torch.zeros(2, A).double()  # actions 0, of density 1 / sqrt(2 pi) in each dimension
    log_prob = -A * 0.5 * np.log(2 * np.pi)
    target = 1 + 0.5 * (3 - 0.5 * log_prob)
    found = critic_loss(policy, critic, target_critic, batch, noise, log_temperature, 0.5)
    by_hand = ((1 - 1) ** 2 + (1 - target) ** 2 + (2 - 1) ** 2 + (2 - target) ** 2) / 2
    assert float(found.loss.detach()) == pytest.approx(by_hand)
    assert float(found.mean_value) == 1.5
    of_actor = actor_loss(policy, critic, batch.obs, noise, log_temperature, -2.0)
    assert float(of_actor.loss.detach()) == pytest.approx(0.5 * log_prob - 1)
    assert float(of_actor.entropy) == pytest.approx(-log_prob)
    expected = np.log(0.5) * (-log_prob + 2)
    assert float(of_actor.temperature_loss.detach()) == pytest.approx(expected)
