"""Tests of cs285.train and cs285.load, and of scripts that worker processes cannot import."""

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

import cs285
from cs285 import api
from cs285.analysis.evaluation import evaluate
from cs285.envs import make_env
from cs285.infrastructure.errors import RunError, UsageError
from cs285.infrastructure.recording import rendering
from tests.conftest import TINY, TINY_MBPO, read_curve
from tests.toys import LabelledReach, LinearReach

ROOT = Path(__file__).parents[2]
Run = Callable[..., Path]


PROBABILISTIC = {
    "model": "probabilistic",
    "ensemble_size": 3,
    "num_elites": 2,
    "mpc_particles": 2,
    "num_agent_train_steps_per_iter": 100,
}


def flags_of(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    changed = {"ep_len": 10, "n_iter": 2, "data_dir": tmp_path}
    return {name: v for name, v in {**tiny, **changed}.items() if name != "env_name"}


@pytest.mark.parametrize(("agent", "tiny"), [("mb", TINY), ("mbpo", TINY_MBPO)])
def test_training_with_a_class_as_environment(
    agent: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    called: list[tuple[int, float]] = []
    trained = cs285.train(
        agent,
        LinearReach,
        lambda iteration, scalars: called.append((iteration, scalars["Eval_AverageReturn"])),
        **flags_of(tiny, tmp_path),
    )
    logged = [float(row["Eval_AverageReturn"]) for row in read_curve(trained.folder)]
    assert called == list(enumerate(logged))
    assert trained.env_steps == 100
    loaded = cs285.load(trained.folder, env=LinearReach)
    obs = np.array([0.3, -0.2])
    assert (loaded.predict(obs) == trained.predict(obs)).all()
    with pytest.raises(UsageError, match="--n_iter 0: must be"):
        cs285.train(agent, "Pendulum-v1", n_iter=0)


def test_an_agent_acts_as_in_its_evaluation(run_tiny_mbpo: Run) -> None:
    folder = run_tiny_mbpo(n_iter=1)
    agent, env = cs285.load(folder), make_env("obstacles-cs285-v0", 20)
    total, seed = 0.0, 5
    obs, _ = env.reset(seed=seed)
    finished = False
    while not finished:
        obs, reward, terminated, truncated, _ = env.step(agent.predict(obs))
        total, finished = total + float(reward), terminated or truncated
    returns = evaluate(folder, 1, num_workers=1).returns
    assert total != 0 and np.isfinite(returns).all()
    assert agent.predict(np.stack([obs] * 3)).shape == (3, 2)
    explored = [agent.predict(obs, deterministic=False) for _ in range(2)]
    assert (explored[0] != explored[1]).any()
    with pytest.raises(ValueError, match=r"obs has shape \(3,\); must be \(4,\) or \(B, 4\)"):
        agent.predict(np.zeros(3))
    with pytest.raises(ValueError, match=r"obs has shape \(0, 4\); must be .*, B >= 1"):
        agent.predict(np.zeros((0, 4)))
    for number in (np.nan, 1e39):
        with pytest.raises(ValueError, match="obs has a non-finite number; must be finite in"):
            agent.predict(np.full(4, number))


def test_predict_flattens_a_dict_observation(tmp_path: Path) -> None:
    agent = cs285.train("mbpo", LabelledReach, **flags_of(TINY_MBPO, tmp_path))
    at = np.array([0.3, -0.2], np.float32)
    assert (agent.predict({"at": at}) == agent.predict(at)).all()
    for bad in ({"where": at}, {"at": None}, "here"):
        with pytest.raises(ValueError, match="must be"):
            agent.predict(bad)
    gym.registry.pop(agent.config.run.env_name)  # as in another process
    with pytest.raises(UsageError, match=r"cs285\.load\(folder, env=\.\.\.\) takes it"):
        evaluate(agent.folder, 1)
    cs285.load(agent.folder, env=LabelledReach)
    assert np.isfinite(evaluate(agent.folder, 1, num_workers=1).returns).all()


def test_training_refuses_what_it_could_not_return() -> None:
    with pytest.raises(UsageError, match="env LinearReach: is an instance; must be"):
        cs285.train("mb", LinearReach())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="checkpoint_freq -1: must be another value"):
        cs285.train("mb", LinearReach, checkpoint_freq=-1)
    with pytest.raises(UsageError, match="dry_run True: must be another value"):
        cs285.train("mb", LinearReach, dry_run=True)


def test_a_planner_remembers_the_plan_of_each_row_until_reset(run_tiny: Run) -> None:
    flags = {"mpc_action_sampling_strategy": "icem", "cem_iterations": 2, "n_iter": 1}
    agent = cs285.load(run_tiny(**flags))
    obs = np.array([[0.1, 0.5, 0.7, -0.8], [-0.4, 0.9, 0.7, -0.8]], np.float32)
    agent.reset(1)  # before its first observation
    agent.predict(obs)
    assert all(memory.kept for memory in agent._memories)
    agent.reset(1)
    assert agent._memories[0].kept and not agent._memories[1].kept
    agent.reset()
    assert not agent._memories


@pytest.mark.parametrize("member", ["mean", "random", 1])
def test_model_env_is_a_gymnasium_environment(run_tiny: Run, member: Any) -> None:
    agent = cs285.load(run_tiny(n_iter=1, **PROBABILISTIC))
    env = agent.model_env(member)
    with pytest.raises(ValueError, match="step: must be called after reset"):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"the action has shape \(3,\); must be \(2,\)"):
        env.step(np.zeros(3, np.float32))
    check_env(env, skip_render_check=True)
    obs, _ = env.reset(seed=1)
    assert (obs[2:] == np.array([0.7, -0.8], np.float32)).all()  # the goal of the real task
    action = env.action_space.sample()
    after = []
    for offset in (0, 100):
        env.reset(seed=1)[0][:] += offset
        env.step(action)[0][:] += offset  # the observation is the caller's
        after.append(env.step(action)[0])
    assert (after[0] == after[1]).all()
    obs, _ = env.reset(seed=1)
    steps, finished = 0, False
    while not finished:
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert reward == pytest.approx(-np.linalg.norm(obs[:2] - obs[2:]), abs=1e-4)
        steps, finished = steps + 1, terminated or truncated
    assert steps <= 20


