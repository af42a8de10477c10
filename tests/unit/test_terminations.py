"""Test termination functions against Gymnasium's simulators, at random states and near limits."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from cs285.envs import inspect_task
from cs285.envs.terminations import TERMINATIONS

STATES = 150
# The positions with limits, and the limits: (index in qpos, limits).
NEAR: dict[str, list[tuple[int, tuple[float, ...]]]] = {
    "Hopper-v5": [(1, (0.7,)), (2, (-0.2, 0.2))],
    "HopperFullVelocities-v5": [(1, (0.7,)), (2, (-0.2, 0.2))],
    "Walker2d-v5": [(1, (0.8, 2.0)), (2, (-1.0, 1.0))],
    "Walker2dFullVelocities-v5": [(1, (0.8, 2.0)), (2, (-1.0, 1.0))],
    "Ant-v5": [(2, (0.2, 1.0))],
    "AntTruncatedObs-v5": [(2, (0.2, 1.0))],
    "Humanoid-v5": [(2, (1.0, 2.0))],
    "HumanoidTruncatedObs-v5": [(2, (1.0, 2.0))],
    "InvertedPendulum-v5": [(1, (-0.2, 0.2))],
    # The tip is at 1 m for angles of +-(0.585, 0), and for other pairs.
    "InvertedDoublePendulum-v5": [(1, (-0.585, 0.585))],
}


def states_to_try(env: Any, env_id: str, rng: np.random.Generator) -> Any:
    """Yield states (qpos, qvel): random states, and states near each limit."""
    base = env.unwrapped
    for number in range(STATES):
        qpos = base.init_qpos + 0.3 * rng.normal(size=base.model.nq)
        qvel = 2.0 * rng.normal(size=base.model.nv)
        if number % 3:
            index, limits = NEAR[env_id][number % len(NEAR[env_id])]
            qpos = base.init_qpos + 0.01 * rng.normal(size=base.model.nq)
            qpos[index] = rng.choice(limits) + rng.choice([0.003, 0.03]) * rng.normal()
            qvel = 0.1 * rng.normal(size=base.model.nv)
        yield qpos, qvel


def test_every_termination_function_is_tested() -> None:
    assert set(NEAR) == set(TERMINATIONS)


@pytest.mark.parametrize("env_id", NEAR)
def test_termination_function_equals_the_simulator(env_id: str) -> None:
    env, rng = gym.make(env_id), np.random.default_rng(0)
    env.reset(seed=0)
    env.action_space.seed(0)
    seen: list[tuple[np.ndarray, bool]] = []
    for qpos, qvel in states_to_try(env, env_id, rng):
        env.reset()
        env.unwrapped.set_state(qpos, qvel)  # type: ignore[attr-defined]
        for _ in range(3):
            obs, _, terminated, _, _ = env.step(env.action_space.sample())
            if not np.isfinite(obs).all() or np.abs(env.unwrapped.state_vector()).max() > 100:
                break  # the observation does not contain this
            seen.append((obs, bool(terminated)))
            if terminated:
                break
    obs = np.stack([each for each, _ in seen])
    expected = np.array([each for _, each in seen])
    assert 20 < expected.sum() < len(expected) - 20
    assert len(expected) > STATES
    function = TERMINATIONS[env_id]
    assert np.array_equal(function(obs), expected)
    # The model calls it with float32 tensors and more leading dims.
    tensor = torch.as_tensor(obs, dtype=torch.float32)
    found = function(tensor[None].expand(2, -1, -1))
    assert found.shape == (2, len(obs))
    assert found.dtype == torch.bool
    assert (found[0].numpy() == expected).mean() > 0.99  # rounding may move a state across a limit


def states_at_the_limits(base: Any, env_id: str) -> Any:
    """Yield states (qpos, qvel) at each limit, one ulp away from it, and non-finite states."""
    limits = [(index, limit) for index, several in NEAR[env_id] for limit in several]
    if env_id.startswith("Hopper"):
        limits += [(index, limit) for index in (3, 5) for limit in (-100.0, 100.0)]
    for index, limit in limits:
        for value in (limit, np.nextafter(limit, -np.inf), np.nextafter(limit, np.inf)):
            qpos = base.init_qpos.copy()
            qpos[index] = value
            yield qpos, base.init_qvel
    for non_finite in (np.nan, np.inf):
        qvel = base.init_qvel.copy()
        qvel[-1] = non_finite
        yield base.init_qpos, qvel


@pytest.mark.parametrize("env_id", NEAR)
def test_limits_are_inclusive_or_exclusive_as_in_the_simulator(env_id: str) -> None:
    env = gym.make(env_id, disable_env_checker=True)
    env.reset(seed=0)
    base: Any = env.unwrapped
    base.do_simulation = lambda *_: None  # a step does not change the state
    for qpos, qvel in states_at_the_limits(base, env_id):
        env.reset()
        base.set_state(qpos, qvel)
        assert np.array_equal(base.data.qpos, qpos)
        obs, _, terminated, _, _ = env.step(np.zeros(env.action_space.shape))  # type: ignore[arg-type]
        if env_id == "Hopper-v5" and not np.isfinite(qvel).all():
            continue  # the clipped observation does not contain this
        assert bool(TERMINATIONS[env_id](obs)) == terminated, (qpos, qvel, obs)


@pytest.mark.parametrize("env_id", NEAR)
def test_non_finite_state_is_terminated(env_id: str) -> None:
    obs = np.full((2, gym.make(env_id).observation_space.shape[0]), np.nan)  # type: ignore[index]
    assert TERMINATIONS[env_id](obs).all()


@pytest.mark.parametrize(
    ("env_id", "dims"), [("AntTruncatedObs-v5", 27), ("HumanoidTruncatedObs-v5", 45)]
)
def test_truncated_observations_have_the_dimensions_of_the_paper(env_id: str, dims: int) -> None:
    task = inspect_task(env_id)
    assert (task.ob_dim, task.ep_len) == (dims, 1000)
    assert task.get_termination is TERMINATIONS[env_id]
    assert task.get_reward is None


@pytest.mark.parametrize("name", ["Hopper", "Walker2d"])
def test_full_velocities_are_those_that_gymnasium_clips(name: str) -> None:
    rng = np.random.default_rng(0)
    full: Any = gym.make(f"{name}FullVelocities-v5")
    clipped: Any = gym.make(f"{name}-v5")
    for _ in range(20):
        steps = []
        velocities = rng.normal(scale=20.0, size=full.unwrapped.model.nv)
        for env in (full, clipped):
            env.reset(seed=0)
            env.unwrapped.set_state(env.unwrapped.init_qpos, velocities)
            steps.append(env.step(np.zeros(env.action_space.shape, np.float32)))
        (obs, *results), (expected, *others) = steps
        seen = full.unwrapped.data.qvel
        positions = len(obs) - len(seen)
        assert abs(seen).max() > 10
        assert np.array_equal(obs[positions:], seen)
        assert np.array_equal(obs[:positions], expected[:positions])
        assert np.array_equal(seen.clip(-10, 10), expected[positions:])
        assert results[:3] == others[:3]
