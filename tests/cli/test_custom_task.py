"""Test of the example in docs/custom_task.md, with the exact code of the page."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "custom_task.md").read_text()


def block(language: str) -> str:
    """Return the first code block of the page in a language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.S)
    assert found
    return found[1]


def test_example_is_short_and_learns(tmp_path: Path) -> None:
    code = block("python")
    assert len(code.strip().splitlines()) < 30
    (tmp_path / "cart.py").write_text(code)
    setting, python, script, *flags = shlex.split(block("bash").replace("\\\n", ""))
    assert (setting, python) == ("PYTHONPATH=.", "python")
    run = subprocess.run(
        [sys.executable, REPO / script, *flags, "--data_dir", "data"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (folder,) = (tmp_path / "data").iterdir()
    assert folder.name.startswith("hw4_todo_cart-Cart-v0_")
    with (folder / "progress.csv").open(newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    random = float(last["Initial_DataCollection_AverageReturn"])
    assert float(last["Eval_AverageReturn"]) > 0.5 * random  # both returns are negative
