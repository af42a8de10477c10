import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

import cs285.envs
from cs285.envs.action_repeat import ActionRepeat
from cs285.envs.checked_env import CheckedEnv
from cs285.envs.cheetah import HalfCheetahEnv
from cs285.envs.obstacles import Obstacles
from cs285.envs.reacher import Reacher7DOFEnv
from cs285.infrastructure.errors import UsageError, describe_error
from tests.toys import LinearReach

IDS = list(cs285.envs.HOMEWORK_EP_LEN)
CLASSES = [HalfCheetahEnv, Obstacles, Reacher7DOFEnv]


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is.*infinity")
def test_gymnasium_env_checker_passes(env_id: str) -> None:
    check_env(gym.make(env_id, disable_env_checker=True).unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("env_id", "ob_dim", "ac_dim", "limit"),
    [
        ("cheetah-cs285-v0", 21, 6, 1000),
        ("obstacles-cs285-v0", 4, 2, 500),
        ("reacher-cs285-v0", 20, 7, 500),
    ],
)
def test_registered_dimensions_and_limit(env_id: str, ob_dim: int, ac_dim: int, limit: int) -> None:
    env = gym.make(env_id)
    assert env.observation_space.shape == (ob_dim,)
    assert env.observation_space.dtype == np.float64
    assert env.action_space.shape == (ac_dim,)
    assert env.spec is not None
    assert env.spec.max_episode_steps == limit


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("seed", [0, 3])
def test_reset_is_determined_by_the_seed_including_zero(env_id: str, seed: int) -> None:
    env = gym.make(env_id)
    first, _ = env.reset(seed=seed)
    other, _ = env.reset(seed=seed + 1)
    again, _ = env.reset(seed=seed)
    assert np.array_equal(first, again)
    if env_id != "reacher-cs285-v0":  # its reset is deterministic
        assert not np.array_equal(first, other)


def test_cheetah_is_gymnasiums_model_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT into the working directory
    model = gym.make("cheetah-cs285-v0").unwrapped.model  # type: ignore[attr-defined]
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
    assets = Path(gym.__file__).parent / "envs" / "mujoco" / "assets"
    original = mujoco.MjModel.from_xml_path(str(assets / "half_cheetah.xml"))
    arrays = [name for name in dir(original) if isinstance(getattr(original, name), np.ndarray)]
    assert len(arrays) > 300
    for name in arrays:
        np.testing.assert_array_equal(getattr(model, name), getattr(original, name), name)


def test_cheetah_step_equals_plain_mujoco() -> None:
    env = HalfCheetahEnv()
    assert env.dt == pytest.approx(0.01)
    assets = Path(gym.__file__).parent / "envs" / "mujoco" / "assets"
    model = mujoco.MjModel.from_xml_path(str(assets / "half_cheetah.xml"))
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    qpos, qvel = rng.normal(0, 0.3, 9), rng.normal(0, 1, 9)
    env.set_state(qpos, qvel)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    for _ in range(20):
        action = rng.uniform(-1, 1, 6).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        data.ctrl[:] = action
        mujoco.mj_step(model, data)
        torso = data.xpos[mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "torso")]
        np.testing.assert_allclose(obs, [*data.qpos, *data.qvel, *torso], rtol=0, atol=1e-12)
        penalties = 10 * sum([obs[6] > 0.2, obs[7] > 0, obs[8] > 0])
        assert reward == pytest.approx(obs[9] - penalties)
        assert not (terminated or truncated)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({9: 1.5}, 1.5),
        ({9: 1.5, 6: 0.2}, 1.5),  # the limit itself has no penalty
        ({9: 1.5, 6: 0.21}, -8.5),
        ({9: -2.0, 7: 0.01}, -12.0),
        ({8: 0.01}, -10.0),
        ({6: 1.0, 7: 1.0, 8: 1.0}, -30.0),
    ],
)
def test_cheetah_reward_equals_hand_computed(changes: dict[int, float], expected: float) -> None:
    observation = np.zeros(21)
    for index, value in changes.items():
        observation[index] = value
    reward, terminated = HalfCheetahEnv.get_reward(observation, np.zeros(6))
    assert reward == pytest.approx(expected)
    assert not terminated


def test_cheetah_reset_noise_has_the_right_scale() -> None:
    env = HalfCheetahEnv()
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(300)])
    offsets = starts[:, :9] - env.init_qpos
    assert np.abs(offsets).max() <= 0.1
    assert offsets.std() == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert starts[:, 9:18].std() == pytest.approx(0.1, rel=0.05)


