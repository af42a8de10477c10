"""The README's commands are real, and the package carries what it needs."""

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cs285.infrastructure.config import MBConfig
from cs285.infrastructure.flags import OneLineParser, add_flags, from_flat, parse_values

ROOT = Path(__file__).parents[2]


def readme_commands() -> list[list[str]]:
    """Return every run_hw4_mb.py command of the README, continuation lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if "run_hw4_mb.py" in line]


@pytest.mark.parametrize("words", readme_commands(), ids=lambda words: " ".join(words[4:6]))
def test_command_parses(words: list[str]) -> None:
    assert words[:2] == ["python", "scripts/run_hw4_mb.py"]
    parser = OneLineParser(prog="test")
    add_flags(parser, MBConfig)
    assert from_flat(MBConfig, parse_values(parser, words[2:])).run.env_name  # type: ignore[attr-defined]


def test_readme_has_every_question() -> None:
    names = " ".join(" ".join(words) for words in readme_commands())
    assert all(f"q{number}_" in names for number in (1, 2, 3, 4, 5))


@pytest.mark.parametrize("file", ["README.md", "results/README.md", "docs/architecture.md"])
def test_links_lead_somewhere(file: str) -> None:
    text = (ROOT / file).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert ((ROOT / file).parent / link).exists(), link


def test_wheel_holds_the_assets_and_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("cs285-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert b"hw4-mb = cs285.scripts.run_hw4_mb:main" in archive.read(entry_points)
    assert "cs285/envs/reacher/assets/reacher.xml" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "scripts"))]
