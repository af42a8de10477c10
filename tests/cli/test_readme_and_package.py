"""Tests of the commands and links in the documentation, and of the contents of the package."""

import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cs285.assignment.starter import anchors
from cs285.config import presets
from cs285.config.flags import OneLineParser, add_flags, from_flat, parse_values
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig

ROOT = Path(__file__).parents[2]
DOCS = sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))


def readme_commands() -> list[list[str]]:
    """Return the README's commands that start a training run, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        shlex.split(line, comments=True)
        for line in lines
        if line.startswith("python scripts/run_hw4_mb") and "--resume" not in line
    ]


@pytest.mark.parametrize("words", readme_commands(), ids=lambda words: " ".join(words[4:6]))
def test_readme_command_has_valid_flags(words: list[str]) -> None:
    configs: dict[str, Any] = {"mb": MBConfig, "mbpo": MBPOConfig}
    assert words[0] == "python"
    agent = words[1].removeprefix("scripts/run_hw4_").removesuffix(".py")
    parser = OneLineParser(prog="test")
    add_flags(parser, configs[agent])
    presets.add_flag(parser)
    values = presets.expand(agent, configs[agent], parse_values(parser, words[2:]))
    assert from_flat(configs[agent], values).run.env_name


def test_readme_has_a_command_for_every_question() -> None:
    names = " ".join(" ".join(words) for words in readme_commands())
    assert all(f"q{number}_" in names for number in range(1, 7))


@pytest.mark.parametrize(
    "file", ["README.md", "results/README.md", "results/history.md", "CHANGELOG.md", *DOCS]
)
def test_links_have_a_target(file: str) -> None:
    text = (ROOT / file).read_text()
    definitions = re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for link in [*re.findall(r"\]\(([^)]+)\)", text), *definitions]:
        if link.startswith("https://"):  # tests do not use the network
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / file).parent / path if path else ROOT / file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_wheel_contains_the_assets_and_the_commands(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("cs285-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        modules = {"mb": "run_hw4_mb", "mbpo": "run_hw4_mbpo", "pilco": "run_pilco"}
        for name, module in (modules | {"sweep": "sweep", "evaluate": "evaluate"}).items():
            entry = f"hw4-{name} = cs285.scripts.{module}:main"
            assert entry.encode() in archive.read(entry_points)
    assert "cs285/envs/reacher/assets/reacher.xml" in names
    assert "cs285/config/presets/mbpo_hopper.toml" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "scripts"))]


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "setup.py", *(file.name for file in ROOT.glob("requirements*.txt"))]
)
def test_files_named_in_the_package_metadata_exist(file: str) -> None:
    text = (ROOT / file).read_text()
    names = re.findall(r"[\w./-]+\.(?:ipynb|md|py|sh|toml|txt|xml)\b|\b[a-z]+/(?=\*\*|\s)", text)
    elsewhere = {"__init__.py", "half_cheetah.xml"}  # in cs285 and Gymnasium
    assert [name for name in names if not (ROOT / name).exists() and name not in elsewhere] == []
    for package, pattern in re.findall(r'"(cs285[\w.]*)": \["([^"]+)"', text):  # package_data
        assert list((ROOT / package.replace(".", "/")).glob(pattern)), pattern
    assert "DESIGN" not in text  # that document is not in the repository


def test_docs_explain_every_metric(run_tiny_mbpo: Callable[..., Path]) -> None:
    """The header of progress.csv includes metrics that are first logged after iteration 0."""
    explained = (ROOT / "docs" / "metrics.md").read_text()
    folder = run_tiny_mbpo(
        mbpo_eval_planner=True,
        learned_reward=True,
        termination="learned",
        model="probabilistic",
        n_layers=1,
    )
    names = (folder / "progress.csv").read_text().splitlines()[0].split(",")[1:]
    assert len(names) > 36
    for name in names:
        spelled = name.replace("Planner_Eval_", "Planner_Eval_*#").split("#")[0]
        if name.startswith("Train_") and name.endswith("Return"):
            spelled = "Train_AverageReturn"
        assert f"`{spelled}`" in explained, name
