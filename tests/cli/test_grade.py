"""Tests of grade.py in a starter: the states of a blank, hints, and what comes next."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cs285.assignment.blanks import choose_blanks, load_blanks
from cs285.assignment.source import graft
from cs285.assignment.starter import make_starter
from cs285.scripts import grade
from tests.cli.processes import start
from tests.conftest import error_of, exit_code_of

ROOT = Path(__file__).parents[2]
SECONDS = "15"  # for a check; a busy machine needs some of them for imports


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grade") / "hw4"
    make_starter(folder, load_blanks())
    return folder


@pytest.fixture
def starter(made: Path, tmp_path: Path) -> Path:
    """Return a starter of which each test may write its own answers."""
    folder = tmp_path / "hw4"
    subprocess.run(["cp", "-r", str(made), str(folder)], check=True)
    return folder


def finished(file: str) -> str:
    return (ROOT / "cs285" / file).read_text()


def answer(starter: Path, name: str, old: str = "", new: str = "") -> None:
    """Write the finished answer of a blank into a starter, with a replacement."""
    (blank,) = choose_blanks([name])
    for file in {cut.file for cut in blank.cuts}:
        cuts = [cut for cut in blank.cuts if cut.file == file]
        source = finished(file)
        assert not old or source.count(old) >= 1
        path = starter / "cs285" / file
        path.write_text(graft(path.read_text(), source.replace(old, new) if old else source, cuts))


def run(starter: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run grade.py of a starter, while another cs285 is on the path."""
    command = [sys.executable, "scripts/grade.py", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=starter, env=environment, capture_output=True, text=True)


def states(output: str) -> dict[str, str]:
    """Return the printed status of each blank."""
    names = "passed|wrong|not begun|blocked|timed out"
    return {name: state for state, name in re.findall(rf"^  ({names}) +(\S+)", output, re.M)}


def test_fresh_starter_has_begun_nothing(starter: Path) -> None:
    begun = time.monotonic()
    done = run(starter)
    assert (done.returncode, done.stderr) == (1, "")
    assert states(done.stdout) == {blank.id: "not begun" for blank in load_blanks()}
    assert "q1  [....................] 0 of 8 passed, 0 of 19 points" in done.stdout
    assert "next: q0.enough (10 minutes), cs285/collection/collector.py:" in done.stdout
    assert time.monotonic() - begun < 60


def test_all_states_in_one_run(starter: Path) -> None:
    answer(starter, "q0.enough")
    answer(starter, "q1.targets", "data.next_obs - data.obs", "data.next_obs")
    answer(starter, "q1.forward", "inputs = self.input_stats", "inputs = self.no_such_stats")
    answer(starter, "q2.uniform", "draws = ", "import time; time.sleep(999); draws = ")
    answer(starter, "q2.shoot")
    answer(starter, "q5.elites", "weights = weights[", "raise SystemExit(0); weights = weights[")
    answer(starter, "q6.target", "soft_values = ", "import os; os._exit(0); soft_values = ")
    answer(starter, "q6.share")
    forged = json.dumps({"blank": "q6.actor", "status": "passed", "message": ""})
    answer(starter, "q6.actor", "sample = policy.sample(obs", f"print({forged!r}); return; (obs")
    broken = starter / "cs285/policies/planners/cem.py"
    broken.write_text(broken.read_text().replace("raise BlankError(", "return ("))
    broken.write_text(broken.read_text() + "\ndef (:\n")
    losses = starter / "cs285/models/losses.py"  # one of two places of q1.loss
    losses.write_text(losses.read_text().replace('raise BlankError("q1.loss")', "return means"))
    done = run(starter, "--seconds", SECONDS)
    got = states(done.stdout)
    assert {name: state for name, state in got.items() if state != "not begun"} == {
        "q0.enough": "passed",
        "q1.targets": "wrong",
        "q1.forward": "wrong",
        "q1.loss": "wrong",
        "q2.uniform": "blocked",
        "q2.shoot": "blocked",
        "q5.elites": "blocked",
        "q5.cem": "wrong",
        "q6.target": "blocked",
        "q6.share": "blocked",
        "q6.actor": "blocked",
    }
    text = " ".join(done.stdout.split())
    assert "likely mistake: the target is the change, not the next observation" in text
    assert "has no attribute 'no_such_stats'" in text
    assert re.search(r"cs285/models/ff_model.py:\d+: AttributeError", text)
    assert "FFModel.loss is not written, or still has raise BlankError" in text
    last = len(broken.read_text().splitlines())
    wrong = (
        f"q5.cem cs285/policies/planners/cem.py:{last} cs285/policies/planners/cem.py: line {last}"
    )
    assert f"{wrong} does not parse" in text
    assert re.search(r"q2.shoot by cs285/policies/planners/cem.py:\d+: SyntaxError", text)
    assert "next: q1.targets" in text

    broken.write_text(finished("policies/planners/cem.py"))
    done = run(starter, "q2", "q5", "q6", "--seconds", SECONDS)
    got, text = states(done.stdout), " ".join(done.stdout.split())
    assert got["q2.uniform"] == "timed out"
    assert got["q2.shoot"] == "blocked"
    assert "q2.shoot by q2.best" in text
    assert got["q5.elites"] == "wrong"
    assert "SystemExit: 0" in text
    assert got["q6.target"] == "wrong"
    assert "the process ended with exit code 0 during the check" in text
    assert got["q6.share"] == "passed"
    assert got["q6.actor"] == "wrong"
    assert forged in done.stderr  # prints are shown, and are no results
    assert done.returncode == 1


