"""Tests of the tasks of DeepMind Control and Gymnasium-Robotics, if they are installed."""

from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import mujoco
import numpy as np
import pytest

from cs285.envs import inspect_task
from cs285.scripts.run_hw4_mb import main
from tests.conftest import error_of, read_curve

Run = Callable[..., Path]
# Gymnasium-Robotics 1.4.2 compares joint types in a way that mujoco 3.12 no longer supports.
NEW_MUJOCO = tuple(map(int, mujoco.__version__.split(".")[:2])) >= (3, 12)


def test_dm_control_task_trains(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shimmy")
    suite = pytest.importorskip("dm_control.suite")
    name, original = "dm_control/cartpole-balance-v0", suite.load("cartpole", "balance")
    numbers = sum(int(np.prod(spec.shape)) for spec in original.observation_spec().values())
    task = inspect_task(name)
    assert (task.ob_dim, task.ac_dim) == (numbers, *original.action_spec().shape)
    assert f"Dict observations of {name} are flattened to 5 numbers" in capsys.readouterr().out
    curve = read_curve(run_tiny(env_name=name, num_workers=2))
    assert [row["Train_EnvstepsSoFar"] for row in curve] == ["60.0", "100.0"]
    assert "Reward Loss" in curve[0]
    assert 0 < float(curve[1]["Eval_AverageReturn"]) <= 20  # at most 1 per env step
    assert capsys.readouterr().err == ""


def test_dm_control_task_is_drawn(run_tiny: Run) -> None:
    """DeepMind Control reads MUJOCO_GL when it is imported, before the run chooses a renderer."""
    pytest.importorskip("shimmy")
    pytest.importorskip("dm_control.suite")
    folder = run_tiny(env_name="dm_control/cartpole-balance-v0", n_iter=1, video_log_freq=1)
    frames = iio.imread(folder / "videos" / "eval_rollouts_itr_0.mp4")
    assert frames.shape[0] == 20
    assert frames.std() > 10  # not one colour


@pytest.mark.parametrize(
    ("name", "ob_dim", "ac_dim"),
    [
        pytest.param(
            *("FetchReach-v4", 10 + 3 + 3, 4),
            marks=pytest.mark.skipif(NEW_MUJOCO, reason="needs mujoco below 3.12"),
        ),
        ("PointMaze_UMaze-v3", 4 + 2 + 2, 2),
    ],
)
def test_gymnasium_robotics_task_trains(name: str, ob_dim: int, ac_dim: int, run_tiny: Run) -> None:
    """Observation, achieved goal and desired goal are one vector."""
    pytest.importorskip("gymnasium_robotics")
    task = inspect_task(name)
    assert (task.ob_dim, task.ac_dim) == (ob_dim, ac_dim)
    curve = read_curve(run_tiny(env_name=name))
    assert len(curve) == 2
    assert "Reward Loss" in curve[0]


@pytest.mark.parametrize(
    ("name", "extra"),
    [("dm_control/no_such-task-v0", "dmc"), ("FetchNothing-v0", "robotics")],
)
def test_unknown_task_of_an_extra_names_its_command(
    name: str, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(main, ["--env_name", name], capsys)
    assert f"this one needs pip install 'cs285[{extra}]'" in error
