"""Make a starter: a copy of this checkout with blanks, or with planted mistakes."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from cs285.assignment.blanks import (
    CHOSEN,
    FOLDER,
    MISTAKES,
    PACKAGE,
    Blank,
    Mistake,
    load_blanks,
    load_mistakes,
    omitted_with,
)
from cs285.assignment.source import cut_blanks, is_begun, module_of, plant
from cs285.cli.outputs import FOLDER as WRITABLE
from cs285.cli.outputs import writing
from cs285.cli.script import temporary_beside
from cs285.infrastructure.errors import UsageError

CHECKOUT = PACKAGE.parent
FOLDERS = ("cs285", "docs", "scripts")
FILES = (
    ".gitignore",
    "LICENSE",
    "install.sh",
    "pyproject.toml",
    "requirements.txt",
    "requirements-dev.txt",
    "run_hw4.sh",
    "setup.py",
)
SUFFIXES = {".md", ".py", ".toml", ".typed", ".xml"}
LEFT_OUT = {  # for instructors, or with answers
    f"cs285/assignment/{MISTAKES}",
    "docs/model_error.md",
    "scripts/make_autograder.py",
    "scripts/make_starter.py",
}
# A blank leaves imports and variables that its answer uses, or uses variables that it defines.
IGNORED = '["F401", "F821", "F841", "RUF059"]'
UNCHECKED = 'disable_error_code = ["name-defined", "var-annotated"]'
README = """# Homework 4

Start with [docs/assignment.md](docs/assignment.md). Every `raise BlankError(...)` in `cs285/` is an
exercise.

```bash
./install.sh                              # a few minutes
source .venv/bin/activate
python scripts/grade.py                   # checks all blanks, in seconds
python scripts/grade.py q1.loss --hint    # an idea; --hint 2: the operation, too
```
"""

BUGS_README = """# Find the bug

This copy of homework 4 has mistakes in COUNT of its functions. Find them by their effect: run the
quick runs of [docs/assignment.md](docs/assignment.md), compare their values with the stated ones,
and look at the figures in the log folders. Then confirm what you found:

```bash
./install.sh                       # a few minutes
source .venv/bin/activate
python scripts/grade.py q1.loss    # a function that you suspect
python scripts/grade.py            # all of them
```
"""


def make_starter(output: Path, blanks: Sequence[Blank]) -> None:
    """Copy this checkout to a new folder and cut the blanks from the copy.

    The copy has no tests, benchmarks, results or history, which hold parts of the answers.

    Raises UsageError: the folder is not empty, or this is not the finished checkout.
    """
    cuts = [*blanks, omitted_with(blanks)]
    cut = {file: cut_blanks(text, file, cuts) for file, text in _finished_texts(cuts).items()}
    if len(blanks) < len(load_blanks()):
        cut[f"assignment/{CHOSEN}"] = f"blanks = {json.dumps([blank.id for blank in blanks])}\n"
    _write(output, cut, README)


def make_bug_hunt(output: Path, blanks: Sequence[Blank], count: int, seed: int) -> list[Mistake]:
    """Copy this checkout to a new folder, with a listed mistake in `count` of the blanks.

    Returns the mistakes. Raises UsageError: `count` is too large; or as `make_starter`.
    """
    if not 1 <= count <= len(blanks):
        raise UsageError(f"--bugs {count}: must be from 1 to {len(blanks)}, the number of blanks")
    texts, draw = _finished_texts(blanks), random.Random(seed)
    listed, planted = load_mistakes(), []
    for blank in draw.sample(list(blanks), count):
        mistake = draw.choice([each for each in listed if each.blank == blank.id])
        texts = {file: plant(text, file, blank, mistake) for file, text in texts.items()}
        planted.append(mistake)
    _write(output, texts, BUGS_README.replace("COUNT", str(count)))
    return planted


def check_is_finished(blanks: Sequence[Blank]) -> None:
    """Raise UsageError if this tree is a starter, or a package without the checkout around it."""
    texts = {cut.file: (PACKAGE / cut.file).read_text() for b in blanks for cut in b.cuts}
    is_whole = all(is_begun(texts[cut.file], cut, b.id) for b in blanks for cut in b.cuts)
    if not is_whole or not (FOLDER / MISTAKES).exists() or not (CHECKOUT / "setup.py").exists():
        raise UsageError(f"{CHECKOUT}: must be a checkout of the finished project, not a starter")


def _finished_texts(blanks: Sequence[Blank]) -> dict[str, str]:
    """Return the texts of the files with blanks, by their names in the package."""
    check_is_finished(blanks)
    return {cut.file: (PACKAGE / cut.file).read_text() for b in blanks for cut in b.cuts}


def _write(output: Path, texts: dict[str, str], readme: str) -> None:
    """Write the copy, with `texts` in place of some files of the package, and its README.md."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"--output {output}: must be a new or an empty folder")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"--output {output}: must be in an existing folder")
    if output.absolute().resolve().is_relative_to(PACKAGE.resolve()):
        raise UsageError(f"--output {output}: must be outside the package")
    with writing(f"--output {output}", WRITABLE), temporary_beside(output.absolute()) as target:
        for file in copied_files(FOLDERS):
            if file.relative_to(CHECKOUT).as_posix() not in LEFT_OUT:
                _copy(file, target)
        for name in FILES:
            _copy(CHECKOUT / name, target)
        for name, text in texts.items():
            (target / "cs285" / name).write_text(text)
        (target / "README.md").write_text(readme)
        for page in sorted((target / "docs").glob("*.md")):
            page.write_text(without_dead_links(page.read_text(), page.parent))
        settings = target / "pyproject.toml"
        modules = sorted(name for name in texts if name.endswith(".py"))
        settings.write_text(_settings(settings.read_text(), modules))
        target.replace(output)


