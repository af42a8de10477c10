"""The blanks of the learner's edition and their listed mistakes, from the two TOML files."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cs285.infrastructure.errors import OMITTED, UsageError
from cs285.infrastructure.files import read_toml

FOLDER = Path(__file__).parent
PACKAGE = FOLDER.parent
MISTAKES = "mistakes.toml"  # a starter does not have this file
CHOSEN = "chosen.toml"  # the ids of a starter's blanks, if it does not have all
# The results of a check
PASSED, WRONG, NOT_BEGUN, BLOCKED = "passed", "wrong", "not begun", "blocked"
TIMED_OUT = "timed out"
QUESTIONS = {
    "q0": "Warm-up: the training loop",
    "q1": "Is the model good?",
    "q2": "Can MPC use it?",
    "q5": "Does CEM plan better?",
    "q6": "Do imagined data help?",
}


class WrongError(Exception):
    """A check found a wrong result; the message says what was expected and what came."""


@dataclass(frozen=True)
class Cut:
    """A function whose body, or a part of it, is removed."""

    file: str  # relative to the package
    function: str  # its qualified name
    after: str | None = None  # the first line of the statement before the part; None: all
    statements: int | None = None  # their number; None: up to the end of the body
    task: str = ""  # what to write here, if the blank has several parts


@dataclass(frozen=True)
class Blank:
    """One exercise."""

    id: str
    minutes: int
    points: int
    hints: Sequence[str]
    cuts: Sequence[Cut]
    needs: Sequence[str] = ()
    task: str = ""  # what to write

    @property
    def question(self) -> str:
        """The question that the blank belongs to, for example q1."""
        return self.id.split(".")[0]

    @property
    def is_optional(self) -> bool:
        """Whether the blank has no points."""
        return self.points == 0


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: a replacement in the finished code of a blank."""

    blank: str
    old: str  # occurs once in the functions of the blank
    new: str
    message: str  # a part of the check's message


@functools.cache
def load_blanks() -> tuple[Blank, ...]:
    """Return all blanks, in the order of the questions."""
    table = read_toml(FOLDER / "blanks.toml")["blank"]
    return tuple(
        Blank(**{**entry, "cuts": tuple(Cut(**cut) for cut in entry["cuts"])}) for entry in table
    )


def omitted_with(blanks: Sequence[Blank]) -> Blank:
    """Return the functions that a starter with `blanks` lacks, because they repeat answers.

    They are the cuts of a blank that is not listed and cannot be graded.
    """
    ids = {blank.id for blank in blanks}
    cut = {(each.file, each.function) for blank in blanks for each in blank.cuts}
    cuts = [
        Cut(entry["file"], entry["function"])
        for entry in read_toml(FOLDER / "blanks.toml")["omitted"]
        if ids & set(entry["reveals"]) and (entry["file"], entry["function"]) not in cut
    ]
    return Blank(OMITTED, 0, 0, (), cuts, task="This function repeats an answer.")


def load_mistakes() -> list[Mistake]:
    """Return the listed wrong answers. Raises OSError: this tree is a starter, without them."""
    return [Mistake(**entry) for entry in read_toml(FOLDER / MISTAKES)["mistake"]]


def choose_blanks(names: Sequence[str]) -> list[Blank]:
    """Return the blanks with these ids or of these questions; without names, all of this tree.

    Raises UsageError: a name is neither.
    """
    blanks = load_blanks()
    known = [*QUESTIONS, *(blank.id for blank in blanks)]
    if not names and (FOLDER / CHOSEN).exists():
        names = read_toml(FOLDER / CHOSEN)["blanks"]
    for name in names:
        if name not in known:
            (near,) = difflib.get_close_matches(name, known, 1, 0.0)
            raise UsageError(
                f"{name}: must be a question ({', '.join(QUESTIONS)}) or the id of a blank; "
                f"did you mean {near}?"
            )
    return [blank for blank in blanks if not names or {blank.id, blank.question} & {*names}]
