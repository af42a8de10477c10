"""Tests of grade.py --submission and of the autograder: hostile code gets a clear verdict."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cs285.assignment.blanks import choose_blanks, load_blanks
from cs285.assignment.source import cut_blanks, graft
from cs285.scripts import grade, make_autograder
from tests.conftest import error_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cs285"
SECONDS = "15"  # for a check; a busy machine needs some of them for imports
ENDLESS = "import time; [time.sleep(1) for _ in iter(int, 1)]"
DELETE = "import shutil, cs285; shutil.rmtree(cs285.__path__[0])"


class Submission:
    """A submission that starts with blanks only."""

    def __init__(self) -> None:
        files = {cut.file for blank in load_blanks() for cut in blank.cuts}
        self.texts = {f: cut_blanks((PACKAGE / f).read_text(), f, load_blanks()) for f in files}

    def answer(self, name: str, old: str = "", new: str = "") -> None:
        """Write the finished answer of a blank, with a replacement."""
        (blank,) = choose_blanks([name])
        for file in {cut.file for cut in blank.cuts}:
            source = (PACKAGE / file).read_text()
            assert not old or old in source
            source = source.replace(old, new) if old else source
            cuts = [cut for cut in blank.cuts if cut.file == file]
            self.texts[file] = graft(self.texts[file], source, cuts)

    def zip(self, path: Path, **more: str) -> Path:
        """Write the zip of the submission, with more files of the package."""
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in {**self.texts, **more}.items():
                archive.writestr(f"cs285/{file}", text)
            for file in (PACKAGE / "assignment").rglob("*"):
                name = file.relative_to(PACKAGE).as_posix()
                if file.suffix in {".py", ".toml"} and name not in more:
                    archive.write(file, f"cs285/{name}")
        return path


def run(path: Path, *words: object) -> tuple[int, dict[str, Any], str]:
    """Grade a submission; return the exit code, results.json by name, and the output."""
    results = path.with_name("results.json")
    command = [sys.executable, "scripts/grade.py", "--submission", path, "--results", results]
    done = subprocess.run(
        [str(word) for word in (*command, *words)], cwd=ROOT, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    content = json.loads(results.read_text())
    return done.returncode, content, done.stdout + done.stderr


def test_each_answer_is_graded_alone_whatever_the_others_do(tmp_path: Path) -> None:
    mine = Submission()
    mine.answer("q0.enough")
    mine.answer("q0.episodes", "running = episodes\n", "raise SystemExit(0)\n")
    mine.answer("q1.update", "loss = model.loss", "bytearray(3 * 10**9); loss = model.loss")
    mine.answer("q1.targets", "change = data.next", "import os; os._exit(0); change = data.next")
    mine.answer("q1.forward", "outputs = self.network", f"{ENDLESS}; outputs = self.network")
    mine.answer("q2.uniform", "shape = (self.cand", f"{DELETE}; shape = (self.cand")
    mine.answer("q6.share")
    mine.answer("q6.target", "(terminated, 0.0", "(terminated, STOP")
    mine.texts["models/rollouts.py"] += "\n)("
    mine.texts["agents/sac_agent.py"] = ""
    mine.texts["critics/sac_critic.py"] += "\n\nSTOP = exit(0)\n"
    mine.texts["agents/mbpo_agent.py"] += "\n\nUNUSED = exit(0)\n"
    del mine.texts["policies/sac_policy.py"]
    checks = {"assignment/checks/q1.py": "def loss(): pass\n"}
    code, content, output = run(mine.zip(tmp_path / "submit.zip", **checks), "--seconds", SECONDS)
    assert code == 1
    tests = {test["name"]: test for test in content["tests"]}
    assert set(tests) == {blank.id for blank in load_blanks()}
    passed = {name for name, test in tests.items() if test["status"] == "passed"}
    assert passed == {"q0.enough", "q6.share"}
    points = {blank.id: blank.points for blank in load_blanks()}
    assert {name: test["score"] for name, test in tests.items() if test["score"]} == {
        name: points[name] for name in passed
    }
    for name, message in {
        "q0.episodes": "SystemExit: 0",
        "q1.update": "MemoryError",
        "q1.targets": "the process ended with exit code 0 during the check",
        "q1.forward": "timed out: no result after 15 s: an endless loop?",
        "q1.loss": "not begun",
        "q2.uniform": "wrong: ",
        "q6.rollout": "does not parse",
        "q6.schedule": "cs285/agents/sac_agent.py is missing or empty",
        "q6.sample": "cs285/policies/sac_policy.py: is not in the submission",
        "q6.target": "SystemExit: 0",
    }.items():
        assert message in tests[name]["output"], (name, tests[name]["output"])
    changes = [line for line in content["output"].splitlines() if line.startswith("Changes")]
    assert changes == ["Changes in cs285/assignment/checks/q1.py were ignored."]
    assert (PACKAGE / "models" / "losses.py").exists()
    assert "4 of 60 points" in output


def test_absent_checks_are_no_changes(tmp_path: Path) -> None:
    path = tmp_path / "submit.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(PACKAGE / "models" / "losses.py", "cs285/models/losses.py")
    _, content, _ = run(path, "q0.enough")
    assert content["output"] == "0 of 1 checks passed."


def test_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "submission").mkdir()
    (tmp_path / "submission" / "cs285").symlink_to(PACKAGE)
    _, content, _ = run(tmp_path / "submission", "q1.loss", "q6.share")
    assert ["is a link" in test["output"] for test in content["tests"]] == [True, True]


def test_what_is_no_submission_is_one_line_and_has_results(tmp_path: Path) -> None:
    path = tmp_path / "submit.zip"
    path.write_text("no zip")
    code, content, output = run(path)
    assert code == 2
    assert content["score"] == 0
    assert "must be a zip of at most 100 MB" in content["output"]
    (line,) = output.splitlines()
    assert line == f"grade.py: error: {content['output']}"


def test_too_little_memory_is_an_error_of_the_grader(tmp_path: Path) -> None:
    mine = Submission()
    mine.answer("q0.enough")
    code, content, output = run(mine.zip(tmp_path / "s.zip"), "q0.enough", "--memory_mb", 30)
    assert code == 1
    assert content["score"] == 0
    assert "grade.py: error: " in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--submission", "x.zip", "--hint"], "without --hint and --watch"),
        (["--results", "r.json"], "--results r.json: must be given with --submission"),
        (["--memory_mb", "5"], "--memory_mb 5: must be given with --submission"),
        (["--user", "me"], "--user me: must be given with --submission"),
        (["--submission", "x.zip", "--user", "no such"], "--user no such: must be"),
        (["--submission", "x.zip", "--results", "none/r.json"], "must be a file in an existing"),
        (["q9", "--submission", "x.zip"], "q9: must be a question"),
        (["--submission", "none.zip"], "--submission none.zip: No such file"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(grade.main, words, capsys)


def test_autograder_runs_where_gradescope_unpacks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "autograder.zip"
    words = ["--output", str(file), "--questions", "q0.iterate", "q6.share"]
    assert make_autograder.main(words) == 0
    assert "2 blanks, 4 points" in capsys.readouterr().out
    source = tmp_path / "source"
    zipfile.ZipFile(file).extractall(source)
    (source / ".venv").symlink_to(Path(sys.executable).parents[1])
    (tmp_path / "results").mkdir()
    mine = Submission()
    mine.answer("q6.share")
    zipfile.ZipFile(mine.zip(tmp_path / "s.zip")).extractall(tmp_path / "submission")
    environment = {**os.environ, "AUTOGRADER": str(tmp_path), "GRADER_USER": getpass.getuser()}
    del_python_path = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    subprocess.run(["bash", source / "run_autograder"], env=del_python_path, check=True)
    content = json.loads((tmp_path / "results" / "results.json").read_text())
    assert {test["name"]: test["score"] for test in content["tests"]} == {
        "q0.iterate": 0,
        "q6.share": 2,
    }
    assert subprocess.run(["bash", "-n", source / "setup.sh"], check=False).returncode == 0
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
    assert {"setup.sh", "run_autograder", "setup.py", "install.sh", "requirements.txt"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("cs285/data")]


def test_autograder_is_not_overwritten_and_is_reproducible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output", tmp_path / "autograder.zip"]
    assert make_autograder.main([str(word) for word in words]) == 0
    before = (tmp_path / "autograder.zip").read_bytes()
    assert "must not exist yet" in error_of(make_autograder.main, words, capsys)
    assert make_autograder.main([*map(str, words), "--overwrite"]) == 0
    assert (tmp_path / "autograder.zip").read_bytes() == before
    bad = ["--output", tmp_path / "other.zip", "--questions", "q9"]
    assert "--questions q9: must be a question" in error_of(make_autograder.main, bad, capsys)
    deep = ["--output", tmp_path / "none" / "a.zip"]
    assert "must be a writable file" in error_of(make_autograder.main, deep, capsys)
