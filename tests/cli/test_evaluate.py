"""Tests of evaluate.py on tiny runs: episodes that depend only on the seed, or one-line errors."""

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

import cs285
from cs285.analysis.evaluation import evaluate
from cs285.config.run import RunConfig
from cs285.envs.env_watch import THIS_PROCESS
from cs285.infrastructure.recording.video import stride
from cs285.scripts import export_run
from cs285.scripts.evaluate import main
from tests.conftest import error_of, read_curve
from tests.toys import Shown

Run = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def test_prints_statistics_and_changes_nothing(
    run_tiny: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = run_tiny(n_iter=1), tmp_path / "episodes.csv"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    words = ["--episodes", "3", "--num_workers", "1", "--csv", str(file)]
    assert main([str(folder), *words]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("3 episodes, ")
    rows = list(csv.DictReader(file.open()))
    returns = [float(row["Return"]) for row in rows]
    assert len(set(returns)) == 3
    mean = re.search(r"return: mean (\S+), ", out)
    assert mean and float(mean[1]) == pytest.approx(np.mean(returns), rel=1e-5)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_episodes_depend_on_the_seed_and_not_on_workers(run_tiny: Run) -> None:
    folder = run_tiny(n_iter=1)
    first = evaluate(folder, 3, seed=1, num_workers=1)
    again = evaluate(folder, 3, seed=1, num_workers=2)
    other = evaluate(folder, 3, seed=2, num_workers=1)
    assert (first.returns == again.returns).all() and (first.lengths == again.lengths).all()
    assert (first.returns != other.returns).all()
    more = evaluate(folder, 4, seed=1, num_workers=1)
    assert (more.returns[:3] == first.returns).all()


@pytest.mark.parametrize("has_best", [True, False])
@pytest.mark.parametrize("kind", ["run_tiny", "run_tiny_mbpo"])
def test_exported_agent_acts_like_the_run(
    kind: str, has_best: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, exported = request.getfixturevalue(kind)(n_iter=2), tmp_path / "agent"
    if not has_best:  # runs from before this file existed
        (folder / "agent_best.pt").unlink()
    assert export_run.main([str(folder), str(tmp_path / "x"), "--agent", str(exported)]) == 0
    assert sorted(path.name for path in exported.iterdir()) == ["agent_best.pt", "config.json"]
    assert str(tmp_path) not in (exported / "config.json").read_text()
    expected = evaluate(folder, 2, num_workers=1, checkpoint="best" if has_best else "last")
    assert (evaluate(exported, 2, num_workers=1).returns == expected.returns).all()


def test_export_refuses_a_damaged_curve(
    run_tiny: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = run_tiny(n_iter=2), tmp_path / "x"
    curve = folder / "progress.csv"
    intact = curve.read_bytes()
    for damaged in (b"", intact[:-5], intact.replace(b".", b"1", 1)):
        curve.write_bytes(damaged)
        error = error_of(export_run.main, [folder, target], capsys)
        assert "its progress.csv is damaged or missing; must be the log folder" in error
    curve.unlink()
    assert "progress.csv is damaged" in error_of(export_run.main, [folder, target], capsys)
    assert not list(tmp_path.glob("x*"))


def test_export_leaves_out_rows_that_are_newer_than_the_checkpoint(
    run_tiny: Run, tmp_path: Path
) -> None:
    folder = run_tiny(n_iter=2)
    curve = folder / "progress.csv"
    before = curve.read_text()
    with curve.open("a") as file:  # as of a run that was killed in iteration 3
        file.write(f"2,{before.splitlines()[-1].split(',', 1)[1]}\n3,1")
    assert export_run.main([str(folder), str(tmp_path / "x")]) == 0
    assert (tmp_path / "x.csv").read_text() == before


@pytest.mark.parametrize("kind", ["run_tiny", "run_tiny_mbpo"])
def test_best_checkpoint_is_of_the_best_evaluation(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the weights of this iteration, and it needs no other checkpoint."""
    folder = request.getfixturevalue(kind)(n_iter=4, save_params=True)
    logged = [float(row["Eval_AverageReturn"]) for row in read_curve(folder)]
    best = int(np.argmax(logged))
    returns = {
        which: tuple(evaluate(folder, 3, num_workers=1, checkpoint=which).returns)
        for which in ("best", "last", *map(str, range(4)))
    }
    assert returns["best"] == returns[str(best)]
    assert returns["last"] == returns["3"]
    assert len(set(returns.values())) == 4
    (folder / "checkpoint.pt").unlink()
    error = error_of(main, [folder], capsys)
    assert "has no checkpoint.pt; must be " in error
    assert ", or pass --checkpoint previous or best or 0 or 1 or 2 or 3" in error
    (folder / "checkpoint_previous.pt").unlink()
    (folder / "agent_itr_copy.pt").touch()  # no iteration
    assert tuple(evaluate(folder, 3, num_workers=1).returns) == returns["best"]
    error = error_of(main, [folder, "--checkpoint", 7, "--csv", folder / "new.csv"], capsys)
    assert "--checkpoint 7: must be best or 0 or 1 or 2 or 3 for the run in" in error
    assert not (folder / "new.csv").exists()


def test_an_episode_that_is_drawn_has_the_time_limit_too(
    run_tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def film(*arguments: object) -> tuple[list[np.ndarray], float]:
        limits.append(THIS_PROCESS._timeout)
        return [np.zeros((8, 8, 3), np.uint8)], 10.0

    monkeypatch.setattr("cs285.collection.episodes.film", film)
    evaluate(run_tiny(n_iter=1), 1, num_workers=1, video=tmp_path / "video.gif")
    assert limits == [RunConfig.env_timeout] and math.isinf(THIS_PROCESS._timeout)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_video_shows_the_first_episode(
    run_tiny: Run, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = run_tiny(n_iter=1), tmp_path / f"video{suffix}"
    words = ["--episodes", "1", "--num_workers", "1", "--video", str(file)]
    assert main([str(folder), *words]) == 0
    length = int(evaluate(folder, 1, num_workers=1).lengths[0])
    frames = list(iio.imiter(file))
    most = -(-length // (1 if suffix == ".mp4" else stride(10)))  # obstacles has 10 per second
    assert len(frames) == most or (suffix == ".gif" and 1 < len(frames) < most)  # merges equal ones
    assert np.ptp(np.asarray(frames[0])) > 0


def test_window_shows_every_step_of_every_episode(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(env_name="tests.toys:Shown-v0", n_iter=1, num_workers=1)
    assert not Shown.frames  # training draws nothing
    try:
        assert main([str(folder), "--trust", "--episodes", "3", "--render", "human"]) == 0
        assert Shown.frames == [21, 21, 21]
    finally:
        Shown.frames.clear()
    words = [str(run_tiny(n_iter=1, env_name="LinearReach-v0")), "--render", "human"]
    assert "LinearReach-v0 has only the render modes none" in error_of(main, words, capsys)


def test_every_policy_of_mbpo_acts_differently(run_tiny_mbpo: Run) -> None:
    folder = run_tiny_mbpo(n_iter=1)
    totals = {
        name: evaluate(folder, 1, policy=name, num_workers=1).returns[0]
        for name in (None, "policy", "planner", "random")
    }
    assert totals[None] == totals["policy"]
    assert len(set(totals.values())) == 3


def test_sac_without_a_model_can_be_evaluated(
    run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny_mbpo(n_iter=1, mbpo_rollout_length=0, num_agent_train_steps_per_iter=0)
    assert np.isfinite(evaluate(folder, 1, num_workers=1).returns).all()
    error = error_of(main, [folder, "--policy", "planner"], capsys)
    assert "--policy planner: must be policy or random for the run in" in error


def test_bad_input_is_a_one_line_error(
    run_tiny: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=1)
    for words, expected in (
        ([tmp_path], "No such file or directory (config.json); must be the log"),
        ([folder, "--episodes", 0], "--episodes 0: must be an integer of at least 1"),
        ([folder, "--policy", "best"], "--policy best: must be policy, planner or random"),
        ([folder, "--policy", "policy"], "--policy policy: must be planner or random"),
        ([folder, "--csv", tmp_path], f"--csv {tmp_path}: Is a directory; must be a writable"),
    ):
        assert expected in error_of(main, words, capsys)


# Far below the returns of these agents, far above the returns of untrained ones.
WANTED = {
    "halfcheetah": 8000.0,
    "hopper": 3000.0,
    "inverted_pendulum": 900.0,
    "pilco_cartpole": 20.0,
    "pilco_pendulum": 10.0,
    "q3_cheetah": 5.0,  # of its first steps; random actions return about -5 per step
    "q3_obstacles": -60.0,
    "q5_cheetah": -20.0,
    "q6_cheetah": 1000.0,
    "sac_pendulum": -300.0,
    "walker2d": 3000.0,
}
FIRST_STEPS = {"q3_cheetah": 40, "q5_cheetah": 20}  # of planners that take a minute for an episode


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "results" / "agents").iterdir()), ids=lambda folder: folder.name
)
def test_committed_agent_acts_well(folder: Path) -> None:
    assert (folder / "agent_best.pt").stat().st_size < 1e6
    assert return_of(folder) > WANTED[folder.name]


def return_of(folder: Path) -> float:
    """Return the return of one episode, or of its first steps."""
    if folder.name not in FIRST_STEPS:
        return evaluate(folder, 1, num_workers=1).returns[0]
    agent = cs285.load(folder)
    env = cs285.envs.make_env(agent.config.run.task, FIRST_STEPS[folder.name])
    obs, _ = env.reset(seed=1)
    total = 0.0
    for _ in range(FIRST_STEPS[folder.name]):
        obs, reward, *_ = env.step(agent.predict(obs))
        total += float(reward)
    env.close()
    return total
