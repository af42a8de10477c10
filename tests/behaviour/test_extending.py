"""Test that every example of docs/extending.md runs unchanged and is short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import arguments

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", PAGE, re.M | re.S)
AGENT = "An agent"
SCRIPTS = {AGENT: "hill_climber.py", "A part in a whole run": "my_mb.py"}  # they train
MOST_LINES = 40  # maximum number of code lines, without imports


@pytest.mark.parametrize(("title", "code"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_example(title: str, code: str, tmp_path: Path) -> None:
    lines = [
        line for line in code.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    is_import = re.compile(r"(import|from) ")
    assert len([line for line in lines if not is_import.match(line)]) <= MOST_LINES
    file = tmp_path / SCRIPTS.get(title, "example.py")
    file.write_text(code)
    flags = {
        "env_name": "Pendulum-v1",
        "n_iter": 3,
        "batch_size_initial": 200,
        "batch_size": 200,
        "eval_batch_size": 200,
        "num_workers": 1,
        "data_dir": tmp_path,
    }
    command = [sys.executable, str(file), *(arguments(**flags) if title in SCRIPTS else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if title == AGENT:
        (folder,) = tmp_path.glob("hw4_*")
        assert "Best Return" in (folder / "progress.csv").read_text()


def test_there_are_seven_examples() -> None:
    assert len(SECTIONS) == 7
