"""Tests of the diagnosis on systems whose errors and returns can be computed by hand."""

import io
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from cs285.analysis.diagnosis import figures
from cs285.analysis.diagnosis.html_report import Section, page, sections
from cs285.analysis.diagnosis.model_error import (
    correlation,
    open_loop_errors,
    rank_correlation,
)
from cs285.analysis.diagnosis.plan_check import (
    Findings,
    RecordedMPC,
    agreement,
    check_plans,
    execute_plan,
    observations_at,
    policy_plans,
)
from cs285.collection.episodes import EpisodeKey, run_episodes
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs import inspect_task, make_env
from cs285.infrastructure.errors import DivergedError
from cs285.infrastructure.pytorch_util import derive_seed, make_generator
from cs285.infrastructure.replay_buffer import Path
from cs285.models.base_model import Prediction
from cs285.models.ff_model import FFModel
from cs285.models.open_loop import imagine
from cs285.models.task_model import TaskModel
from cs285.policies.base_policy import Memory, RandomPolicy
from cs285.policies.MPC_policy import Draws, MPCPolicy
from tests.toys import AnalyticModel, LinearReach, ReachModel

ONES = np.ones(2, np.float32)
RANDOM = RandomPolicy(-ONES, ONES)
KEYS = [EpisodeKey(1, "diagnose", 0, number) for number in range(2)]


class Known(AnalyticModel):
    """Model of s' = rate * s + a with one rate per member; the reward is the sum of s'."""

    def __init__(self, *rates: float, std: tuple[float, ...] = (1.0,)) -> None:
        super().__init__(len(rates), std)
        self.rates = torch.tensor(rates)[:, None, None]

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = self.rates * state + acs
        return next_obs, Prediction(next_obs, next_obs.sum(-1), None)


def path_of(states: Any, acs: Any) -> Path:
    """Return a path through `states` (T + 1, O) with rewards of 0."""
    obs, T = np.asarray(states, np.float32), len(acs)
    rewards, never = np.zeros(T, np.float32), np.zeros(T, bool)
    return Path(obs[:-1], np.asarray(acs, np.float32), rewards, obs[1:], never)


def linear_path(rate: float, first: float, steps: int, dims: int = 1) -> Path:
    """Return a path of s' = rate * s + 1 from s = `first`."""
    states = [np.full(dims, first)]
    for _ in range(steps):
        states.append(rate * states[-1] + 1)
    return path_of(states, np.ones((steps, dims)))


def closed_form(rate: float, first: float, k: int) -> float:
    """Return s_k of s' = rate * s + 1 with s_0 = `first`."""
    return rate**k * first + (1 - rate**k) / (1 - rate)


def test_error_of_a_wrong_rate_equals_the_closed_form() -> None:
    paths = [linear_path(0.9, 2.0, 12), linear_path(0.9, -1.0, 5), linear_path(0.9, 4.0, 3)]
    loop = open_loop_errors(Known(0.9, 0.8, std=(0.5,)), paths, 4, stride=3)  # type: ignore[arg-type]
    assert loop.starts.tolist() == [[0, 0], [0, 3], [0, 6], [1, 0]]  # the third path is too short
    errors = loop.errors()
    assert errors.shape == (2, 4, 4, 1)
    np.testing.assert_allclose(errors[0], 0, atol=1e-5)
    for start, (path, step) in enumerate(loop.starts.tolist()):
        first = closed_form(0.9, [2.0, -1.0][path], step)
        for k in range(1, 5):
            wrong = (closed_form(0.8, first, k) - closed_form(0.9, first, k)) / 0.5
            assert errors[1, start, k - 1, 0] == pytest.approx(wrong, abs=1e-4)
            # One of two members is right, so the error of the mean and the std are half the error.
            assert loop.errors_of_mean()[start, k - 1] == pytest.approx(abs(wrong) / 2, abs=1e-4)
            assert loop.spreads()[start, k - 1] == pytest.approx(abs(wrong) / 2, abs=1e-4)
    by_dimension = loop.errors_by_dimension()
    assert by_dimension.shape == (2, 4, 1)
    np.testing.assert_allclose(by_dimension[1, :, 0], np.sqrt((errors[1, ..., 0] ** 2).mean(0)))
    np.testing.assert_allclose(loop.rank_correlation(), 1)  # here the spread equals the error


