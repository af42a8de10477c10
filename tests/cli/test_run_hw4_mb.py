"""Tests of run_hw4_mb.py as a process: kills, resumes, interrupts and full disks."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cs285.scripts.run_hw4_mb import main
from tests.cli.processes import children_of, events, only_folder, start, wait_until
from tests.conftest import TINY, arguments, read_curve

SCRIPT = "scripts/run_hw4_mb.py"
Run = Callable[..., Path]
# The planner has a warm start, and episodes continue across iterations.
WITH_STATE = {
    "continue_episodes": True,
    "batch_size": 3,
    "n_iter": 30,
    "eval_batch_size": 20,
    "mpc_action_sampling_strategy": "icem",
    "cem_iterations": 2,
    "mpc_particles": 4,
    "model": "probabilistic",
    "ensemble_size": 4,
    "num_elites": 2,
    "n_layers": 1,
    "num_agent_train_steps_per_iter": 30,
}


@pytest.mark.parametrize("script", [SCRIPT, f"cs285/{SCRIPT}"])
def test_both_paths_of_the_script_work(script: str) -> None:
    process = start(script, "--help")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "--mpc_horizon" in out
    assert err == ""


def test_normal_run_prints_no_errors_and_writes_only_to_data_dir(tmp_path: Path) -> None:
    words = arguments(**{**TINY, "num_workers": 2, "data_dir": tmp_path / "data"})
    words += ["--env_name", "cheetah-cs285-v0"]
    process = start(SCRIPT, *words, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    lines = [line for line in out.splitlines() if line.startswith("iteration ")]
    assert lines[0].startswith("iteration 1 of 2: return ") and lines[0].endswith(" left")
    assert lines[1].startswith("iteration 2 of 2: return ") and len(lines) == 2
    assert max(map(len, lines)) <= 100
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(("extra", "delay"), [({}, 0.2), (WITH_STATE, 0.3)])
def test_killed_and_resumed_run_equals_an_uninterrupted_run(
    extra: dict[str, Any], delay: float, tmp_path: Path, run_tiny: Run
) -> None:
    flags = {**TINY, "n_iter": 20, "add_sl_noise": True, "num_workers": 2, **extra}
    whole = run_tiny(**flags)
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path / "killed"}))
    wait_until(lambda: bool(list((tmp_path / "killed").glob("hw4_*/checkpoint.pt"))))
    time.sleep(delay)
    process.kill()
    process.communicate()
    folder = only_folder(tmp_path / "killed")
    assert main(["--resume", str(folder)]) == 0
    assert read_curve(folder) == read_curve(whole)
    assert events(folder) == events(whole)
    states = [torch.load(f / "checkpoint.pt", weights_only=True)["state"] for f in (folder, whole)]
    resumed, expected = (state["agent"]["model"] for state in states)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_run_killed_before_the_first_checkpoint_can_be_resumed(
    tmp_path: Path, run_tiny: Run
) -> None:
    process = start(SCRIPT, *arguments(**{**TINY, "data_dir": tmp_path / "killed"}))
    wait_until(lambda: bool(list((tmp_path / "killed").glob("hw4_*"))))
    process.kill()
    process.communicate()
    folder = only_folder(tmp_path / "killed")
    assert main(["--resume", str(folder)]) == 0
    assert read_curve(folder) == read_curve(run_tiny())


def test_resume_may_extend_a_run_but_not_change_other_flags(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=2)
    before = read_curve(folder)
    assert main(["--resume", str(folder)]) == 0  # nothing is left to do
    assert read_curve(folder) == before
    assert main(["--resume", str(folder), "--size", "99"]) == 2
    assert "--size 99: must be 16, as when the run started; --resume" in capsys.readouterr().err
    assert main(["--resume", str(folder), "--size", "16", "--n_iter", "3"]) == 0
    assert read_curve(folder) == read_curve(run_tiny(n_iter=3))
    config = json.loads((folder / "config.json").read_text())
    (sitting,) = config["resumed"]
    assert sitting["first_iteration"] == 2 and config["flags"]["n_iter"] == 3
    assert sitting["machine"] == config["machine"] and sitting["created"] >= config["created"]


def test_resume_without_the_checkpoint_is_an_error(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=2)
    before = (folder / "progress.csv").read_text()
    (folder / "checkpoint.pt").rename(folder / "elsewhere.pt")
    assert main(["--resume", str(folder), "--n_iter", "3"]) == 2
    err = capsys.readouterr().err
    assert "cannot read its checkpoint.pt (No such file or directory)" in err
    assert "checkpoint_previous.pt is intact: to continue from its iteration 1" in err
    (folder / "checkpoint_previous.pt").unlink()
    assert main(["--resume", str(folder), "--n_iter", "3"]) == 2
    assert "its checkpoint.pt is missing" in capsys.readouterr().err
    assert (folder / "progress.csv").read_text() == before


def test_run_with_a_damaged_checkpoint_continues_from_the_previous_one(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=3)
    expected = read_curve(folder)
    broken = folder / "checkpoint.pt"
    broken.write_bytes(broken.read_bytes()[:-1000])
    assert main(["--resume", str(folder), "--checkpoint", "previous"]) == 0
    assert read_curve(folder) == expected
    assert main(["--resume", str(folder), "--n_iter", "4"]) == 0
    assert read_curve(folder) == read_curve(run_tiny(n_iter=4))
    assert main(["--checkpoint", "previous", "--env_name", "obstacles-cs285-v0"]) == 2
    assert "--checkpoint previous: must be given together with" in capsys.readouterr().err


def test_checkpoint_of_a_run_that_differs_only_in_its_seed_is_refused(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = run_tiny(seed=1), run_tiny(seed=2)
    shutil.copy(other / "checkpoint.pt", folder / "checkpoint.pt")
    assert main(["--resume", str(folder), "--n_iter", "9"]) == 2
    assert "its checkpoint.pt is of another run; must be" in capsys.readouterr().err


def test_run_resumed_without_checkpoints_can_be_resumed_again(run_tiny: Run) -> None:
    folder = run_tiny(n_iter=2)
    assert main(["--resume", str(folder), "--n_iter", "3", "--checkpoint_freq", "-1"]) == 0
    assert main(["--resume", str(folder), "--n_iter", "4", "--checkpoint_freq", "1"]) == 0
    assert read_curve(folder) == read_curve(run_tiny(n_iter=4))


@pytest.mark.parametrize(
    "damage", ["truncated", "foreign", "older", "another run's", "agent only", "config"]
)
def test_error_names_the_damaged_file(
    damage: str, run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny()
    broken = folder / ("config.json" if damage == "config" else "checkpoint.pt")
    if damage == "foreign":
        torch.save({"model": 1}, broken)
    elif damage == "older":
        state = torch.load(broken, weights_only=True)["state"]
        torch.save({"format": "cs285 checkpoint 4", "state": state}, broken)
    elif damage == "another run's":
        shutil.copy(run_tiny(size=32, env_name="reacher-cs285-v0") / "checkpoint.pt", broken)
    elif damage == "agent only":
        shutil.copy(run_tiny(save_params=True) / "agent_itr_0.pt", broken)
    else:
        broken.write_bytes(broken.read_bytes()[:200])
    names = ("progress.csv", "config.json")
    kept = [(folder / name).read_text() for name in names]
    capsys.readouterr()
    assert main(["--resume", str(folder), "--n_iter", "9"]) == 2
    err = capsys.readouterr().err
    assert broken.name in err
    assert err.count("\n") == 1
    assert damage != "older" or "from another version (cs285 checkpoint 4)" in err
    assert [(folder / name).read_text() for name in names] == kept


def test_environment_error_on_resume_is_not_reported_as_a_damaged_checkpoint(
    run_tiny: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(continue_episodes=True, batch_size=7)

    def fail(env: object, action: object) -> None:
        raise RuntimeError("the sensor broke")

    monkeypatch.setattr("cs285.envs.obstacles.Obstacles.step", fail)
    assert main(["--resume", str(folder), "--n_iter", "3"]) == 1
    err = capsys.readouterr().err
    assert "raised RuntimeError (the sensor broke)" in err
    assert f"continue with --resume {folder}" in err


def test_one_process_per_log_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(SCRIPT, *arguments(**{**TINY, "n_iter": 500, "data_dir": tmp_path}))
    wait_until(lambda: bool(list(tmp_path.glob("hw4_*/checkpoint.pt"))))
    assert main(["--resume", str(only_folder(tmp_path))]) == 2
    assert "another process is running it" in capsys.readouterr().err
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_run(number: int, tmp_path: Path) -> None:
    words = arguments(**{**TINY, "n_iter": 500, "num_workers": 2, "data_dir": tmp_path})
    process = start(SCRIPT, *words, start_new_session=True)
    wait_until(lambda: bool(list(tmp_path.glob("hw4_*/checkpoint.pt"))))
    wait_until(lambda: len(children_of(process.pid)) >= 2)
    family = children_of(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # like Ctrl-C in a terminal
    else:
        process.kill()
    _, err = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err.count("\n") == 1
        assert f"interrupted; continue with --resume {only_folder(tmp_path)}" in err
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 10)


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """A limit on the file size simulates a full disk: the checkpoint grows beyond the limit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    words = arguments(**{**TINY, "n_iter": 200, "batch_size": 400, "data_dir": tmp_path})
    process = start(SCRIPT, *words, preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "(File too large); must be a writable folder" in err
    folder = only_folder(tmp_path)
    assert main(["--resume", str(folder), "--n_iter", "1"]) == 0  # the checkpoint is readable
    assert not list(folder.glob(".checkpoint*"))


def test_diverged_model_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {**TINY, "learning_rate": 1e30, "num_agent_train_steps_per_iter": 20}
    assert main(arguments(**{**flags, "data_dir": tmp_path})) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "in iteration 0: learning diverged" in err
    assert err.endswith("; nothing was saved\n")


def test_full_disk_at_the_start_leaves_no_log_folder(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    process = start(SCRIPT, *arguments(**{**TINY, "data_dir": tmp_path}), preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "(File too large); must be a writable folder" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.6])
def test_ctrl_c_while_workers_start_is_a_one_line_error(delay: float, tmp_path: Path) -> None:
    """The worker server shares the terminal, and may still be importing modules."""
    words = arguments(**{**TINY, "n_iter": 500, "num_workers": 2, "data_dir": tmp_path})
    process = start(SCRIPT, *words, start_new_session=True)
    wait_until(
        lambda: len(children_of(process.pid)) >= 2
    )  # the server and Python's resource tracker
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "interrupted" in err


@pytest.mark.long
def test_full_disk_keeps_the_curve_of_a_run_without_checkpoints(tmp_path: Path) -> None:
    """The event file reaches the limit after progress.csv has some rows."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    flags = {**TINY, "n_iter": 1000, "checkpoint_freq": -1, "batch_size": 20, "eval_batch_size": 20}
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path}), preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--resume" not in err
    assert len(read_curve(only_folder(tmp_path))) > 10


def test_ctrl_c_during_imports_is_a_one_line_error(tmp_path: Path) -> None:
    process = start(SCRIPT, *arguments(**{**TINY, "num_workers": 2, "data_dir": tmp_path}))
    maps = Path(f"/proc/{process.pid}/maps")
    give_up = time.monotonic() + 30
    # On a busy machine the first line of the script may run only after a second.
    while maps.exists() and "libtorch" not in maps.read_text() and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.2 if maps.exists() else 1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "interrupted" in err


def test_collected_data_do_not_depend_on_the_number_of_workers(run_tiny: Run) -> None:
    one, two = run_tiny(num_workers=1), run_tiny(num_workers=2)
    assert read_curve(one) == read_curve(two)


TASK = """
import gymnasium as gym
import numpy as np

class Line(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    @staticmethod
    def get_reward(observations, actions):
        return -abs(observations[..., 0]), observations[..., 0] > 8

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.at, {}

    def step(self, action):
        self.at += action  # returns the same array at every step
        return self.at, -float(abs(self.at[0])), False, False, {}

gym.register("Line-v0", entry_point=Line, max_episode_steps=15)
"""


def test_custom_task(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASK)
    flags = {**TINY, "env_name": "my_tasks:Line-v0", "ep_len": None, "num_workers": 2}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path / "data"}), env=environment)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    curve = read_curve(only_folder(tmp_path / "data"))
    assert float(curve[0]["Eval_AverageEpLen"]) == 15
    assert "Reward Loss" not in curve[0]


def test_custom_task_that_raises_in_a_worker(tmp_path: Path) -> None:
    broken = TASK.replace("self.at += action", "raise ArithmeticError('the sensor broke')")
    (tmp_path / "my_tasks.py").write_text(broken)
    flags = {**TINY, "env_name": "my_tasks:Line-v0", "ep_len": None, "num_workers": 2}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = start(SCRIPT, *arguments(**{**flags, "data_dir": tmp_path / "data"}), env=environment)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "the environment Line-v0 raised ArithmeticError (the sensor broke) in my_tasks.py" in err
    assert err.endswith("; fix the environment; nothing was saved\n")


@pytest.mark.parametrize("env_name", ["Pendulum-v1", "HalfCheetah-v5", "Hopper-v5"])
def test_gymnasium_tasks_work_without_extra_code(env_name: str, run_tiny: Run) -> None:
    curve = read_curve(run_tiny(env_name=env_name, ep_len=25))
    assert len(curve) == 2
    assert "Reward Loss" in curve[0]
