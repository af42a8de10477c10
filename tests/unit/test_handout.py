"""Tests that docs/assignment.md agrees with the blanks, and that its commands are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cs285.assignment import notebook
from cs285.assignment.blanks import QUESTIONS, choose_blanks, load_blanks
from cs285.assignment.source import function_of
from cs285.config.flags import OneLineParser, add_flags, from_flat, parse_values
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.experiments.suites import read_experiments
from cs285.infrastructure.errors import UsageError
from cs285.models import losses

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "assignment.md").read_text()


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]


RUNS = [words for words in commands() if words[1].startswith("scripts/run_hw4_")]


def config_of(words: list[str]) -> Any:
    """Return the config of a run's command."""
    configs: dict[str, Any] = {"mb": MBConfig, "mbpo": MBPOConfig}
    config = configs[words[1].removeprefix("scripts/run_hw4_").removesuffix(".py")]
    parser = OneLineParser(prog="test")
    add_flags(parser, config)
    return from_flat(config, parse_values(parser, words[2:]))


@pytest.mark.parametrize("words", RUNS, ids=lambda words: words[3])
def test_runs_have_valid_flags(words: list[str]) -> None:
    assert config_of(words).run.env_name


def test_every_question_has_a_quick_run_and_the_runs_of_the_homework() -> None:
    names = [words[3] for words in RUNS]
    for question in ("q1", "q2", "q3", "q4", "q5", "q6"):
        assert any(name.startswith(f"quick_{question}") for name in names)
        assert any(name.startswith(f"{question}_") for name in names)


def test_quick_runs_are_those_with_results() -> None:
    on_page = {words[3]: words for words in RUNS if words[3].startswith("quick_")}
    listed = {e.name: e for e in read_experiments("quick") if e.name != "quick_tour"}
    assert on_page.keys() == listed.keys()
    for name, words in on_page.items():
        assert config_of(words) == config_of([*listed[name].command(1), "--exp_name", name])


def test_commands_name_scripts_that_exist() -> None:
    assert len(commands()) > len(RUNS) + 8
    for words in commands():
        assert words[1] == "-c" or (ROOT / words[1]).exists(), words


def test_every_blank_has_its_heading_and_its_row() -> None:
    headings = re.findall(r"^#### (\S+)$", PAGE, re.M)
    assert headings == [blank.id for blank in load_blanks()]
    rows = re.findall(
        r"^\| \[(\S+)\]\(#(\w+)\) \| (.*?) \| (\d+) \| (\d+) \| (.*?) ?\|$", PAGE, re.M
    )
    assert rows == [
        (
            blank.id,
            blank.id.replace(".", ""),
            ", ".join(dict.fromkeys(f"`{cut.file}`" for cut in blank.cuts)),
            str(blank.minutes),
            str(blank.points),
            ", ".join(blank.needs),
        )
        for blank in load_blanks()
    ]
    assert {blank.question for blank in load_blanks()} == {*QUESTIONS}


def test_answer_in_the_notebook_replaces_the_function_only_if_it_passes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (blank,) = choose_blanks(["q1.loss"])
    functions = [function_of(cut) for cut in blank.cuts]
    before = [function.__code__ for function in functions]
    scope: dict[str, Any] = {"use": notebook.use}
    exec("from cs285.infrastructure.errors import BlankError", scope)
    lines = ["from __future__ import annotations", notebook.answer_cell(blank, is_finished=False)]
    exec("\n".join(lines), scope)
    assert capsys.readouterr().out == "not begun  q1.loss\n"
    finished = notebook.answer_cell(blank, is_finished=True)
    exec(f"{lines[0]}\n{finished.replace('.mean(1)', '.sum(1)', 1)}", scope)
    assert "wrong  q1.loss: mse (E, D)" in capsys.readouterr().out
    assert losses.mse.__code__ is before[0]
    assert "BlankError" not in vars(losses)
    try:
        helper = "def _mean(errors):\n    return errors.mean(1)"
        body = finished.replace(
            "(means - targets).square().mean(1)", "_mean((means - targets) ** 2)"
        )
        exec(f"{lines[0]}\n{helper}\n{body}", scope)
        assert capsys.readouterr().out == "passed  q1.loss\n"
        assert losses.mse.__code__ is not before[0]
    finally:
        for function, code in zip(functions, before, strict=True):
            function.__code__ = code
        del vars(losses)["_mean"]
    with pytest.raises(UsageError, match="functions mse, loss"):
        notebook.use("q1.loss", lambda: None)
    notebook.hint("q1.loss", 2)
    assert "mse" in capsys.readouterr().out
