"""Tests of the import layers (the contracts in pyproject.toml) and of forbidden code."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cs285"


def test_no_folder_imports_from_a_higher_layer() -> None:
    """import-linter reads every import statement, including those inside functions."""
    command = Path(sys.executable).with_name("lint-imports")
    assert command.exists(), "import-linter is missing: pip install -r requirements-dev.txt"
    result = subprocess.run([command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"[1-9]\d* kept, 0 broken", result.stdout), result.stdout


def test_no_star_imports_and_no_agent_type_checks() -> None:
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 25
    for file in files:
        text = file.read_text()
        assert "import *" not in text, file
        assert "isinstance(agent" not in text.replace("self.agent", "agent"), file
