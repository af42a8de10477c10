"""Test that the notebooks run in a fresh kernel and are committed without outputs."""

import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from cs285.assignment.blanks import choose_blanks
from cs285.assignment.notebook import answer_cell, make_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONG = ("pilco",)
MEASURED = "study/model_error.csv"
SECONDS, BYTES = 600, 100_000  # a busy machine needs several times the quiet time

all_notebooks = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the notebooks and results, with this Python registered as the kernel."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    description = {"argv": words, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(description))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for folder in ("notebooks", "results"):
        shutil.copytree(ROOT / folder, tmp_path / "copy" / folder)
    return tmp_path / "copy"


def run(notebook: Path, folder: Path) -> list[Any]:
    """Run a notebook in `folder` and return its code cells."""
    content = nbformat.read(notebook, 4)
    for cell in content.cells:
        if "blank" in cell.metadata:  # the suite fills the exercises
            (blank,) = choose_blanks([cell.metadata.blank])
            cell.source = answer_cell(blank, is_finished=True)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(content, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    return [cell for cell in content.cells if cell.cell_type == "code"]


def count_pictures(cells: list[Any]) -> int:
    outputs = [output for cell in cells for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_all_notebooks_are_found() -> None:
    assert [file.stem for file in NOTEBOOKS] == [
        "agent",
        "assignment_q1_q2",
        "model_error",
        "pilco",
        "results",
        "train",
    ]


def test_assignment_notebook_matches_the_handout_and_the_code() -> None:
    """`python -m cs285.assignment.notebook` writes it again."""
    file = ROOT / "notebooks" / "assignment_q1_q2.ipynb"
    assert json.loads(file.read_text()) == make_notebook()
    source = file.read_text()
    assert (
        source.count("raise BlankError(")
        == sum(len(blank.cuts) for blank in choose_blanks(["q1", "q2"])) + 1
    )  # and the explanation


@all_notebooks
def test_notebook_is_committed_clean(file: Path) -> None:
    assert file.stat().st_size < BYTES
    content = nbformat.read(file, 4)
    nbformat.validate(content)
    assert content.metadata.kernelspec.name == "python3"
    assert [cell.cell_type for cell in content.cells[:2]] == ["markdown", "code"]
    paths = ("/home/", str(ROOT))
    assert not any(path in cell.source for cell in content.cells for path in paths)
    for cell in content.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=[pytest.mark.long] * (file.stem in LONG), id=file.stem)
        for file in NOTEBOOKS
    ],
)
def test_notebook_runs(file: Path, copy: Path) -> None:
    if file.stem == "model_error" and not (copy / "results" / MEASURED).exists():
        pytest.skip(f"results/{MEASURED} has not been made")
    started = time.monotonic()
    cells = run(file, copy / "notebooks")
    assert time.monotonic() - started < SECONDS
    assert count_pictures(cells) >= 3
    for cell in cells:
        if "blank" in cell.metadata:
            assert [o.text for o in cell.outputs] == [f"passed  {cell.metadata.blank}\n"]
    errors = [o.text for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
    # Matplotlib reports that it builds its font cache on its first start.
    assert not [text for text in errors if "font cache" not in text]
    for cell in cells:
        if "\nprint(printed" in cell.source:  # the last line of a run
            text = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
            assert re.match(r"iteration (\d+) of \1: return", text)
    assert sorted(path.name for path in copy.iterdir()) == ["notebooks", "results"]


def test_missing_measurements_are_an_error_with_the_command_to_create_them(copy: Path) -> None:
    (copy / "results" / MEASURED).unlink(missing_ok=True)
    with pytest.raises(CellExecutionError) as caught:
        run(copy / "notebooks" / "model_error.ipynb", copy)
    assert caught.value.ename == "UsageError"
    assert "python results/model_error_study.py" in caught.value.evalue