def test_a_perfect_model_has_no_error_unlike_the_no_change_baseline() -> None:
    loop = open_loop_errors(Known(0.5, 0.5), [linear_path(0.5, 6.0, 3)], 3)  # type: ignore[arg-type]
    assert loop.errors_of_members().shape == (2, 1, 3)
    assert not loop.errors().any()
    assert not loop.spreads().any()  # the members are equal
    np.testing.assert_allclose(loop.errors_of_no_change(), [[2, 3, 3.5]])  # 6 -> 4 -> 3 -> 2.5
    assert np.isnan(loop.rank_correlation()).all()


def test_constant_dimensions_have_no_unit_and_are_ignored() -> None:
    model: Any = Known(0.8, std=(0.5, 0.0))
    loop = open_loop_errors(model, [linear_path(0.9, 2.0, 4, dims=2)], 4)
    assert np.isnan(loop.errors()[..., 1]).all()
    np.testing.assert_allclose(loop.errors_of_mean()[0], np.abs(loop.errors()[0, 0, :, 0]))


def test_horizon_is_cut_to_the_longest_path_and_must_be_positive() -> None:
    model: Any = Known(0.9)
    paths = [linear_path(0.9, 1.0, 3), linear_path(0.9, 1.0, 6)]
    loop = open_loop_errors(model, paths, 50)
    assert (loop.horizon, loop.starts.tolist()) == (6, [[1, 0]])
    for bad in ({"horizon": 0}, {"stride": 0}, {"paths": []}):
        with pytest.raises(ValueError, match="each must be at least 1"):
            open_loop_errors(model, **{"paths": paths, "horizon": 5, **bad})  # type: ignore[arg-type]


def test_rank_correlation_is_spearmans_and_averages_tied_ranks() -> None:
    tied, ranks = np.array([0.5, -1.0, 0.5, 9.0]), np.array([1.5, 0.0, 1.5, 3.0])
    other = np.array([3.0, 1.0, 0.0, 2.0])
    spearman = rank_correlation(tied[:, None], other[:, None])
    assert spearman[0] == pytest.approx(correlation(ranks, other))
    left = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [4.0, 1.0]])
    right = np.array([[10.0, 1.0], [1e6, 2.0], [1e3, 3.0], [1e9, 4.0]])
    found = rank_correlation(left, right)
    assert found[0] == pytest.approx(1 - 6 * 2 / (4 * 15))  # 1 - 6 sum d^2 / n (n^2 - 1)
    assert np.isnan(found[1])
    assert np.isnan(correlation(np.ones(1), np.ones(1)))


def test_imagined_rewards_belong_to_the_post_step_states() -> None:
    model: Any = Known(1.0, 2.0)
    obs, acs = np.array([[1.0], [3.0]], np.float32), np.ones((2, 2, 1), np.float32)
    learned = imagine(model, obs, acs)
    assert learned.observations[..., 0].tolist() == [
        [[1, 2, 3], [3, 4, 5]],
        [[1, 3, 7], [3, 7, 15]],
    ]
    assert learned.rewards.tolist() == [[[2, 3], [4, 5]], [[3, 7], [7, 15]]]
    given = imagine(model, obs, acs, TaskModel(lambda obs, acs: (-10 * obs[..., 0], None)))
    np.testing.assert_array_equal(given.rewards, -10 * learned.rewards)


def reach_policy(model: Any, **flags: Any) -> MPCPolicy:
    config = PlannerConfig(**{"mpc_horizon": 4, "mpc_num_action_sequences": 30, **flags})
    task = TaskModel(LinearReach.get_reward, ends_plans=False)
    return MPCPolicy(model, task, -ONES, ONES, config, torch.device("cpu"))


def planner_of(kind: str, model: Any) -> tuple[Any, Any]:
    """Return a policy and the function that makes or recalls its plans."""
    if kind == "mpc":
        policy = RecordedMPC(reach_policy(model))
        return policy, policy.plans_at
    return RANDOM, partial(policy_plans, model, TaskModel(LinearReach.get_reward), RANDOM, 4, 3)


