"""One update of double-horizon MBPO against the same update written in plain torch."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from cs285.agents.expanded_sac_agent import ExpandedSACAgent
from cs285.agents.value_expansion import ValueExpansion
from cs285.config.sac import SACConfig
from cs285.envs import TaskSpec
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.task_model import TaskModel

B, H, DISCOUNT, END = 40, 3, 0.9, 1.5
LOW, HIGH = np.array([0.0, -2.0], np.float32), np.array([10.0, 6.0], np.float32)
RATES = {"learning": 0.01, "target": 0.2, "bounds": 0.1, "averaging": 0.25}
Layers = list[tuple[Tensor, Tensor]]


class Slide(DynamicsModel):
    """The state x moves to 0.8 x + 0.1 a, and pays the product of both."""

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = 0.8 * state + 0.1 * acs
        return next_obs, Prediction(next_obs, (next_obs * acs).sum(-1), None)


def make_agent() -> ExpandedSACAgent:
    """Return an agent in the middle of a run: no two things that can be mixed up are equal."""
    task = TaskModel(learns_reward=True, get_termination=lambda obs: obs[..., 0] > END)
    config = SACConfig(
        sac_size=8, sac_critics=3, sac_critics_drawn=2, sac_actor_value="mean",
        sac_value_bounds=RATES["bounds"], sac_policy_averaging=RATES["averaging"],
        sac_target_rate=RATES["target"], sac_learning_rate=RATES["learning"],
        sac_discount=DISCOUNT, sac_init_temperature=0.3, sac_obs_scaling="unclipped",
    )  # fmt: skip
    agent = ExpandedSACAgent(
        ValueExpansion(Slide(), task, H, "mean"),
        TaskSpec(2, 2, LOW, HIGH, None, 10),
        config,
        1,
        torch.device("cpu"),
    )
    generator = torch.Generator().manual_seed(0)
    agent.policy.obs_scaler.fit(torch.tensor([[0.0, 3.0], [2.0, 4.0], [1.0, 8.0]]))
    for part in (agent.critic, agent.target_critic, agent.acting_policy):
        vector = part.network.vector
        with torch.no_grad():
            vector += 0.1 * torch.randn(len(vector), generator=generator)
    assert agent.critic.bounds is not None
    no_end = torch.zeros(50, dtype=torch.bool)
    agent.critic.bounds.follow(torch.linspace(3, 5, 50), DISCOUNT, no_end)  # 0 is outside
    return agent


def layers_of(network: Any) -> Layers:
    """Return copies of the weights (E, in, out) and biases (E, 1, out), with gradients."""
    return [
        (w.detach().clone().requires_grad_(), b.detach().clone().requires_grad_())
        for w, b in network.layers
    ]


def forward(layers: Layers, inputs: Tensor) -> Tensor:
    """Return the outputs (E, B, out) of ReLU networks."""
    for number, (weight, bias) in enumerate(layers, start=1):
        inputs = inputs @ weight + bias
        inputs = inputs if number == len(layers) else inputs.relu()
    return inputs


def step(losses: list[tuple[Tensor, list[Tensor]]]) -> None:
    """Take the first Adam step on each loss, with its parameters."""
    for loss, parameters in losses:
        adam = torch.optim.Adam(parameters, RATES["learning"])
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        adam.step()


def assert_layers(network: Any, expected: Layers) -> None:
    for found, wanted in zip(network.layers, expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-4, atol=2e-5)


def mixed(layers: Layers, others: Layers, rate: float) -> Layers:
    """Move `layers` by `rate` towards `others`."""
    return [
        ((1 - rate) * w + rate * v, (1 - rate) * b + rate * c)
        for (w, b), (v, c) in zip(layers, others, strict=True)
    ]


def test_an_update_matches_plain_torch() -> None:
    agent = make_agent()
    rows = 0.7 * torch.randn(1, B, 8, generator=torch.Generator().manual_seed(1))
    ((obs, draws, critic_draws),) = agent._batches(rows, 0)
    assert critic_draws.members is not None
    policy, critic, target, acting = (
        layers_of(part.network)
        for part in (agent.policy, agent.critic, agent.target_critic, agent.acting_policy)
    )
    bounds = copy.deepcopy(agent.critic.bounds.bounds)  # type: ignore[union-attr]
    log_temperature = torch.tensor(0.3).log().requires_grad_()
    metrics = agent._update(obs, draws, critic_draws, moves_target=True, trains_actor=True)

    def scaled(x: Tensor) -> Tensor:
        mean, std = torch.tensor([1.0, 5.0]), torch.tensor([2 / 3, 14 / 3]).sqrt()
        return (x - mean) / std

    def act(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = forward(policy, scaled(x)[None])[0].chunk(2, -1)
        before = mean + log_std.exp() * noise
        squashed = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
        return before.tanh(), squashed.log_prob(before.tanh()).sum(-1)

    def values(layers: Layers, x: Tensor, acs: Tensor) -> Tensor:
        low, high = bounds
        outputs = forward(layers, torch.cat([scaled(x), acs], -1).expand(3, -1, -1))[..., 0]
        return (low + high) / 2 + (high - low) / 2 * outputs

    temperature, x, alive = 0.3, obs, torch.ones(B)
    first_acs, log_probs = act(x, draws.noise[0])
    first_log_probs, acs, soft_return = log_probs, first_acs, torch.zeros(B)
    for t in range(H):
        in_box = torch.tensor([5.0, 2.0]) + torch.tensor([5.0, 4.0]) * acs
        next_x = 0.8 * x + 0.1 * in_box
        rewards = (next_x * in_box).sum(-1)
        if t == 0:
            levels = torch.quantile(rewards - temperature * log_probs, torch.tensor([0.01, 0.99]))
            bounds = (0.9 * bounds + 0.1 * levels / (1 - DISCOUNT)).detach()
        soft_return = soft_return + DISCOUNT**t * alive * (rewards - temperature * log_probs)
        alive = alive * (next_x[:, 0] <= END)
        x = torch.where(alive[:, None] > 0, next_x, x)
        acs, log_probs = act(x, draws.noise[t + 1])
    assert 0.2 < alive.mean() < 0.8  # some episodes terminate within the rollout
    bounds = torch.stack([bounds[0].clamp(max=0), bounds[1].clamp(min=0)])
    last = DISCOUNT**H * alive

    pair = values(target, x, acs)[critic_draws.members].amin(0)
    clipped = pair.minimum(bounds[1]).maximum(bounds[0])
    targets = soft_return + last * (clipped - temperature * log_probs)
    targets = (targets + temperature * first_log_probs).detach()
    critic_loss = (values(critic, obs, first_acs.detach()) - targets).square().mean(1).sum()
    step([(critic_loss, [tensor for layer in critic for tensor in layer])])
    mean_value = values(critic, x, acs).mean(0)
    actor_loss = -(soft_return + last * (mean_value - temperature * log_probs)).mean()
    entropy = -first_log_probs.mean().detach()
    step(
        [
            (actor_loss, [tensor for layer in policy for tensor in layer]),
            (log_temperature * (entropy + 2), [log_temperature]),
        ]
    )

    torch.testing.assert_close(agent.critic.bounds.bounds, bounds)  # type: ignore[union-attr]
    torch.testing.assert_close(metrics["Critic Loss"], critic_loss.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(metrics["Actor Loss"], actor_loss.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(metrics["Entropy"], entropy)
    assert_layers(agent.critic.network, critic)
    assert_layers(agent.target_critic.network, mixed(target, critic, RATES["target"]))
    assert_layers(agent.policy.network, policy)
    assert_layers(agent.acting_policy.network, mixed(acting, policy, RATES["averaging"]))
    torch.testing.assert_close(agent.log_temperature.detach(), log_temperature.detach())


def test_rows_that_diverge_do_not_move_the_bounds() -> None:
    agent = make_agent()
    rows = 0.7 * torch.randn(1, B, 8, generator=torch.Generator().manual_seed(1))
    ((obs, draws, critic_draws),) = agent._batches(rows, 0)
    obs[0] = 1e12
    rollout = agent.expansion.roll_out(agent.policy, obs, draws)
    soft_rewards = rollout.rewards[0] - 0.3 * rollout.log_probs[0]
    expected = copy.deepcopy(agent.critic.bounds)
    assert expected is not None
    assert not rollout.valid[0]
    assert rollout.valid[1:].all()
    expected.follow(soft_rewards[1:].detach(), DISCOUNT, ~rollout.alive[-1, 1:])
    agent._update(obs, draws, critic_draws, moves_target=True, trains_actor=True)
    torch.testing.assert_close(agent.critic.bounds.bounds, expected.bounds)  # type: ignore[union-attr]