def test_finished_answers_pass(starter: Path) -> None:
    for blank in load_blanks():
        if not blank.is_optional:
            answer(starter, blank.id)
    done = run(starter)
    assert (done.returncode, done.stderr) == (0, "")
    got = states(done.stdout)
    assert got.pop("q5.icem") == "not begun"
    assert set(got.values()) == {"passed"}
    assert re.search(r"not begun +q5.icem +optional, cs285/policies/planners/icem.py", done.stdout)
    assert "2 of 2 passed, 6 of 6 points" in done.stdout
    assert "all passed; next: the runs in docs/assignment.md" in done.stdout
    assert run(starter, "q5.icem").returncode == 1
    answer(starter, "q5.icem", "elites[:, :reused]", "elites[:, :0]")
    assert run(starter, "q5").returncode == 1
    answer(starter, "q5.icem")
    done = run(starter, "q5")
    assert done.returncode == 0
    assert "3 of 3 passed" in done.stdout


def test_hints_have_two_levels(capsys: pytest.CaptureFixture[str]) -> None:
    assert grade.main(["q1.loss", "--hint"]) == 0
    first = capsys.readouterr().out
    assert grade.main(["q1.loss", "--hint", "2"]) == 0
    second = capsys.readouterr().out
    assert second.startswith(first.rstrip())
    assert len(second) > 1.5 * len(first)
    assert grade.main(["q5", "--hint"]) == 0
    assert re.findall(r"^q\S+", capsys.readouterr().out, re.M) == ["q5.elites", "q5.cem", "q5.icem"]


def test_watch_checks_again_after_a_change(starter: Path) -> None:
    command = [sys.executable, "-u", "scripts/grade.py", "q6.share", "--watch"]
    process = subprocess.Popen(
        command,
        cwd=starter,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout
    seen = ""
    while "watching" not in seen:
        seen += process.stdout.readline()
    assert states(seen) == {"q6.share": "not begun"}
    time.sleep(0.1)
    answer(starter, "q6.share")
    seen = ""
    while "watching" not in seen:
        seen += process.stdout.readline()
    assert states(seen) == {"q6.share": "passed"}
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["q9"], "q9: must be a question (q0, q1, q2, q5, q6) or the id of a blank"),
        (["q1.los"], "did you mean q1.loss?"),
        (["q1.loss", "--hint", "3"], "--hint"),
        (["--seconds", "0"], "--seconds"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(grade.main, words, capsys)


def test_help() -> None:
    process = start("scripts/grade.py", "--help")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "--hint" in out
    assert exit_code_of(grade.main, ["--help"]) == 0
