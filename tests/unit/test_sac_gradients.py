"""The two gradients of a SAC update against autograd of the losses as the paper has them."""

from typing import NamedTuple

import numpy as np
import torch
from cs285.agents.sac_gradients import actor_gradient, critic_gradient
from torch import Tensor

from cs285.config.sac import SACConfig
from cs285.critics.sac_critic import SACCritic
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Transitions
from cs285.networks.ensemble_mlp import EnsembleMLP
from cs285.policies.sac_policy import SACPolicy

O, A, B = 3, 2, 40
LOW, HIGH = np.array([-1, 0], np.float32), np.array([1, 10], np.float32)
LOG_TEMPERATURE, DISCOUNT = torch.tensor(-0.4).double(), 0.9


class Case(NamedTuple):
    """Networks in double precision, all of different weights, and a batch."""

    policy: SACPolicy
    critic: SACCritic
    target_critic: SACCritic
    batch: Transitions
    noise: Tensor  # (B, A)


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
    return Case(policy, critic, target, batch, normal(B, A))


def differentiable(network: EnsembleMLP) -> Tensor:
    """Return the network's weights, after which autograd can ask for its outputs' gradient."""
    network.vector.requires_grad_()
    network._layers = network.view_layers(network.vector)
    return network.vector


def test_critics_gradient_is_that_of_the_squared_td_error_of_both_twins() -> None:
    policy, critic, target_critic, batch, noise = make_case()
    drawn = policy.sample(batch.next_obs, noise)
    least = target_critic(batch.next_obs, drawn.acs).amin(0)
    value = least - LOG_TEMPERATURE.exp() * drawn.log_probs
    targets = torch.where(batch.terminated, batch.rewards, batch.rewards + DISCOUNT * value)
    weights = differentiable(critic.network)
    errors = critic(batch.obs, batch.acs) - targets
    (expected,) = torch.autograd.grad(errors.square().mean(1).sum(), weights)
    gradient, record = critic_gradient(
        policy, critic, target_critic, batch, noise, LOG_TEMPERATURE, DISCOUNT
    )
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(record.errors, errors.detach())


def test_actors_gradient_is_that_of_the_entropy_and_the_lesser_twin() -> None:
    policy, critic, _, batch, noise = make_case()
    weights = differentiable(policy.network)
    drawn = policy.sample(batch.obs, noise)
    values = critic(batch.obs, drawn.acs)
    assert 0 < int((values[0] < values[1]).sum()) < B  # each twin is the lesser one somewhere
    loss = (LOG_TEMPERATURE.exp() * drawn.log_probs - values.amin(0)).mean()
    (expected,) = torch.autograd.grad(loss, weights)
    gradient, record = actor_gradient(policy, critic, batch.obs, noise, LOG_TEMPERATURE, -2.0)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(record.excess_entropy, 2.0 - drawn.log_probs.mean().detach())