@pytest.mark.parametrize("kind", ["mpc", "policy"])
def test_returns_predicted_by_a_perfect_model_are_correct(kind: str) -> None:
    env = make_env("LinearReach-v0", 9)
    policy, make_plans = planner_of(kind, ReachModel())
    paths = [run_episodes([env], policy, [key])[0] for key in KEYS]
    check = check_plans(make_plans, 4, env, KEYS, paths, at_most=5)
    assert check.starts.tolist() == [[0, 0], [0, 3], [1, 0], [1, 3]]
    np.testing.assert_allclose(check.executed, check.plans.rewards, rtol=1e-4)
    for (number, step), replanned in zip(check.starts.tolist(), check.replanned, strict=True):
        np.testing.assert_array_equal(replanned, paths[number].rewards[step : step + 4])
    found = agreement(check.plans.rewards, check.executed)
    assert found.bias == pytest.approx(0, abs=1e-4)
    assert found.correlation == pytest.approx(1)
    policy, make_plans = planner_of(kind, ReachModel(2.0))
    paths = [run_episodes([env], policy, [key])[0] for key in KEYS]
    wrong = check_plans(make_plans, 4, env, KEYS, paths, at_most=5)
    assert abs(agreement(wrong.plans.rewards, wrong.executed).bias) > 0.01


def test_recorded_plans_are_the_executed_plans_with_their_planning_returns() -> None:
    config = ModelConfig(size=8)
    model = FFModel(2, 2, config, learns_reward=False, generator=make_generator(0, "m"))
    policy = reach_policy(model, mpc_action_sampling_strategy="cem")
    obs = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)

    def fresh() -> list[Memory]:
        return [Memory(torch.Generator().manual_seed(seed)) for seed in range(3)]

    plan = policy.plan(obs, fresh())
    assert plan.shape == (3, 4, 2)
    np.testing.assert_array_equal(policy.get_action(obs, fresh()), plan[:, 0].numpy())
    recorded, env = RecordedMPC(policy), make_env("LinearReach-v0", 9)
    paths = [run_episodes([env], recorded, [key])[0] for key in KEYS]
    starts = np.array([[0, 2], [1, 0], [1, 8]])
    plans = recorded.plans_at(paths, starts)
    executed = np.stack([paths[number].acs[step] for number, step in starts])
    np.testing.assert_array_equal(plans.acs[:, 0], executed)
    there = model.initial_state(torch.as_tensor(observations_at(paths, starts)))
    with torch.no_grad():
        returns = policy.evaluate_sequences(there, torch.as_tensor(plans.acs)[:, None], Draws())
    np.testing.assert_allclose(plans.rewards.sum(1), returns[:, 0].numpy(), rtol=1e-5)
    assert plans.states.shape == (3, 5, 2)


def test_a_diverged_plan_is_an_error() -> None:
    recorded = RecordedMPC(reach_policy(ReachModel(float("nan"))))
    with pytest.raises(DivergedError, match="diverged"):
        run_episodes([make_env("LinearReach-v0", 9)], recorded, KEYS[:1])


def test_a_constant_dimension_with_noise_in_the_training_data_has_no_unit() -> None:
    """--add_sl_noise gives the constant goal of the obstacles a std in the training data."""
    model: Any = Known(1.0, std=(1.0, 0.01))
    env = Countdown()
    paths = run_episodes([env], RANDOM, KEYS[:1])
    constant = paths[0]._replace(obs=paths[0].obs * [1, 0], next_obs=paths[0].next_obs * [1, 0])
    loop = open_loop_errors(model, [constant], 3)
    assert loop.unit[0] == 1 and np.isnan(loop.unit[1])
    assert np.isfinite(loop.errors_of_mean()).all()


def test_execute_plan_equals_stepping_by_hand() -> None:
    env = make_env("obstacles-cs285-v0", 30)
    path = run_episodes([env], RANDOM, [KEYS[0]])[0]
    plan = np.random.default_rng(0).uniform(-0.9, 0.9, (5, 2)).astype(np.float32)
    by_hand = make_env("obstacles-cs285-v0", 30)
    by_hand.reset(seed=derive_seed(1, "diagnose env", 0, 0) % 2**31)
    for action in path.acs[:6]:
        by_hand.step(action)
    rewards = [by_hand.step(action)[1] for action in plan]
    np.testing.assert_allclose(execute_plan(env, KEYS[0], path, 6, plan), rewards, rtol=1e-6)


class Countdown(gym.Env):
    """State and reward are the number of env steps, and an episode terminates after six of them.

    With `drifts`, no two episodes are equal.
    """

    def __init__(self, drifts: bool = False) -> None:
        self.observation_space, self.action_space = Box(-9, 9, (2,)), Box(-1, 1, (2,))
        self.drifts, self.offset = drifts, 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps, self.offset = 0, self.offset + self.drifts
        return np.full(2, self.offset), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.full(2, self.offset + self.steps), self.steps, self.steps == 6, False, {}