def test_reacher_start_matches_its_link_lengths() -> None:
    env = Reacher7DOFEnv()
    assert env.dt == pytest.approx(0.02)
    obs, _ = env.reset(seed=0)
    np.testing.assert_allclose(obs[14:17], [0.1 + 0.4 + 0.321, -0.6, 0.0], atol=1e-6)
    np.testing.assert_allclose(obs[17:20], [0.1, 0.1, 0.1])
    obs, reward, *_ = env.step(np.ones(7, np.float32))
    assert reward == pytest.approx(-10 * np.linalg.norm(obs[14:17] - obs[17:20]))
    np.testing.assert_allclose(obs[7:14] * 10, env.data.qvel)


def test_reacher_model_has_the_original_parameters() -> None:
    model = Reacher7DOFEnv().model
    assert model.opt.timestep == 0.01
    assert model.opt.iterations == 100
    assert not model.opt.gravity.any()
    ranges = [
        (-2.2854, 1.714602),
        (-0.5236, 1.3963),
        (-1.5, 1.7),
        (-2.3213, 0),
        (-1.5, 1.5),
        (-1.094, 0),
        (-1.5, 1.5),
    ]
    np.testing.assert_allclose(model.jnt_range, ranges)
    np.testing.assert_allclose(model.jnt_axis[:, 2], [1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(model.dof_damping, [2, 2, 0.8, 0.8, 0.8, 0.8, 0.8])
    np.testing.assert_allclose(model.dof_armature, 0.004)
    np.testing.assert_allclose(model.actuator_gear[:, 0], [20, 10, 10, 10, 10, 10, 10])
    assert (model.ngeom, model.nbody) == (14, 10)
    colliding = [model.geom(i).name or "hand" for i in range(14) if model.geom_contype[i]]
    assert colliding == ["table", "hand"]


def test_obstacles_step_moves_by_a_tenth_of_the_clipped_action() -> None:
    env = Obstacles(random_starts=False)
    obs, _ = env.reset(seed=0)
    np.testing.assert_allclose(obs, [-0.5, 0.75, 0.7, -0.8])
    obs, reward, terminated, _, _ = env.step(np.array([5.0, -0.5]))
    np.testing.assert_allclose(obs, [-0.4, 0.7, 0.7, -0.8])
    assert not terminated
    assert reward == pytest.approx(-np.hypot(1.1, 1.5))
    obs, *_ = env.step(np.array([0.5, -0.5]))
    np.testing.assert_allclose(obs[:2], [-0.4, 0.7])  # the first rectangle blocks it
    obs, *_ = env.step(np.array([-5.0, 0.0]))
    np.testing.assert_allclose(obs[:2], [-0.5, 0.7])


@pytest.mark.parametrize(
    ("point", "is_valid"),
    [
        ((-0.2, 0.65), False),  # inside the first rectangle
        ((-0.4, 0.65), True),  # on its left edge
        ((-0.2, 0.8), True),  # on its top edge
        ((0.65, -0.3), False),
        ((0.725, -0.3), True),
        ((-0.8, 0.0), False),
        ((0.2, -0.8), False),
        ((0.0, 0.0), False),
        ((0.99, 0.0), False),  # on the border of the square
        ((0.98, 0.0), True),
    ],
)
def test_obstacles_edges_are_valid_and_the_border_is_not(
    point: tuple[float, float], is_valid: bool
) -> None:
    assert Obstacles.is_valid(np.array(point)) is is_valid


def test_obstacles_terminates_near_the_goal_or_outside() -> None:
    positions = np.array([[0.7, -0.71], [0.7, -0.69], [0.99, 0.0], [-1.2, 0.5], [0.3, 0.3]])
    observations = np.concatenate([positions, np.tile([0.7, -0.8], (5, 1))], 1)
    rewards, terminated = Obstacles.get_reward(observations, np.zeros((5, 2)))
    assert terminated.tolist() == [True, False, True, True, False]
    assert rewards[0] == pytest.approx(-0.09)


def test_obstacles_starts_cover_the_upper_left_and_are_valid() -> None:
    env = Obstacles()
    starts = np.stack([env.reset(seed=seed)[0][:2] for seed in range(500)])
    assert all(Obstacles.is_valid(start) for start in starts)
    assert starts.min(0) == pytest.approx([-0.99, 0.26], abs=0.05)
    assert starts.max(0) == pytest.approx([0.59, 0.99], abs=0.05)
    assert np.array_equal(env.start, starts[-1])


def test_obstacles_rendering_does_not_use_pyplot() -> None:
    from matplotlib import pyplot

    env = Obstacles(render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([0.5, -0.5]))
    picture = env.render()
    assert picture is not None
    assert picture.shape == (400, 400, 3)
    assert picture.std() > 10  # the image is not blank
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("env_class", CLASSES)
def test_reward_is_equal_for_numpy_and_torch_and_any_leading_dims(env_class: type) -> None:
    env = env_class()
    rng = np.random.default_rng(0)
    observations = rng.normal(0, 0.7, (3, 5, env.observation_space.shape[0]))
    actions = rng.uniform(-1, 1, (3, 5, env.action_space.shape[0]))
    rewards, terminated = env_class.get_reward(observations, actions)
    as_tensors = env_class.get_reward(torch.tensor(observations), torch.tensor(actions))
    assert rewards.shape == terminated.shape == (3, 5)
    np.testing.assert_allclose(as_tensors[0].numpy(), rewards, rtol=1e-12)
    assert np.array_equal(as_tensors[1].numpy(), terminated)
    one_by_one = [
        [env_class.get_reward(observations[i, j], actions[i, j])[0] for j in range(5)]
        for i in range(3)
    ]
    np.testing.assert_allclose(rewards, one_by_one, rtol=1e-12)


@pytest.mark.parametrize("env_class", CLASSES)
def test_step_rewards_the_observation_after_the_step(env_class: type) -> None:
    env = env_class()
    env.reset(seed=1)
    for _ in range(30):
        action = env.action_space.sample()
        obs, reward, terminated, _, _ = env.step(action)
        expected = env_class.get_reward(obs, action)
        assert (reward, terminated) == (expected[0], expected[1])


@pytest.mark.parametrize("name", ["no-such-env-v0", "CartPole-v1", "Blackjack-v1"])
def test_tasks_without_box_actions_are_rejected(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--env_name {name}: .*; must be "):
        cs285.envs.inspect_task(name)


class Odd(gym.Env):
    """An env with arbitrary action and observation spaces."""

    def __init__(self, actions: Any = None, observations: Any = None) -> None:
        self.action_space = actions or Box(-1, 1, (2,))
        self.observation_space = observations or Box(-1, 1, (3,))

    def reset(self, **_: Any) -> Any:
        return self.observation_space.sample(), {}


def describe(name: str, **spaces: Any) -> Any:
    gym.register(name, entry_point=lambda: Odd(**spaces))
    return cs285.envs.inspect_task(name)


def test_infinite_action_bounds_become_finite_and_finite_ones_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inf = np.inf
    low, high = np.array([-inf, -inf, 2, -3.0]), np.array([inf, 5, inf, 0.5])
    task = describe("Unbounded-v0", actions=Box(low, high))
    assert task.ac_low.tolist() == [-1, 3, 2, -3]
    assert task.ac_high.tolist() == [1, 5, 4, 0.5]
    assert task.ac_low.dtype == np.float32
    assert "its action space is unbounded in 3 of 4 dimensions" in capsys.readouterr().out
    largest = np.finfo(np.float32).max  # some environments use it as infinity
    assert describe("Huge-v0", actions=Box(-largest, largest, (1,))).ac_high.tolist() == [1]
    assert "unbounded in 1 of 1" in capsys.readouterr().out
    bounded = describe("Asymmetric-v0", actions=Box(np.array([-2.0, 0]), np.array([0.5, 9])))
    assert (bounded.ac_low.tolist(), bounded.ac_high.tolist()) == ([-2, 0], [0.5, 9])
    assert capsys.readouterr().out == ""


def test_bounds_are_rounded_inwards_to_float32() -> None:
    low, high = np.array([-0.1, 0.1, -1.0]), np.array([0.3, 0.1, 1.0])
    task = describe("Float64-v0", actions=Box(low, high, dtype=np.float64))
    least, most = (bound.astype(np.float64) for bound in (task.ac_low, task.ac_high))
    assert least[0] > -0.1 and most[0] < 0.3 and least[1] == most[1]
    np.testing.assert_allclose([least, most], [low, high], rtol=1e-6)
    assert (least[2], most[2]) == (-1, 1)


def test_integer_actions_are_rejected() -> None:
    with pytest.raises(UsageError, match=r"int64\), a Box of integers; must be .* Box of floats"):
        describe("Whole-v0", actions=Box(-3, 3, (1,), np.int64))


def test_unknown_termination_function_is_rejected() -> None:
    expected = "--termination known: this task has no known termination function; must be"
    with pytest.raises(UsageError, match=expected):
        cs285.envs.inspect_task("Pendulum-v1", termination="known")
    for name in ("Hopper-v5", "obstacles-cs285-v0"):
        assert cs285.envs.inspect_task(name, termination="known").ob_dim > 0


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("Image-v0", Box(0, 255, (8, 8, 3), np.uint8)),
        ("Discrete-v0", gym.spaces.Discrete(3)),
        ("Scalar-v0", Box(-1, 1, ())),
        ("Empty-v0", Box(-1, 1, (0,))),
    ],
)
def test_observations_that_are_not_vectors_are_rejected(name: str, space: Any) -> None:
    message = re.escape(f"its observations are {space}; must be a task whose observations")
    with pytest.raises(UsageError, match=message):
        describe(name, observations=space)


def test_spaces_without_content_are_rejected() -> None:
    class Bare(gym.Env):
        pass

    class Nothing(Odd):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gym.spaces.Dict({})

    for task, message in (
        (Bare, "its observation_space must be a space of Gymnasium"),
        (Nothing, r"its observations are Dict\(\), which cannot be flattened; must be"),
        (lambda: Odd(Box(-1, 1, (0,))), "its actions are Box.*; must be"),
    ):
        gym.register("Hollow-v0", entry_point=task)
        with pytest.raises(UsageError, match=message):
            cs285.envs.inspect_task("Hollow-v0")
        gym.registry.pop("Hollow-v0")


class Changes(LinearReach):
    @staticmethod
    def get_reward(observations: Any, actions: Any) -> Any:
        observations *= 2
        return LinearReach.get_reward(observations, actions)


class FailsToJudge(LinearReach):
    @staticmethod
    def get_success(observations: Any) -> Any:
        raise ValueError("no goal")


class JudgesSteps(LinearReach):
    @staticmethod
    def get_success(observations: Any) -> Any:
        return {"Near": observations[:, 0] < 1}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Changes, r"its get_reward fails on torch tensors \(it changes its arguments\); must be"),
        (FailsToJudge, r"the task's get_success raised ValueError \(no goal\) in test_envs.py"),
        (JudgesSteps, "the task's get_success returned {'Near': .*; must be a dict of True or Fal"),
    ],
)
def test_functions_of_a_task_are_checked(task: Any, message: str) -> None:
    gym.register(f"{task.__name__}-v0", entry_point=task)
    with pytest.raises(UsageError, match=message):
        cs285.envs.inspect_task(f"{task.__name__}-v0")


