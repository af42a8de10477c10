"""Test model rollouts in a known linear system, including terminal and non-finite rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cs285.config.sac import SACConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import make_generator
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.propagation import (
    draw_split,
    mean_of_members,
    step_with_mean,
    step_with_random_member,
)
from cs285.models.rollouts import roll_out
from cs285.models.task_model import TaskModel
from cs285.policies.sac_policy import SACPolicy

OFFSETS = (0.0, 0.3, 0.9)  # one per member


class LinearModel(DynamicsModel):
    """s' = s + a + the member's offset + std * noise, r = the member's offset."""

    def __init__(self, offsets: tuple[float, ...] = OFFSETS, std: float = 0.0) -> None:
        super().__init__()
        self.offsets, self.std = torch.tensor(offsets)[:, None], std
        self.members, self.noise_dim = len(offsets), 2 if std else 0

    def step(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        assert state.shape[0] == acs.shape[0] == self.members
        next_obs = state + acs + self.offsets[..., None]
        if noise is not None:
            next_obs = next_obs + self.std * noise
        return next_obs, Prediction(next_obs, self.offsets.expand(state.shape[:2]), None)


class Counting(LinearModel):
    """A LinearModel with memory: each member counts its steps, and its state is (obs, count)."""

    has_memory = True

    def initial_state(self, obs: Tensor, previous: Tensor | None = None) -> Tensor:
        obs = obs.expand(self.members, -1, -1)
        count = obs.new_zeros(*obs.shape[:-1], 1) if previous is None else previous[..., 2:]
        return torch.cat([obs, count], -1)

    def step(
        self, state: Tensor, acs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        _, prediction = super().step(state[..., :2], acs, noise)
        count = state[..., 2:] + torch.arange(1.0, 4)[:, None, None]  # member m counts by m + 1
        return torch.cat([prediction.next_obs, count], -1), prediction


def policy(low: float = -1, high: float = 1) -> SACPolicy:
    ones = np.ones(2, np.float32)
    return SACPolicy(2, low * ones, high * ones, SACConfig(sac_size=8), make_generator(0, "p"))


def imagine(starts: Tensor, length: int, **options: Any) -> Any:
    options = {
        "model": LinearModel(),
        "acs_of": policy().draw,
        "task": TaskModel(learns_reward=True),
        "propagation": "mean",
        "generator": make_generator(3, "r"),
        **options,
    }
    return roll_out(start=starts, length=length, **options)


def terminates_beyond(limit: float) -> Any:
    """Reward the first coordinate of the post-step state, and terminate beyond `limit`."""
    return TaskModel(lambda obs, acs: (obs[..., 0], obs[..., 0] > limit))


def test_mean_rollouts_follow_the_known_system() -> None:
    starts = torch.randn(50, 2)
    rollouts = imagine(starts, 4)
    data = rollouts.data
    assert data.obs.shape == (200, 2)
    torch.testing.assert_close(data.next_obs, data.obs + data.acs + 0.4)
    torch.testing.assert_close(data.rewards, torch.full((200,), 0.4))
    assert not data.terminated.any()
    obs, next_obs = data.obs.view(50, 4, 2), data.next_obs.view(50, 4, 2)
    assert torch.equal(obs[:, 0], starts)
    assert torch.equal(obs[:, 1:], next_obs[:, :-1])  # each step continues from the last
    assert data.acs.abs().max() <= 1
    assert data.acs.std() > 0.1  # sampled from the policy, not its mode
    assert float(rollouts.mean_length) == 4
    assert float(rollouts.mean_reward) == pytest.approx(0.4)
    assert float(rollouts.dropped) == 0


def test_actions_are_within_the_action_bounds() -> None:
    data = imagine(torch.randn(100, 2), 3, acs_of=policy(2, 10).draw).data
    assert data.acs.min() >= 2
    assert data.acs.max() <= 10
    assert data.acs.max() - data.acs.min() > 4
    torch.testing.assert_close(data.next_obs, data.obs + data.acs + 0.4)


def test_policy_receives_scaled_observations() -> None:
    actor, starts = policy(), 100 + 5 * torch.randn(50, 2)
    actor.obs_scaler.fit(starts)
    data = imagine(starts, 1, acs_of=actor.draw).data
    noise = torch.randn((50, 2), generator=make_generator(3, "r"))
    expected = actor.to_task(actor.sample((starts - starts.mean(0)) / starts.std(0), noise).acs)
    torch.testing.assert_close(data.acs, expected, atol=0.02, rtol=0)
    assert (data.acs - actor.to_task(actor.sample(starts, noise).acs)).abs().max() > 0.1


def test_random_member_samples_from_its_distribution() -> None:
    starts = torch.zeros(4000, 2)
    model = LinearModel((0.4,) * 3, std=0.5)
    drawn = imagine(starts, 2, model=model, propagation="random_member").data
    deviations = (drawn.next_obs - drawn.obs - drawn.acs - 0.4).view(4000, 4)  # of both steps
    torch.testing.assert_close(deviations.T.cov(), 0.25 * torch.eye(4), atol=0.03, rtol=0)
    mean = imagine(starts, 1, model=model, propagation="mean").data
    torch.testing.assert_close(mean.next_obs, mean.obs + mean.acs + 0.4)


def test_reward_uses_the_post_step_observation() -> None:
    data = imagine(torch.randn(20, 2), 2, task=terminates_beyond(1e9)).data
    assert torch.equal(data.rewards, data.next_obs[:, 0])


def test_learned_reward_keeps_the_known_termination() -> None:
    starts = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    task = replace(terminates_beyond(5), learns_reward=True)
    data = imagine(starts, 2, task=task).data
    torch.testing.assert_close(data.rewards, torch.full((3,), 0.4))
    assert data.terminated.tolist() == [False, False, True]


def test_terminal_rows_are_kept_and_end_their_rollout() -> None:
    starts = torch.tensor([[-50.0, 0.0], [2.5, 0.0], [9.0, 0.0]])
    rollouts = imagine(starts, 3, task=terminates_beyond(3.7), model=LinearModel((2.0,) * 3))
    data = rollouts.data
    torch.testing.assert_close(data.terminated, data.next_obs[:, 0] > 3.7)
    first = data.obs[:, 0] < -30
    second = (data.obs[:, 0] > -30) & (data.obs[:, 0] < 8)
    assert int(first.sum()) == 3  # does not terminate
    assert data.terminated[data.obs[:, 0] > 8].tolist() == [True]  # terminates in the first step
    assert int(data.terminated.sum()) == 2
    assert len(data.rewards) == 3 + 1 + int(second.sum())
    assert float(rollouts.mean_length) == pytest.approx(len(data.rewards) / 3)


def test_non_finite_rows_are_dropped_and_counted_once() -> None:
    starts = torch.zeros(5, 2)
    starts[1, 0], starts[3, 1] = torch.inf, torch.nan
    rollouts = imagine(starts, 3)
    assert len(rollouts.data.rewards) == 3 * 3
    assert all(column.isfinite().all() for column in rollouts.data)
    assert float(rollouts.dropped) == 2
    nothing = imagine(torch.full((4, 2), torch.nan), 2)
    assert len(nothing.data.rewards) == 0
    assert (float(nothing.dropped), float(nothing.mean_reward)) == (4, 0)


def test_non_finite_reward_drops_the_row() -> None:
    def reward(obs: Tensor, acs: Tensor) -> tuple[Tensor, Tensor]:
        rewards = torch.where(obs[..., 0] > 100, torch.inf, 1.0)
        return rewards, torch.zeros_like(rewards, dtype=torch.bool)

    starts = torch.tensor([[0.0, 0.0], [200.0, 0.0]])
    rollouts = imagine(starts, 2, task=TaskModel(reward))
    assert rollouts.data.rewards.tolist() == [1.0, 1.0]
    assert float(rollouts.dropped) == 1


@pytest.mark.parametrize("B", [1, 2, 3, 300, 301, 302])
def test_random_member_assigns_one_member_per_row_in_equal_shares(B: int) -> None:
    model, obs, acs = LinearModel(), torch.randn(B, 2), torch.randn(B, 2)
    state, generator = model.initial_state(obs), make_generator(0, "m")
    split = draw_split(3, B, generator)
    next_state, prediction = step_with_random_member(model.step, state, acs, split)
    next_obs, rewards, _ = prediction
    assert torch.equal(next_state, next_obs.expand(3, -1, -1))  # any member may continue
    torch.testing.assert_close(next_obs, obs + acs + rewards[:, None])  # both are of one member
    counts = [int(torch.isclose(rewards, torch.tensor(offset)).sum()) for offset in OFFSETS]
    assert sum(counts) == B
    if B >= 300:
        assert max(counts) - min(counts) <= 2
        split = draw_split(3, B, generator)
        _, again = step_with_random_member(model.step, state, acs, split)
        assert not torch.equal(rewards, again.rewards)  # a new draw in each step


def test_random_member_is_uniform_for_every_row() -> None:
    model, obs = LinearModel(), torch.zeros(4, 2)
    state, drawn = model.initial_state(obs), []
    for number in range(900):
        split = draw_split(3, 4, make_generator(0, "m", number))
        _, prediction = step_with_random_member(model.step, state, obs, split)
        drawn.append(prediction.rewards)
    for offset in OFFSETS:
        shares = torch.isclose(torch.stack(drawn), torch.tensor(offset)).float().mean(0)
        torch.testing.assert_close(shares, torch.full((4,), 1 / 3), atol=0.06, rtol=0)


def test_mean_propagation_averages_the_members() -> None:
    model = LinearModel()
    state, (next_obs, rewards, _) = step_with_mean(
        model, model.step, model.initial_state(torch.ones(4, 2)), torch.ones(4, 2)
    )
    torch.testing.assert_close(next_obs, torch.full((4, 2), 2.4))
    assert torch.equal(state, next_obs.expand(3, -1, -1))
    torch.testing.assert_close(rewards, torch.full((4,), 0.4))


def test_rollouts_are_deterministic_for_a_seed() -> None:
    starts = torch.randn(7, 2)
    first, second = imagine(starts, 3), imagine(starts, 3)
    assert torch.equal(first.data.next_obs, second.data.next_obs)
    other = imagine(starts, 3, generator=make_generator(4, "r"))
    assert not torch.equal(first.data.next_obs, other.data.next_obs)


def test_each_member_keeps_its_memory() -> None:
    """The members continue from their mean observation, and each keeps its own count."""
    model = Counting()
    obs, acs = torch.ones(4, 2), torch.ones(4, 2)
    state, prediction = step_with_mean(model, model.step, model.initial_state(obs), acs)
    assert torch.equal(state[..., :2], prediction.next_obs.expand(3, -1, -1))
    assert torch.equal(state[..., 2], torch.tensor([[1.0], [2], [3]]).expand(3, 4))
    state, _ = step_with_mean(model, model.step, state, acs)
    assert torch.equal(state[..., 2], torch.tensor([[2.0], [4], [6]]).expand(3, 4))
    plain, other = (imagine(obs, 3, model=m).data for m in (LinearModel(), Counting()))
    for left, right in zip(plain, other, strict=True):
        torch.testing.assert_close(left, right)


def test_random_member_with_memory_is_rejected() -> None:
    with pytest.raises(UsageError, match="--mbpo_propagation random_member: must be mean"):
        imagine(torch.ones(4, 2), 2, model=Counting(), propagation="random_member")


def test_noise_of_every_member_and_row_is_independent() -> None:
    noise = draw_split(3, 300, make_generator(0, "m"), noise_dim=2).noise
    assert noise is not None
    assert noise.shape == (3, 100, 2)
    assert len(noise.unique()) == 600


def test_half_of_the_members_are_enough_to_terminate() -> None:
    terminated = torch.tensor([[True, True, False], [True, False, False]])
    prediction = Prediction(torch.zeros(2, 3, 1), torch.zeros(2, 3), terminated)
    found = mean_of_members(prediction).terminated
    assert found is not None
    assert found.tolist() == [[True, True, False]]
