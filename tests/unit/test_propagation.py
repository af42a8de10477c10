"""Test propagation in planners: one elite (tsinf), a random elite per step (ts1), or the mean."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cs285.config.planner import PlannerConfig
from cs285.infrastructure.errors import UsageError
from cs285.models.base_model import DynamicsModel, Prediction
from cs285.models.propagation import swap_members
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Memory
from cs285.policies.MPC_policy import MPCPolicy

BOX = np.ones(1, np.float32)


class Drift(DynamicsModel):
    """s' = s + the member's drift + std * noise, in one dimension; if `pushed`, plus the action."""

    def __init__(
        self,
        drifts: list[float],
        std: float = 0.0,
        end: float | None = None,
        pushed: bool = False,
    ) -> None:
        super().__init__()
        self.drifts, self.std, self.end = torch.tensor(drifts)[:, None, None], std, end
        self.pushed = pushed
        self.members, self.noise_dim = len(drifts), int(std > 0)
        self.rows: list[int] = []

    def step(self, obs: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        assert obs.shape[0] == self.members
        self.rows.append(obs.shape[0] * obs.shape[1])
        next_obs = obs + self.drifts + (acs if self.pushed else 0)
        if noise is not None:
            next_obs = next_obs + self.std * noise
        terminated = None if self.end is None else next_obs[..., 0] > self.end
        return next_obs, Prediction(next_obs, torch.zeros(obs.shape[:-1]), terminated)


def square(obs: Any, acs: Any) -> tuple[Any, Any]:
    """Reward the square of the state, so that the mean over particles shows their spread."""
    return obs[..., 0] ** 2, obs[..., 0] > 1e9


def policy(model: Any, task: TaskModel | None = None, **flags: Any) -> MPCPolicy:
    config = PlannerConfig(**{"mpc_horizon": 3, "mpc_num_action_sequences": 4, **flags})
    return MPCPolicy(model, task or TaskModel(square), -BOX, BOX, config, torch.device("cpu"))


def returns(planner: MPCPolicy, N: int = 4, B: int = 1, seed: int = 0) -> Tensor:
    memories = [Memory(torch.Generator().manual_seed(seed + b)) for b in range(B)]
    sequences = torch.zeros(B, N, planner.config.mpc_horizon, 1)
    states = planner.model.initial_state(torch.zeros(B, 1))
    return planner.evaluate_sequences(states, sequences, planner.draw(memories))


def test_tsinf_particles_keep_their_member() -> None:
    """Members that drift by 1 and by -1 both reach distance 3, with a return of 1 + 4 + 9."""
    assert returns(policy(Drift([1.0, -1.0]))).tolist() == [[14.0] * 4]


def test_mean_propagation_follows_the_mean() -> None:
    planner = policy(Drift([1.0, -1.0]), mpc_propagation="mean")
    assert returns(planner).tolist() == [[0.0] * 4]
    planner = policy(Drift([1.0, 2.0], std=1.0), mpc_propagation="mean")
    assert returns(planner).tolist() == [[1.5**2 * 14] * 4]


def test_ts1_draws_a_random_member_at_each_step() -> None:
    """The particles are a symmetric random walk: E[s_t^2] = t, so the expected return is 6."""
    planner = policy(Drift([1.0, -1.0]), mpc_propagation="ts1", mpc_particles=10_000)
    found = returns(planner, N=2)
    assert found.mean().item() == pytest.approx(6, abs=0.3)
    assert found.mean().item() != returns(planner, N=2, seed=1).mean().item()


@pytest.mark.parametrize("propagation", ["tsinf", "ts1"])
def test_particles_sample_from_the_distribution_of_their_member(propagation: str) -> None:
    planner = policy(Drift([0.0, 0.0], std=0.5), mpc_propagation=propagation, mpc_particles=10_000)
    found = returns(planner, N=2)
    assert found.mean().item() == pytest.approx(0.25 * 6, rel=0.05)


@pytest.mark.parametrize("propagation", ["tsinf", "ts1"])
def test_candidates_differ_only_by_their_actions(propagation: str) -> None:
    """All candidates share the noise, so small action effects show even with two particles."""
    model = Drift([0.5, -0.5], std=1.0, pushed=True)
    task = TaskModel(lambda obs, acs: (obs[..., 0], obs[..., 0] > 1e9))
    planner = policy(model, task, mpc_propagation=propagation, mpc_particles=2)
    sequences = torch.linspace(0, 0.03, 4)[None, :, None, None].expand(2, 4, 3, 1)
    memories = [Memory(torch.Generator().manual_seed(seed)) for seed in range(2)]
    states = planner.model.initial_state(torch.zeros(2, 1))
    found = planner.evaluate_sequences(states, sequences, planner.draw(memories))
    torch.testing.assert_close(found - found[:, :1], sequences[:, :, 0, 0] * (1 + 2 + 3))
    assert found[0, 0] != found[1, 0]


@pytest.mark.parametrize("propagation", ["tsinf", "ts1"])
def test_one_member_computes_each_particle(propagation: str) -> None:
    model = Drift([0.0, 1.0, 2.0], std=0.1)
    planner = policy(model, mpc_propagation=propagation, mpc_particles=12)
    returns(planner, N=7, B=2)
    assert model.rows == [12 * 7 * 2] * 3


@pytest.mark.parametrize("propagation", ["tsinf", "ts1"])
def test_environments_in_a_batch_are_independent(propagation: str) -> None:
    planner = policy(Drift([0.3, -0.8], std=0.2), mpc_propagation=propagation)
    together = returns(planner, B=3)
    for row in range(3):
        torch.testing.assert_close(together[row], returns(planner, seed=row)[0])


def test_default_particles() -> None:
    assert policy(Drift([0.0] * 3)).particles == 1
    assert policy(Drift([0.0] * 3, std=1.0)).particles == 7  # 3 * 7 = 21, at least 20
    assert policy(Drift([0.0] * 5, std=1.0)).particles == 4
    assert policy(Drift([0.0] * 3, std=1.0), mpc_propagation="mean").particles == 1
    with pytest.raises(UsageError, match="--mpc_particles 7: must be a multiple of 3"):
        policy(Drift([0.0] * 3), mpc_particles=7, mpc_propagation="ts1")
    assert policy(Drift([0.0] * 3), mpc_particles=7).particles == 1  # deterministic


def test_swap_members_moves_whole_particles() -> None:
    particles = torch.arange(2 * 3 * 4 * 2).view(2, 3, 4, 2)
    order = torch.rand(6, 4).argsort(0)
    swapped = swap_members(particles, order)
    for candidate in range(4):
        before = particles.flatten(0, 1)[:, candidate]
        assert torch.equal(swapped.flatten(0, 1)[:, candidate], before[order[:, candidate]])


@pytest.mark.parametrize("propagation", ["tsinf", "mean", "ts1"])
def test_plans_ignore_rewards_after_termination(propagation: str) -> None:
    """States drift by 1 from 0 and terminate beyond 1.5, in the step to 2: the return is 1 + 4."""
    flags = {"mpc_propagation": propagation}

    def beyond(obs: Any) -> Any:
        return obs[..., 0] > 1.5

    known = TaskModel(square, get_termination=beyond)
    assert returns(policy(Drift([1.0, 1.0]), known, **flags)).tolist() == [[5.0] * 4]
    learned = TaskModel(square, termination="learned")
    assert returns(policy(Drift([1.0, 1.0], end=1.5), learned, **flags)).tolist() == [[5.0] * 4]
    for endless in (
        TaskModel(square, get_termination=beyond, termination="none"),
        TaskModel(square, get_termination=beyond, ends_plans=False),
    ):
        assert returns(policy(Drift([1.0, 1.0]), endless, **flags)).tolist() == [[14.0] * 4]


@pytest.mark.parametrize("propagation", ["tsinf", "mean", "ts1"])
def test_a_diverged_state_is_not_a_termination(propagation: str) -> None:
    """Each step costs 1, so a diverged state that counted as terminated would look better."""
    task = TaskModel(
        lambda obs, acs: (-torch.ones_like(obs[..., 0]), None),
        get_termination=lambda obs: ~obs.isfinite().all(-1),
    )
    found = returns(policy(Drift([torch.inf, torch.inf]), task, mpc_propagation=propagation))
    assert found.tolist() == [[-torch.inf] * 4]


def test_ts1_moves_terminations_with_their_particles() -> None:
    """Members drift by 2 and by 0, and states terminate beyond 1, so only one step to 2 counts."""
    task = TaskModel(square, get_termination=lambda obs: obs[..., 0] > 1)
    planner = policy(Drift([2.0, 0.0]), task, mpc_propagation="ts1", mpc_particles=2000)
    # 1/2, 1/4 and 1/8 of the particles reach 2 in steps 1, 2 and 3, with a reward of 4 each.
    assert returns(planner, N=3).mean().item() == pytest.approx(4 * 7 / 8, rel=0.05)