def test_predicted_rewards_after_the_end_of_the_episode_do_not_count() -> None:
    env = Countdown()
    path = run_episodes([env], RANDOM, KEYS[:1])[0]
    rewards = execute_plan(env, KEYS[0], path, 3, np.zeros((5, 2), np.float32))
    np.testing.assert_array_equal(rewards, [4, 5, 6, np.nan, np.nan])
    predicted = np.full((2, 5), 100.0)
    found = agreement(predicted, np.stack([rewards, np.full(5, np.nan)]))
    assert (found.predicted.tolist(), found.actual.tolist()) == ([300.0], [15.0])
    assert found.bias == 285


def findings(env: gym.Env, horizon: int, plan_horizon: int) -> Findings:
    model: Any = ReachModel()
    paths = {"policy": [run_episodes([env], RANDOM, [key])[0] for key in KEYS]}
    loops = {"policy": open_loop_errors(model, paths["policy"], horizon)}
    make_plans = partial(
        policy_plans, model, TaskModel(LinearReach.get_reward), RANDOM, plan_horizon, 3
    )
    check = check_plans(make_plans, plan_horizon, env, KEYS, paths["policy"], 10)
    return Findings(paths, loops, check, horizon, plan_horizon)


def test_notes_report_cut_plans_and_failed_replays() -> None:
    found = findings(Countdown(drifts=True), horizon=50, plan_horizon=9)
    assert found.check.plans.acs.shape == (2, 6, 2)
    assert np.isnan(found.check.executed).all()
    assert len(found.agreements["plan executed"].predicted) == 0
    notes = [n for section in sections(found, True, figures.Picture()) for n in section.notes]
    assert notes == [
        "All episodes (policy) have fewer than 50 env steps, so errors are shown up to env step 6.",
        "All episodes have fewer than 9 env steps, so plans are cut to 6.",
        "2 of 2 plans could not be executed: with the same seed and actions, the simulator did not "
        "return to the same state.",
    ]


def test_npz_holds_the_arrays_of_the_findings() -> None:
    found = findings(Countdown(), horizon=3, plan_horizon=2)
    arrays = np.load(io.BytesIO(found.npz()))
    S = len(found.loops["policy"].starts)
    assert arrays["policy_errors"].shape == (2, 3, 2)
    assert arrays["policy_spreads"].shape == arrays["policy_errors_of_mean"].shape == (S, 3)
    assert arrays["policy_rank_correlation"].shape == (3,)
    np.testing.assert_array_equal(arrays["executed"], found.check.executed)
    assert arrays["predicted"].shape == arrays["replanned"].shape == (10, 2)


def test_page_escapes_html() -> None:
    text = page("<b>", [("a&b", "<i>")], [Section("<u>", "x < y\n\nz")], {"exp_name": "<s>"})
    assert not any(tag in text for tag in ("<b>", "<i>", "<u>", "<s>"))
    assert "<p>x &lt; y</p>\n<p>z</p>" in text


@pytest.mark.parametrize("env_name", ["cheetah-cs285-v0", "reacher-cs285-v0"])
def test_frames_show_the_given_states(env_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator draws each frame with the joints and velocities of the observation."""
    env: Any = make_env(env_name, 8)
    task = inspect_task(env_name)
    path = run_episodes([env], RandomPolicy(task.ac_low, task.ac_high), [KEYS[0]])[0]
    drawn: list[Any] = []

    def render() -> Any:
        drawn.append(env.unwrapped._get_obs())
        return np.full((60, 80, 3), len(drawn), np.uint8)

    monkeypatch.setattr(env, "render", render)
    scale = figures.VELOCITY_SCALES[env_name]
    frames = figures.side_by_side(env, scale, path.obs[1:], path.obs[:-1])
    joints = env.unwrapped.model.nq + env.unwrapped.model.nv
    np.testing.assert_allclose(np.stack(drawn[::2])[:, :joints], path.obs[1:, :joints], rtol=1e-5)
    np.testing.assert_allclose(np.stack(drawn[1::2])[:, :joints], path.obs[:-1, :joints], rtol=1e-5)
    assert len(frames) == 7
    assert frames[0].shape == (60, 160, 3)
    assert (frames[0][-1, :80] == 1).all()  # imagined is on the left
    assert (frames[0][-1, 80:] == 2).all()


def test_the_text_differs_between_planners_and_other_policies() -> None:
    found = findings(Countdown(), horizon=3, plan_horizon=2)
    texts = [
        " ".join(section.text for section in sections(found, is_planned, figures.Picture()))
        for is_planned in (True, False)
    ]
    assert texts[0] != texts[1]