def test_bad_members_and_agents_without_a_model(run_tiny: Run, run_tiny_mbpo: Run) -> None:
    with pytest.raises(ValueError, match="must be 'mean', 'random' or an integer below 3"):
        cs285.load(run_tiny(n_iter=1)).model_env(3)
    folder = run_tiny_mbpo(n_iter=1, mbpo_rollout_length=0, num_agent_train_steps_per_iter=0)
    with pytest.raises(UsageError, match="has no model; must be a checkpoint with a model"):
        cs285.load(folder).model_env()
    best = cs285.load(run_tiny_mbpo(n_iter=1), "best")  # it has only the policy
    assert best.model is None
    with pytest.raises(UsageError, match="has no model; must be a checkpoint with a model"):
        best.model_env()


TASK = """
import gymnasium
from cs285.scripts.run_hw4_mb import main
from tests.toys import LinearReach

class Mine(LinearReach):
    pass

gymnasium.register("Mine-v0", entry_point=Mine, max_episode_steps=10)
"""
CALL = """main(["--env_name", "Mine-v0", "--n_iter", "1", "--batch_size_initial", "40",
    "--eval_batch_size", "40", "--num_agent_train_steps_per_iter", "2", "--mpc_horizon", "2",
    "--mpc_num_action_sequences", "5", "--num_workers", "2", "--data_dir", "data"])
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f"{TASK}\nprint('called once')\n{CALL}", 'has no `if __name__ == "__main__":`'),
        (f"{TASK}\nif __name__ == '__main__':\n    print('called once')\n    {CALL}", ""),
        (
            "if __name__ == '__main__':\n"
            + "".join(f"    {line}\n" for line in f"{TASK}\nprint('called once')".splitlines())
            + f"    {CALL}",
            "Mine",
        ),
    ],
    ids=["no guard", "guard", "task inside the guard"],
)
def test_script_with_its_own_task(code: str, reason: str, tmp_path: Path) -> None:
    """Workers import the script, without running it again. If this fails, they are not used."""
    (tmp_path / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "iteration 1 of 1: return " in run.stdout
    assert run.stderr.count("\n") == run.stderr.count("warning: worker processes") == bool(reason)
    assert reason in run.stderr
    assert run.stdout.count("called once") == 1 or "no `if" in run.stderr


def test_ids_of_environments() -> None:
    assert cs285.api.env_id_of("Hopper-v5") == "Hopper-v5"
    assert cs285.api.env_id_of(lambda: LinearReach()).startswith("python/lambda")
    env_id = cs285.api.env_id_of(LinearReach)
    assert env_id == "python/LinearReach-v0" and isinstance(gym.make(env_id).unwrapped, LinearReach)
    assert cs285.api.env_id_of(LinearReach) == env_id
    partials = [functools.partial(LabelledReach) for _ in range(2)]
    first, second, again = (cs285.api.env_id_of(each) for each in [*partials, partials[0]])
    assert first == again != second and "LabelledReach" in first


class Costly(LinearReach):
    """Costs a thousand times more."""

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, 1000 * reward, *rest


class Wide(LabelledReach):
    """Has two observations in one."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Dict({"at": Box(-9, 9, (2,)), "no": Box(-9, 9, (2,))})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, info = super().reset(seed=seed)
        return {**obs, "no": obs["at"]}, info


