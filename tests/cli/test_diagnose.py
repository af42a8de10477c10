"""Tests of diagnose.py on tiny runs: a self-contained HTML page, or a one-line error."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cs285.analysis.diagnosis import figures
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.lock import lock_folder
from cs285.scripts.diagnose import main
from tests.cli.processes import start
from tests.conftest import error_of

Run = Callable[..., Path]
VOID = {"meta", "img"}


class Page(HTMLParser):
    """An HTML page. The parser asserts that all elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.count: dict[str, int] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(file: Path) -> tuple[Page, str]:
    """Return the page and its text, and assert that the page loads nothing from elsewhere."""
    text = file.read_text()
    parsed = Page(text)
    assert all(source.startswith("data:") for source in parsed.sources)
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    return parsed, re.sub(r"base64,[^\"]+", "", text)


def test_obstacles_while_the_run_is_active(
    run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(add_sl_noise=True)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    capsys.readouterr()
    with lock_folder(folder):
        assert main([str(folder), "--episodes", "1", "--horizon", "4"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"report: {folder / 'diagnosis.html'}" in out
    assert "run: 2 iterations, " in out
    parsed, text = read_page(folder / "diagnosis.html")
    assert parsed.count["img"] == 5
    assert "the path that the model predicts for each" in text
    assert "--mpc_num_action_sequences" in text
    arrays = np.load(folder / "diagnosis.npz")
    assert arrays["policy_errors"].shape == arrays["random_errors"].shape == (3, 4, 4)
    assert arrays["predicted"].shape[1] == 3  # the planner's horizon
    assert np.isfinite(arrays["random_errors"][..., :2]).all()
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"diagnosis.html", "diagnosis.npz"}


def test_same_seed_gives_the_same_report(run_tiny: Run, tmp_path: Path) -> None:
    folder = run_tiny()
    words = [str(folder), "--episodes", "1", "--output"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*words, str(tmp_path / f"{name}.html"), "--seed", seed]) == 0
    first, second, other = (np.load(tmp_path / f"{name}.npz")["predicted"] for name in "abc")
    np.testing.assert_array_equal(first, second)
    assert first.shape != other.shape or (first != other).any()
    assert not (folder / "diagnosis.html").exists()


def test_cheetah_has_a_video_or_a_hint_how_to_install_opengl(run_tiny: Run) -> None:
    folder = run_tiny(env_name="cheetah-cs285-v0", n_iter=1)
    assert main([str(folder), "--episodes", "1"]) == 0
    parsed, text = read_page(folder / "diagnosis.html")
    assert parsed.count["img"] == 4
    assert ("video" in parsed.count) != ("libegl1 or libosmesa6" in text)


def test_reacher_without_opengl(
    run_tiny: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing_renders(*_: Any) -> None:
        raise UsageError("no")

    monkeypatch.setattr(figures, "choose_renderer", nothing_renders)
    folder = run_tiny(env_name="reacher-cs285-v0", n_iter=1, ensemble_size=1)
    capsys.readouterr()
    assert main([str(folder), "--episodes", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "video was skipped because OpenGL is not available. Install libegl1" in out
    parsed, text = read_page(folder / "diagnosis.html")
    assert "video" not in parsed.count
    assert "video was skipped" in text
    assert "An ensemble with one member has no spread" in text


def test_mbpo_run(run_tiny_mbpo: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_tiny_mbpo(n_iter=1)
    assert main([str(folder), "--episodes", "1"]) == 0
    note = "(random actions) have fewer than 50 env steps, so errors are shown up to env step 20"
    assert note in capsys.readouterr().out
    _, text = read_page(folder / "diagnosis.html")
    assert "of the policy acting in the model" in text
    assert np.load(folder / "diagnosis.npz")["predicted"].shape[1] == 10


@pytest.mark.parametrize("agent", ["mb", "mbpo"])
def test_learned_reward(agent: str, run_tiny: Run, run_tiny_mbpo: Run) -> None:
    folder = (run_tiny if agent == "mb" else run_tiny_mbpo)(env_name="Pendulum-v1", n_iter=1)
    assert main([str(folder), "--episodes", "1"]) == 0
    _, text = read_page(folder / "diagnosis.html")
    assert "no picture of Pendulum-v1" in text
    assert (np.load(folder / "diagnosis.npz")["predicted"] < 0).any()  # 0: no predicted reward


def test_bad_input_is_a_one_line_error(
    run_tiny: Run, run_tiny_mbpo: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tiny(n_iter=1)
    for words, expected in (
        ([], "LOGDIR"),
        ([tmp_path / "nowhere"], "No such file or directory (config.json); must be the log"),
        ([folder, "--horizon", 0], "--horizon 0: must be an integer from 1"),
        ([folder, "--episodes", "two"], "--episodes two: must be an integer from 1"),
        ([folder, "--seed", -1], "--seed -1: must be a non-negative integer"),
        ([folder, "--output", "x.npz"], "--output x.npz: must be a path that ends in .html"),
        ([folder, "--output", tmp_path / "no" / "x.html"], "x.html: must be a file in a writable"),
        ([folder, "--horizons", 3], "did you mean --horizon?"),
    ):
        assert expected in error_of(main, words, capsys)
    checkpoint = folder / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:300])
    assert "truncated, corrupt" in error_of(main, [folder], capsys)
    shutil.copy(run_tiny(n_iter=1, size=40) / "checkpoint.pt", checkpoint)
    assert "its checkpoint.pt is of another run; must be" in error_of(main, [folder], capsys)
    checkpoint.unlink()
    assert "no checkpoint.pt; must be" in error_of(main, [folder], capsys)
    (folder / "config.json").write_text(json.dumps({"script": "mine.py", "flags": {}}))
    assert "its config.json: agent mine.py: must be mb" in error_of(main, [folder], capsys)
    sac = run_tiny_mbpo(n_iter=1, mbpo_rollout_length=0, num_agent_train_steps_per_iter=0)
    assert "its run has no model; must be the log folder of a run with" in error_of(
        main, [sac], capsys
    )


def test_help_of_the_script() -> None:
    out, err = start("scripts/diagnose.py", "--help").communicate(timeout=60)
    assert "LOGDIR" in out
    assert err == ""
