"""Tests of the swing-up tasks: physics, rewards, success criteria, and pictures."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from cs285.envs.registration import inspect_task
from cs285.envs.swingup import CartPoleSwingUp, PendulumSwingUp
from cs285.envs.swingup.swingup_env import SwingUp, integrate
from cs285.infrastructure.replay_buffer import Path
from cs285.infrastructure.utils import success_rates

IDS = {"cartpole-swingup-v0": CartPoleSwingUp, "pendulum-swingup-v0": PendulumSwingUp}
each_task = pytest.mark.parametrize("task", IDS.values())


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is.*infinity")
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")
def test_gymnasium_env_checker_passes(env_id: str) -> None:
    check_env(gym.make(env_id, disable_env_checker=True, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize(
    ("env_id", "ob_dim", "force"),
    [("cartpole-swingup-v0", 4, 10.0), ("pendulum-swingup-v0", 2, 2.5)],
)
def test_registered_task(env_id: str, ob_dim: int, force: float) -> None:
    task = inspect_task(env_id)
    assert (task.ob_dim, task.ac_dim, task.ep_len) == (ob_dim, 1, 40)
    assert (task.ac_low[0], task.ac_high[0]) == (-force, force)
    assert task.get_reward is not None


CART = ((0.1, -0.2, 0.5, 0.3), 5.0, (0.1259649756, 0.7176402021, -2.9295055964, 0.1760488518))
PENDULUM = ((0.5, 0.3), 2.5, (0.7709930678, 0.3643046660))


@pytest.mark.parametrize(("task", "case"), [(CartPoleSwingUp, CART), (PendulumSwingUp, PENDULUM)])
def test_step_has_the_golden_values_of_an_accurate_integrator(task: Any, case: Any) -> None:
    state, force, expected = case
    fine = integrate(task.derivative, state, force, 0.1, 200)
    np.testing.assert_allclose(fine, expected, rtol=0, atol=1e-9)
    env = task()
    env.reset(seed=0)
    env.state = state
    observation, *_ = env.step(np.array([force], np.float32))
    np.testing.assert_allclose(observation, expected, rtol=0, atol=1e-6)


def test_cart_pole_accelerations_have_the_golden_values() -> None:
    found = CartPoleSwingUp.derivative(CART[0], CART[1])
    np.testing.assert_allclose(found, (-0.2, 9.2267379821, -35.1499436981, 0.5), atol=1e-9)


def test_frictionless_pendulum_conserves_energy() -> None:
    def energy(state: Any) -> float:
        rate, angle = state
        return rate**2 / 6 - 9.82 * math.cos(angle) / 2

    def frictionless(state: Any, torque: float) -> Any:
        return PendulumSwingUp.derivative(state, 0.01 * state[0])  # the friction is 0.01 N m s

    end = integrate(frictionless, (1.0, 2.0), 0.0, 4.0, 400)
    assert energy(end) == pytest.approx(energy((1.0, 2.0)), abs=1e-6)
    assert end != pytest.approx((1.0, 2.0))


def test_frictionless_cart_pole_conserves_energy() -> None:
    def energy(state: Any) -> float:
        _, v, rate, angle = state
        cart, pole, length, g = 0.5, 0.5, 0.5, 9.82
        kinetic = (cart + pole) * v**2 / 2 + pole * length**2 * rate**2 / 6
        return kinetic + pole * length * (v * rate - g) * math.cos(angle) / 2

    def frictionless(state: Any, force: float) -> Any:
        return CartPoleSwingUp.derivative(state, 0.1 * state[1])  # the friction is 0.1 N s/m

    start = (0.0, 0.3, 1.0, 2.0)
    end = integrate(frictionless, start, 0.0, 4.0, 2000)
    assert energy(end) == pytest.approx(energy(start), abs=1e-6)


@each_task
def test_reward_is_one_minus_the_declared_cost(task: type[SwingUp]) -> None:
    obs = np.random.default_rng(0).normal(0, 2, (50, len(task.start_std)))
    angle = obs[:, task.angle_dims[0]]
    augmented = np.column_stack([obs, np.sin(angle), np.cos(angle)])
    offsets = (augmented - task.cost_target) @ np.array(task.cost_matrix).T
    expected = np.exp(-0.5 * (offsets**2).sum(1) / task.cost_width**2)
    rewards, terminated = task.get_reward(obs, np.zeros((50, 1)))
    np.testing.assert_allclose(rewards, expected, atol=1e-12)
    assert not terminated.any()
    tensor = torch.from_numpy(obs).requires_grad_()
    tensors, _ = task.get_reward(tensor, torch.zeros(50, 1))
    np.testing.assert_allclose(tensors.detach(), expected, atol=1e-12)
    slope = torch.autograd.grad(tensors.sum(), tensor)[0][:, task.angle_dims[0]]
    moved = obs.copy()
    moved[:, task.angle_dims[0]] += 1e-6
    differences = (task.get_reward(moved, None)[0] - expected) / 1e-6
    np.testing.assert_allclose(slope, differences, atol=1e-5)


@each_task
def test_reward_is_highest_above_the_pivot(task: type[SwingUp]) -> None:
    up = np.zeros(len(task.start_std))
    up[task.angle_dims[0]] = -math.pi
    assert task.get_reward(up, None)[0] == pytest.approx(1)
    assert task.get_reward(np.zeros_like(up), None)[0] < 1e-3


def upright(task: type[SwingUp], steps: int, offset: float = 0.0) -> Any:
    obs = np.zeros((steps, len(task.start_std)))
    obs[:, task.angle_dims[0]] = 3 * math.pi + offset
    return obs


@each_task
def test_success_needs_ten_steps_in_a_row_near_the_target(task: type[SwingUp]) -> None:
    hanging = upright(task, 30, math.pi)
    for steps, expected in ((9, False), (10, True)):
        episode = np.concatenate([hanging, upright(task, steps, 0.19), hanging])
        assert task.get_success(episode) == {"Success": expected, "StrictSuccess": False}
    interrupted = np.concatenate([upright(task, 6), hanging[:1], upright(task, 6)])
    assert not task.get_success(interrupted)["Success"]
    assert not task.get_success(upright(task, 20, 0.21))["Success"]  # 0.21 pole lengths away


@each_task
def test_strict_success_needs_the_whole_last_second(task: type[SwingUp]) -> None:
    end = upright(task, 10, math.radians(9.9))
    assert task.get_success(np.concatenate([upright(task, 5, 3.0), end]))["StrictSuccess"]
    assert not task.get_success(end[:9])["StrictSuccess"]
    end[4, task.angle_dims[0]] += math.radians(0.2)
    assert not task.get_success(end)["StrictSuccess"]


def test_strict_success_of_the_cart_pole_needs_the_centre() -> None:
    end = upright(CartPoleSwingUp, 10)
    end[3, 0] = -0.11
    assert CartPoleSwingUp.get_success(end) == {"Success": False, "StrictSuccess": False}
    end[3, 0] = -0.09
    assert CartPoleSwingUp.get_success(end) == {"Success": True, "StrictSuccess": True}


def test_success_rates_are_shares_of_the_episodes() -> None:
    def path(obs: Any) -> Path:
        zeros = np.zeros(len(obs), np.float32)
        return Path(obs, zeros[:, None], zeros, obs, zeros > 0)

    paths = [path(upright(PendulumSwingUp, steps)) for steps in (5, 15, 20, 9)]
    found = success_rates("Eval", paths, PendulumSwingUp.get_success)
    assert found == {"Eval_Success": 0.5, "Eval_StrictSuccess": 0.5}


@each_task
def test_starts_have_the_declared_distribution(task: type[SwingUp]) -> None:
    env = task()
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(500)])
    np.testing.assert_allclose(starts.mean(0), task.start_mean, atol=0.02)
    np.testing.assert_allclose(starts.std(0), task.start_std, rtol=0.15)


@each_task
def test_picture_shows_the_pole(task: type[SwingUp]) -> None:
    env = task(render_mode="rgb_array")
    env.reset(seed=0)
    pictures = []
    for angle in (0.0, math.pi):
        env.state = (0.0,) * (len(task.start_std) - 1) + (angle,)
        picture = env.render()
        assert picture is not None
        assert (picture.shape, picture.dtype) == ((400, 600, 3), np.uint8)
        orange = (picture[..., 0] > 200) & (picture[..., 2] < 50)
        pictures.append(np.nonzero(orange)[0].mean())
    assert pictures[0] > 200 > pictures[1]  # rows; the pivot is in the middle
    assert task().render() is None
