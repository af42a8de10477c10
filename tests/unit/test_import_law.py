"""The import law by folder (the contracts in pyproject.toml), and habits that are forbidden."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cs285"


def test_no_folder_imports_from_a_higher_one() -> None:
    """Also not inside functions: import-linter reads every import statement."""
    command = Path(sys.executable).with_name("lint-imports")
    assert command.exists(), "import-linter is missing: pip install -r requirements-dev.txt"
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* kept, 0 broken", done.stdout), done.stdout


def test_forbidden_habits() -> None:
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 25
    for file in files:
        text = file.read_text()
        assert "import *" not in text, file
        assert "isinstance(agent" not in text.replace("self.agent", "agent"), file