def test_environments_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    flags = flags_of(TINY_MBPO, tmp_path)
    first = cs285.train("mbpo", lambda: LinearReach(), **flags)
    returns = evaluate(first.folder, 1).returns
    second = cs285.train("mbpo", lambda: Costly(), **flags)
    assert (evaluate(first.folder, 1).returns == returns).all()
    assert evaluate(second.folder, 1).returns.sum() < 100 * returns.sum()
    env_id = cs285.load(first.folder, env=Costly).config.run.env_name
    assert env_id == first.config.run.env_name
    assert evaluate(first.folder, 1).returns == pytest.approx(1000 * returns)
    with pytest.raises(RunError, match="belong to different runs"):
        cs285.load(first.folder, env=Wide)
    with pytest.raises(RunError, match="does not match its config"):
        cs285.train("mbpo", Wide, resume=first.folder, n_iter=3)
    assert evaluate(first.folder, 1).returns == pytest.approx(1000 * returns)
    for name in [name for name in gym.registry if name.startswith("python/")]:
        gym.registry.pop(name)  # as in another process
    loaded = cs285.load(second.folder, env=Costly)
    assert loaded.config.run.env_name == second.config.run.env_name
    resumed = cs285.train("mbpo", Costly, resume=second.folder, n_iter=3)
    assert resumed.folder == second.folder
    by_id = cs285.train("mbpo", "tests.toys:LinearReach-v0", **flags)
    assert cs285.load(by_id.folder, env=Costly).config.run.env_name == "python/Costly-v0"


class Drawn(LinearReach):
    """Renders a black image."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return np.zeros((64, 64, 3), np.uint8)


SIZES = itertools.count(8)  # of frames


def test_video_of_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "MUJOCO_TASK", "missing-v0")  # no OpenGL is needed
    flags = {**flags_of(TINY, tmp_path), "n_iter": 1, "video_log_freq": 1}
    agent = cs285.train("mb", Drawn, **flags)
    assert (agent.folder / "videos" / "eval_rollouts_itr_0.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("render", lambda env: 1 / 0, "raised ZeroDivisionError (division by zero) in test_api.py"),
        ("render", lambda env: None, "returned a frame of shape () and type object, in render"),
        ("render", lambda env: np.zeros((8, 8, 3)), "frame of shape (8, 8, 3) and type float64"),
        ("render", lambda env: np.zeros((next(SIZES), 8, 3), np.uint8),
         "returned a frame of shape (9, 8, 3) and type uint8, in render; must be uint8 of shape"),
        ("metadata", {**Drawn.metadata, "render_fps": 0}, "-v0 is 0; must be a positive number"),
        ("__init__", LinearReach.__init__, "unexpected keyword argument 'render_mode'"),
    ],
)  # fmt: skip
def test_frames_that_are_no_video_are_one_warning(
    name: str,
    value: Any,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cs285.cli.launch.choose_renderer", lambda *args: None)
    monkeypatch.setattr(Drawn, name, value)
    agent = cs285.train("mb", Drawn, **{**flags_of(TINY, tmp_path), "video_log_freq": 1})
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: cannot write the video of iteration 0 (")
    assert reason in first and "iteration 1" in second and "the run continues" in second
    assert len(read_curve(agent.folder)) == 2


def test_false_and_bad_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    flags = {**flags_of(TINY_MBPO, tmp_path), "n_iter": 1, "mbpo_rollout_length": 2}
    trained = cs285.train(
        "mbpo", "tests.toys:LinearReach-v0", preset="sharp", no_gpu=False, **flags
    )
    assert trained.config.run.no_gpu is False
    assert os.environ["MUJOCO_GL"] == "osmesa"  # videos can be made after training
    with pytest.raises(UsageError, match="unknown argument --learning_rat=1; did you mean"):
        cs285.train("mbpo", "Pendulum-v1", learning_rat=1)
    with pytest.raises(UsageError, match="--n_iter many: must be an integer"):
        cs285.train("mbpo", "Pendulum-v1", n_iter="many")
    words = []
    monkeypatch.setattr(api, "execute", lambda entry, given, callback: words.extend(given) or "x")
    monkeypatch.setattr(api, "load", lambda *args, **options: None)
    cs285.train("mbpo", "Pendulum-v1", learned_reward=False, size=None, compile=True)
    assert words == ["--env_name", "Pendulum-v1", "--no-learned_reward", "--compile"]
