"""Tests that the existing scripts train, resume and diagnose an agent that registers itself."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cs285.agents.registry import AGENTS, AgentEntry, find_agent
from cs285.cli.launch import launch
from cs285.config.run import RunConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.run_folder import config_text
from cs285.scripts.diagnose import main as diagnose
from tests.cli.processes import ROOT, events, only_folder, start, start_module, wait_until
from tests.conftest import arguments, exit_code_of, read_curve, runner
from tests.toy_agent import HillClimber

Run = Callable[..., Path]
MODULE, NAME = "tests.toy_agent", "tests.toy_agent:toy"
TINY_TOY: dict[str, Any] = {
    "env_name": "tests.toys:LinearReach-v0",
    "n_iter": 60,
    "batch_size_initial": 200,
    "batch_size": 200,
    "eval_batch_size": 400,
    "num_workers": 1,
}


@pytest.fixture
def run_toy(tmp_path: Path) -> Run:
    return runner(tmp_path, lambda argv: launch(NAME, argv), TINY_TOY)


def test_agent_trains_as_a_module_and_learns(tmp_path: Path) -> None:
    words = arguments(**{**TINY_TOY, "num_workers": 2, "data_dir": tmp_path})
    process = start_module(MODULE, *words, cwd=ROOT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "iteration 1 of " in out
    curve = read_curve(only_folder(tmp_path))
    assert float(curve[0]["Eval_AverageReturn"]) < -8  # the return of standing still
    assert float(curve[-1]["Eval_AverageReturn"]) > -4  # the optimum is about -1.5
    content = json.loads((only_folder(tmp_path) / "config.json").read_text())
    assert (content["agent"], content["script"]) == (NAME, "toy_agent.py")
    assert content["flags"]["toy_step"] == 1.0
    assert not list(only_folder(tmp_path).glob("*.png"))  # the agent has no ensemble to draw


def test_killed_and_resumed_run_equals_an_uninterrupted_run(tmp_path: Path, run_toy: Run) -> None:
    flags = {**TINY_TOY, "n_iter": 300}
    whole = run_toy(**flags)
    process = start_module(
        MODULE, *arguments(**{**flags, "data_dir": tmp_path / "killed"}), cwd=ROOT
    )
    wait_until(lambda: len(_rows(tmp_path / "killed")) > 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = only_folder(tmp_path / "killed")
    assert 5 < len(read_curve(folder)) < 300
    resumed = start_module(MODULE, "--resume", str(folder), cwd=ROOT)
    _, err = resumed.communicate(timeout=120)
    assert (resumed.returncode, err) == (0, "")
    assert read_curve(folder) == read_curve(whole)
    assert events(folder) == events(whole)


def _rows(data: Path) -> list[dict[str, str]]:
    """Return the rows that the only run in `data` has logged so far."""
    return [row for file in data.glob("hw4_*/progress.csv") for row in read_curve(file.parent)]


def test_agent_has_its_own_flags(run_toy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    plain, other = run_toy(n_iter=3), run_toy(n_iter=3, toy_step=0.1)
    assert read_curve(plain) != read_curve(other)
    for words, message in (
        (["--toy_step", "0"], "--toy_step 0: "),
        (["--mpc_horizon", "3"], "unknown argument --mpc_horizon"),
        (["--preset", "pets_cheetah"], "--preset pets_cheetah: "),
        (["--resume", str(plain), "--toy_step", "2"], "--toy_step 2.0: must be 1.0"),
    ):
        capsys.readouterr()
        code = exit_code_of(launch, NAME, words)
        err = capsys.readouterr().err
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("toy_agent.py: error: ")
        assert message in err


def test_flags_that_need_weights(run_toy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(**TINY_TOY, save_params=True)
    assert exit_code_of(launch, NAME, words) == 2
    assert "--save_params: must be omitted, because this agent's `parts`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"Best Return": 1.0}, "the metric Best Return as float of shape (); must be a tensor"),
        ({"B": torch.zeros(0)}, "the metric B as Tensor of shape torch.Size([0]); must be"),
        ({"Eval_AverageReturn": torch.ones(1)}, "the metric Eval_AverageReturn; must have another"),
        (
            {"Initial_DataCollection_AverageReturn": torch.ones(1)},
            "the metric Initial_DataCollection_AverageReturn; must have another",
        ),
    ],
)
def test_metrics_that_cannot_be_logged(
    metric: Any,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(HillClimber, "train", lambda self, iteration: metric)
    assert exit_code_of(launch, NAME, arguments(**TINY_TOY, data_dir=tmp_path)) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_fields_that_are_not_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclass(frozen=True)
    class Plain:
        step: float = 0.3

    @dataclass(frozen=True)
    class Config:
        run: RunConfig
        plain: Plain

    Config.__annotations__ = {"run": RunConfig, "plain": Plain}
    Plain.__annotations__ = {"step": float}
    entry = AgentEntry("plain", "tests.toy_agent", Config, HillClimber)
    monkeypatch.setitem(AGENTS, entry.full_name, entry)
    assert exit_code_of(launch, entry.full_name, []) == 2
    assert "Plain.step: must be declared by cs285.config.flags.flag(" in capsys.readouterr().err


def test_two_modules_may_use_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = find_agent(NAME)
    other = replace(toy, module="tests.toys")
    monkeypatch.setattr("cs285.agents.registry.AGENTS", AGENTS | {other.full_name: other})
    assert find_agent(NAME) is toy and find_agent("tests.toys:toy") is other
    assert find_agent("toy") is other  # the newest


def test_a_run_is_resumed_by_its_own_agent_only(
    run_toy: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_toy(n_iter=2)
    other = replace(find_agent(NAME), name="other")
    monkeypatch.setitem(AGENTS, other.full_name, other)
    assert exit_code_of(launch, other.full_name, ["--resume", str(folder), "--n_iter", "3"]) == 2
    assert f"it is a run of {NAME}; must be a run of {other.full_name}" in capsys.readouterr().err


def test_diagnose_finds_the_agent_in_config_json(run_toy: Run) -> None:
    """The process of diagnose.py has not imported the agent."""
    folder = run_toy(n_iter=30)
    process = start(
        "scripts/diagnose.py", str(folder), "--episodes", "2", "--trust",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "task: tests.toys:LinearReach-v0" in out
    text = (folder / "diagnosis.html").read_text()
    assert "--toy_step" in text
    assert "of the policy acting in the model" in text
    arrays = np.load(folder / "diagnosis.npz")
    assert arrays["predicted"].shape[1] == 5
    assert arrays["policy_errors"].shape == (2, 8, 2)
    assert np.abs(arrays["policy_errors"]).max() < 1e-5  # the model is exact
    np.testing.assert_allclose(arrays["executed"], arrays["predicted"], rtol=1e-3, atol=1e-4)


def test_error_names_an_agent_that_cannot_be_imported(
    run_toy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_toy(n_iter=1)
    config = folder / "config.json"
    content = json.loads(config.read_text())
    for name, message in (
        ("tests.no_such_module:toy", "agent tests.no_such_module:toy: cannot import"),
        ("tests.toy_agent:other", "agent tests.toy_agent:other: must be "),
    ):
        config.write_text(config_text({**content, "agent": name}))
        capsys.readouterr()
        assert diagnose([str(folder), "--trust"]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_names_of_agents() -> None:
    assert {"mb", "mbpo"} <= set(AGENTS)
    toy = find_agent(NAME)
    assert (toy.full_name, toy.script) == (NAME, "toy_agent.py")
    assert toy.words == ["python", "-m", MODULE]
    mb = find_agent("mb")
    assert (mb.full_name, mb.script) == ("mb", "run_hw4_mb.py")
    assert mb.words == ["python", "scripts/run_hw4_mb.py"]
    with pytest.raises(UsageError, match=r"agent nonsense: must be mb, mbpo.*, or MODULE:NAME"):
        find_agent("nonsense")