def copied_files(folders: Sequence[str]) -> list[Path]:
    """Return the files of the project in these folders of the checkout, without runs and caches."""

    def is_copied(file: Path) -> bool:
        name = file.relative_to(CHECKOUT)
        is_hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
        is_run = name.parts[:2] == ("cs285", "data")
        return name.suffix in SUFFIXES and not is_hidden and not is_run

    return [f for folder in folders for f in sorted((CHECKOUT / folder).rglob("*")) if is_copied(f)]


def without_dead_links(text: str, folder: Path) -> str:
    """Return the text of a page in `folder`, with plain text for links that lead nowhere.

    These are links to files that do not exist, and to headings that another page does not have. A
    reference link must be written `[text][label]`.
    """

    def is_dead(link: str) -> bool:
        path, _, anchor = link.partition("#")
        file = folder / path
        if "://" in link or not path:
            return False
        is_page = bool(anchor) and file.suffix == ".md"
        return not file.exists() or (is_page and anchor not in anchors(file.read_text()))

    def plain(match: re.Match[str]) -> str:
        return match[1] if is_dead(match[2]) else match[0]

    text = re.sub(r"!?\[([^\[\]]*)\]\(([^()\s]+)\)", plain, text)
    for label, link in re.findall(r"^\[([^\[\]]+)\]: (\S+)$", text, re.MULTILINE):
        if is_dead(link):
            text = text.replace(f"[{label}]: {link}\n", "")
            text = re.sub(rf"\[([^\[\]]*)\]\[{re.escape(label)}\]", r"\1", text)
    return text


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _copy(file: Path, target: Path) -> None:
    copy = target / file.relative_to(CHECKOUT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, copy)


def _settings(text: str, files: Sequence[str]) -> str:
    """Return pyproject.toml for a copy: the linters accept what blanks leave behind."""
    section = "[tool.ruff.lint.per-file-ignores]\n"
    folders = 'files = ["cs285", "scripts", "benchmarks", "results"]'
    assert text.count(section) == text.count(folders) == 1
    ignores = "".join(f'"cs285/{file}" = {IGNORED}\n' for file in files)
    text = text.replace(section, section + ignores).replace(folders, 'files = ["cs285", "scripts"]')
    modules = ", ".join(f'"{module_of(file)}"' for file in files)
    return text + f"\n[[tool.mypy.overrides]]\nmodule = [{modules}]\n{UNCHECKED}\n"