def test_exception_without_a_printable_message_is_described() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe_error(UnprintableError()) == "UnprintableError"


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Dict({"a": Box(-1, 1, (3,)), "b": gym.spaces.Discrete(2)}),
        gym.spaces.Tuple([Box(-1, 1, (2, 2), np.float64), Box(-1, 1, (1,))]),
    ],
)
def test_dict_and_tuple_observations_are_flattened(
    space: gym.Space, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = type(space).__name__
    task = describe(f"{kind}-v0", observations=space)
    assert task.ob_dim == 5
    expected = f"the {kind} observations of {kind}-v0 are flattened to 5 numbers\n"
    assert capsys.readouterr().out == expected
    obs = CheckedEnv(cs285.envs.make_env(f"{kind}-v0")).reset(0)
    assert obs.shape == (5,) and obs.dtype == np.float32


class Lift(gym.ObservationWrapper):
    """Adds 100 to the observations."""

    def observation(self, observation: Any) -> Any:
        return observation + 100


class Fickle(LinearReach):
    """A task with arguments."""

    def __init__(self, scale: float = 1.0, name: str = "") -> None:
        super().__init__()
        if scale < 0:
            raise ValueError("scale is negative")
        self.scale, self.name = scale, name


gym.register("Fickle-v0", entry_point=Fickle, max_episode_steps=5)


def test_arguments_and_wrappers_of_a_task() -> None:
    module = Lift.__module__
    task = ("Fickle-v0", "scale=2.5 name=left", f"{module}:Lift {module}:Lift")
    env = cs285.envs.make_env(task)
    assert (env.unwrapped.scale, env.unwrapped.name) == (2.5, "left")  # type: ignore[attr-defined]
    obs, _ = env.reset(seed=1)
    assert (np.abs(obs - 200) <= 1).all()
    with pytest.raises(UsageError, match=r"scale=-1: its constructor raised ValueError \(scale"):
        cs285.envs.make_env(("Fickle-v0", "scale=-1", ""))
    with pytest.raises(UsageError, match=r"constructor raised TypeError .*unexpected keyword"):
        cs285.envs.make_env(("Fickle-v0", "size=1", ""))
    with pytest.raises(UsageError, match="--env_wrappers nowhere:Lift: cannot import it"):
        cs285.envs.make_env(("Fickle-v0", "", "nowhere:Lift"))
    with pytest.raises(UsageError, match=r"^--env_wrappers builtins:len: the wrapper raised Type"):
        cs285.envs.make_env(("Fickle-v0", "", "builtins:len"))


def test_observations_that_do_not_match_their_space_are_rejected() -> None:
    class Short(Odd):
        def reset(self, **_: Any) -> Any:
            return np.zeros(2), {}

    gym.register("Short-v0", entry_point=Short)
    with pytest.raises(
        UsageError, match=r"observation of shape \(2,\), in reset; must be .* shape \(3,\)"
    ):
        cs285.envs.inspect_task("Short-v0")


@pytest.mark.parametrize("name", ["Hopper", "gymnasium:Hopper-v5"])
def test_builtin_terminations_accept_ids_without_version_or_with_module(name: str) -> None:
    task = cs285.envs.inspect_task(name)
    assert task.get_termination is cs285.envs.inspect_task("Hopper-v5").get_termination is not None
    assert cs285.envs.inspect_task("cheetah-cs285").ep_len == 500


def test_episode_length_limits() -> None:
    caps = {"cheetah-cs285-v0": 500, "reacher-cs285-v0": 200, "obstacles-cs285-v0": 100}
    assert {name: cs285.envs.inspect_task(name).ep_len for name in caps} == caps
    assert cs285.envs.inspect_task("HalfCheetah-v5").ep_len == 1000
    env = cs285.envs.make_env("obstacles-cs285-v0", ep_len=600)  # longer than the registered limit
    env.reset(seed=0)
    steps = 1
    while not env.step(np.zeros(2, np.float32))[3]:
        steps += 1
    assert steps == 600


def test_repeated_actions_add_up_and_stop_with_the_episode() -> None:
    single, inner = (gym.make("Pendulum-v1", max_episode_steps=5) for _ in range(2))
    repeated = ActionRepeat(inner)
    for env in (repeated, single):
        env.reset(seed=3)
    action = np.array([1.0], np.float32)
    for count, is_last in ((2, False), (2, False), (1, True)):
        obs, reward, _, truncated, _ = repeated.step(action)
        steps = [single.step(action) for _ in range(count)]
        np.testing.assert_array_equal(obs, steps[-1][0])
        assert reward == pytest.approx(sum(float(step[1]) for step in steps))
        assert truncated == is_last


def test_each_repeat_gets_the_action_of_the_policy() -> None:
    """A task that changes its argument does not change the next repeat."""
    seen = []

    class Halves(gym.Wrapper):
        def step(self, action: np.ndarray) -> Any:
            seen.append(float(action[0]))
            action *= 0.5
            return self.env.step(action)

    env, action = ActionRepeat(Halves(gym.make("Pendulum-v1"))), np.ones(1, np.float32)
    env.reset(seed=0)
    env.step(action)
    assert seen == [1, 1]
    assert action[0] == 1


def test_own_limit_counts_steps_of_the_task() -> None:
    task = ("Pendulum-v1", "", "cs285.envs.action_repeat:ActionRepeat")
    env = cs285.envs.make_env(task)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[3] for _ in range(100)]
    assert ends == [False] * 99 + [True]
    assert cs285.envs.inspect_task(task).ep_len == 200


def test_episode_length_counts_steps_of_wrapped_env() -> None:
    task = ("Pendulum-v1", "", "cs285.envs.action_repeat:ActionRepeat")
    for ep_len in (7, 250):  # below and above half the registered limit of 200
        env = cs285.envs.make_env(task, ep_len)
        env.reset(seed=0)
        ends = [env.step(np.zeros(1, np.float32))[3] for _ in range(ep_len)]
        assert ends == [False] * (ep_len - 1) + [True]
