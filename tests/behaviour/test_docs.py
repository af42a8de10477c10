"""Test that docs/flags.md lists every flag, and that the code of docs/python.md runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from cs285.config.flags import defaults
from cs285.config.mbpo import MBPOConfig
from cs285.config.pilco import PilcoConfig

ROOT = Path(__file__).parents[2]


def test_every_flag_is_in_the_list_by_theme() -> None:
    page = (ROOT / "docs" / "flags.md").read_text()
    listed = set(re.findall(r"`--(\w+)`", page))
    assert listed - {"help"} == {*defaults(MBPOConfig), *defaults(PilcoConfig), "preset",
        "resume", "checkpoint", "trust", "dry_run",
    }  # fmt: skip


def test_the_python_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
