"""Tests of the benchmarks: rates, ratios and the report. They do not test speed."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from benchmarks import files_opened, model_rollouts, sweeps
from benchmarks.reference.homework_sac import HomeworkSAC
from benchmarks.report import TARGETS, measured, text_of
from benchmarks.timing import RESULTS, rates, summarize

NAP_SECONDS = 0.02


def napper(units: int) -> Callable[[], float]:
    def work() -> float:
        time.sleep(NAP_SECONDS)
        return units

    return work


def test_rates_and_ratios_of_each_round() -> None:
    measured = rates({"one": partial(napper, 1), "three": partial(napper, 3)}, repeats=4)
    assert {name: len(values) for name, values in measured.items()} == {"one": 4, "three": 4}
    assert all(0 < rate <= 1 / NAP_SECONDS for rate in measured["one"])
    fixed = {"one": [1.0, 2.0, 3.0, 4.0], "three": [3.0, 6.0, 9.0, 16.0]}
    summary = summarize(fixed, "one")
    assert summary["three"]["ratio_to_baseline"] == 3
    assert summary["three"]["median"] == 7.5


def test_the_report_matches_the_json_files() -> None:
    assert (RESULTS / "README.md").read_text() == text_of(measured())


def test_a_missed_target_is_reported_as_missed() -> None:
    results = measured()
    target = next(target for target in TARGETS if target.benchmark == "sac_updates")
    for ratio, verdict in ((target.bound - 0.01, "missed"), (target.bound + 0.01, "met")):
        results["sac_updates"]["updates"]["here, --compile"]["ratio_to_baseline"] = ratio
        (line,) = [line for line in text_of(results).splitlines() if target.what in line]
        assert line.endswith(f"| {verdict} |")
    del results["sac_updates"]
    assert f"| {target.what} | ≥ 2 | not measured | |" in text_of(results)


@pytest.mark.parametrize("rows", [300, 700])
def test_the_homework_style_sac_learns_the_reward(rows: int) -> None:
    """With discount 0 the Q values are the rewards, so the critic loss must fall."""
    agent, random = HomeworkSAC(3, 2, 32, discount=0.0), np.random.default_rng(0)
    obs, next_obs = random.normal(size=(2, rows, 3)).astype(np.float32)
    acs = random.uniform(-1, 1, (rows, 2)).astype(np.float32)
    agent.add_path(obs, acs, acs[:, 0], next_obs, np.zeros(rows, np.float32))
    losses = [agent.train(64) for _ in range(300)]
    assert losses[-1]["critic"] < 0.2 * losses[0]["critic"]


def test_the_gpu_benchmark_runs_in_small_on_a_cpu() -> None:
    """It must work at the first attempt on a machine that is lent for minutes."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--small"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=RESULTS.parents[1])
    assert result.returncode == 0, result.stderr
    assert "failed" not in result.stdout
    assert "not measured" not in result.stdout
    (agreement,) = re.findall(r"^\{('Training Loss.*)\}$", result.stdout, re.MULTILINE)
    differences = re.findall(r"'([\w ]+)': ([\d.e-]+)", agreement)
    assert {"Training Loss", "Critic Loss", "Actor Loss"} <= {name for name, _ in differences}
    assert all(float(difference) < 1e-3 for _, difference in differences)


@pytest.mark.parametrize("propagation", ["mean", "random_member"])
def test_model_rollouts_of_both_contenders(
    propagation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_rollouts, "LENGTH", 2)
    assert model_rollouts.batched(16, propagation)() == 16 * 2
    assert model_rollouts.one_at_a_time()() == 20 * 2


def test_the_sweep_benchmark_schedules_trials_that_do_nothing() -> None:
    assert sweeps.schedule(3)["number"] == 3


def test_files_opened_are_those_that_run() -> None:
    questions = files_opened.questions()
    assert list(questions) == list(files_opened.TARGETS)
    files = {question: files_opened.files_run_by(work) for question, work in questions.items()}
    assert "policies/planners/random_shooting.py" in files["one MPC decision"]
    assert "models/training.py" in files["one fit"]
    assert not any(name.startswith("critics/") for name in files["one fit"])
    assert {"models/rollouts.py", "agents/sac_losses.py"} < set(files["one MBPO iteration"])
