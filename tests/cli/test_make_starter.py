"""Tests of make_starter.py and of the starter that it makes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cs285.assignment.blanks import load_blanks, omitted_with
from cs285.assignment.starter import without_dead_links
from cs285.scripts import make_starter
from tests.conftest import error_of, exit_code_of

ROOT = Path(__file__).parents[2]
SHORTEST = 28  # shorter lines are not specific to an answer
# Removed lines that other planners and agents contain, too. They tell nothing about a blank.
COMMON = {
    "mean = context.recall_mean()",
    "std = context.first_std.expand_as(mean)",
    "metrics: dict[str, Tensor] = {}",
    "temperature = self.log_temperature.detach().exp()",
}


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starter") / "hw4"
    assert make_starter.main(["--output", str(folder)]) == 0
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this Python in a starter."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def test_starter_has_no_tests_results_or_history(starter: Path) -> None:
    names = {path.name for path in starter.iterdir()}
    assert {"cs285", "docs", "scripts", "README.md", "setup.py"} <= names
    assert not names & {"tests", "benchmarks", "results", "notebooks", ".git", ".venv"}
    assert not list(starter.rglob("mistakes.toml"))
    assert not list(starter.rglob("make_starter.py"))[1:]  # only the module
    assert not (starter / "scripts" / "make_starter.py").exists()
    assert (starter / "cs285/envs/reacher/assets/reacher.xml").exists()


def test_pages_have_no_dead_links(starter: Path) -> None:
    pages = [starter / "README.md", *(starter / "docs").glob("*.md")]
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        links = re.findall(r"\]\(([^)\s]+)\)", text)
        links += re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
        paths = [link.partition("#")[0] for link in links if "://" not in link]
        assert [path for path in paths if not (page.parent / path).exists()] == [], page
        assert without_dead_links(text, page.parent) == text, page
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        labels = set(re.findall(r"\]\[([^\[\]]+)\]", prose))
        assert labels <= set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE)), page


def test_dead_links_become_plain_text(tmp_path: Path) -> None:
    (tmp_path / "kept.md").write_text("# The F: `f`\n")
    text = "[a\nb](gone.md#c), ![d](gone.png), [e](kept.md#the-f-f), [g](#h), [i](https://j), "
    text += "[p](kept.md#f), [k][l], [m][n]\n\n[l]: gone/l.md#o\n[n]: kept.md\n"
    expected = (
        "a\nb, d, [e](kept.md#the-f-f), [g](#h), [i](https://j), p, k, [m][n]\n\n[n]: kept.md\n"
    )
    assert without_dead_links(text, tmp_path) == expected


def test_every_blank_is_marked_once_per_function(starter: Path) -> None:
    for blank in load_blanks():
        for file in {cut.file for cut in blank.cuts}:
            text = (starter / "cs285" / file).read_text()
            cuts = [cut for cut in blank.cuts if cut.file == file]
            assert text.count(f'raise BlankError("{blank.id}")') == len(cuts), blank.id
            assert text.count(f"# {blank.id}: ") == len(cuts)


def test_no_removed_line_is_left_anywhere(starter: Path) -> None:
    removed: set[str] = set()
    for file in starter.glob("cs285/**/*.py"):
        before = (ROOT / file.relative_to(starter)).read_text().splitlines()
        after = {line.strip() for line in file.read_text().splitlines()}
        removed |= {line.strip() for line in before} - after
    removed = {line for line in removed if len(line) >= SHORTEST and "import" not in line}
    assert len(removed) > 100
    for file in starter.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert not {line for line in removed if line in text} - COMMON, file


def test_only_files_with_blanks_differ(starter: Path) -> None:
    blanks = [*load_blanks(), omitted_with(load_blanks())]
    files = {f"cs285/{cut.file}" for blank in blanks for cut in blank.cuts}
    for file in starter.glob("cs285/**/*.py"):
        name = file.relative_to(starter).as_posix()
        assert (file.read_text() != (ROOT / name).read_text()) == (name in files), name


def test_starter_lints_and_is_formatted(starter: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [tool("ruff"), *words, "--no-cache", "."], cwd=starter, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_starter_has_types(starter: Path, tmp_path: Path) -> None:
    """The cache of the last check of this project holds the types of other packages."""
    cache = tmp_path / "cache"
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", cache)
    command = [tool("mypy"), "--cache-dir", str(cache)]
    done = subprocess.run(command, cwd=starter, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_starter_can_be_installed(starter: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(starter, tmp_path / "copy")  # setuptools writes into the folder
    words = ["wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), "."]
    done = run(copy, "-m", "pip", *words)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("cs285-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "cs285/assignment/blanks.toml" in archive.namelist()


def test_starter_prints_help_and_names_the_first_blank(starter: Path, tmp_path: Path) -> None:
    done = run(starter, "scripts/run_hw4_mb.py", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    words = ["--env_name", "obstacles-cs285-v0", "--data_dir", str(tmp_path), "--n_iter", "1"]
    done = run(starter, "scripts/run_hw4_mb.py", *words, "--num_workers", "1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "q0.iterate is not written yet; see docs/assignment.md#q0iterate" in line


def test_selected_questions_and_blanks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hw4"
    folder.mkdir()  # an empty folder may exist
    words = ["--output", str(folder), "--questions", "q0.iterate", "q1.loss"]
    assert make_starter.main(words) == 0
    assert "2 blanks, 5 points" in capsys.readouterr().out
    marked = [f for f in folder.glob("cs285/**/*.py") if "\n    raise BlankError(" in f.read_text()
        or "\n        raise BlankError(" in f.read_text()]  # fmt: skip
    assert sorted(f.name for f in marked) == ["ff_model.py", "losses.py", "rl_trainer.py"]
    graded = run(folder, "scripts/grade.py")
    assert (graded.returncode, graded.stderr) == (1, "")
    assert re.findall(r"not begun +(\S+)", graded.stdout) == ["q0.iterate", "q1.loss"]
    assert "0 of 3 points" in graded.stdout


def test_optional_blank_is_no_part_of_the_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output", str(tmp_path / "hw4"), "--questions", "q5"]
    assert make_starter.main(words) == 0
    assert "2 blanks, 6 points, about 0.6 hours; optional: q5.icem" in capsys.readouterr().out


def test_bug_hunt_plants_listed_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        words = ["--output", str(tmp_path / folder), "--bugs", "3", "--seed", str(seed)]
        assert make_starter.main(words) == 0
    outputs = capsys.readouterr().out.splitlines()[::2]
    assert outputs[0].split(": ", 1)[1] == outputs[1].split(": ", 1)[1]
    assert outputs[0].split(": ", 1)[1] != outputs[2].split(": ", 1)[1]
    changed = [
        file
        for file in (tmp_path / "one").glob("cs285/**/*.py")
        if file.read_text() != (ROOT / file.relative_to(tmp_path / "one")).read_text()
    ]
    assert 1 <= len(changed) <= 3
    assert "mistakes in 3 of its functions" in (tmp_path / "one" / "README.md").read_text()
    assert not any('raise BlankError("q' in file.read_text() for file in changed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "{full}"], "full: must be a new or an empty folder"),
        (["--output", "{full}/a_file"], "a_file: must be a new or an empty folder"),
        (["--output", "{tmp}/none/below"], "below: must be in an existing folder"),
        (["--output", str(ROOT / "cs285" / "hw4")], "hw4: must be outside the package"),
        (["--output", "{tmp}/new", "--questions", "q9"], "--questions q9: must be a question"),
        (["--output", "{tmp}/new", "--questions", "q1.los"], "did you mean q1.loss?"),
        (["--output", "{tmp}/new", "--bugs", "99"], "--bugs 99: must be from 1 to"),
        (["--output", "{tmp}/new", "--bugs", "0"], "--bugs"),
        (["--output", "{tmp}/new", "--seed", "2"], "--seed 2: must be given with --bugs"),
        ([], "--output"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a_file").write_text("kept")
    filled = [word.format(full=tmp_path / "full", tmp=tmp_path) for word in words]
    assert message in error_of(make_starter.main, filled, capsys)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a_file", "full"]


def test_starter_makes_no_starter(starter: Path, tmp_path: Path) -> None:
    words = ["-m", "cs285.scripts.make_starter", "--output", str(tmp_path / "hw5")]
    done = run(starter, *words)
    assert done.returncode == 2
    assert "must be a checkout of the finished project" in done.stderr
    assert exit_code_of(make_starter.main, ["--help"]) == 0
