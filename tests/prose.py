"""Check the words and the line width of everything a person reads: `python -m tests.prose`.

ruff checks the width of Python lines. This script also checks Markdown, TOML, shell scripts and
requirements. In all of them and in Python, it looks for phrases that make text hard to read, each
with what to write instead. A phrase may continue on the next line.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 100
CHECKED = {".md", ".py", ".toml", ".sh", ".ipynb", ".txt"}
GENERATED = {"results/README.md", "results/benchmarks/README.md"}  # their tables may be wider
# A phrase (a regular expression), and what to write instead.
BANNED = {
    r"(is|are|was|were) (said|told)\b": "print, warn, log, report or raise",
    r"\b(that|those|the same) of\b": "repeat the noun",
    r"\ballowed (is|are)\b|; allowed\b|\bis allowed\b": "must be",
    r"\bpassed over\b": "skipped",
    r"\bbrings? along\b": "sets",
    r"\b(goes|go|went) on (with|from|where)\b": "continues",
    r"\banew\b": "again",
    r"\bfor ever\b": "forever, or without end",
    r"\bbeside each other\b": "in parallel",
    r"\b(is|are) to be\b": "must be, or will be",
    r"\bbefalls?\b": "happens to",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bwithout a word\b": "silently",
    r"\bwhat (there )?is to say\b": "say what",
    r"\bcame? of (it|that|which)\b": "resulted",
    r"\b(goes|go) together in time\b": "is temporally correlated (coloured)",
    r"\bas far as (it|they|these|is|are)\b": "if known",
    r"\bis no more\b": "no longer exists",
    r"\bof (which|whose) (the|one|a|there)\b": "start a new sentence",
    r"\bso many\b": "a number of, or N",
    r"\bone of its own\b": "its own",
    r"\bas it (is|stands)\b": "unchanged",
    r"\bbeside\b": "next to, besides, or apart from",
    r"\b(is|are) (waited|judged|bootstrapped from)\b": "say who does it",
    r"\bevery how many\b": "number of ... between two ...",
    r"(\bwith|,) as many (?!as\b)": "the same number of",
    r"\ball that (it|they)\b": "all ... that",
    r"(?<!up\s)\bto (its|their) end\b": "completely, or until it ends",
    r"\bdo(es)? not either\b": "repeat the verb",
    r"\bhow (many|much) (it|there)\b|\bwhat (it|they) reach(es)?\b": "name the quantity",
    r"\bcame? about\b": "was found, or happened",
    r"\bdealt out\b|\bmove[ds]? on\b": "reassigned, or shifted",
    r"\bseed of everything\b|\bwhatever `?--": "all ..., or every ...",
    r"\bmakes? (half|one|two|\d+) (the )?updates?\b": "does ... updates",
    r"\berrs\b|\berr (about|almost|by|most|twice)\b": "has an error of",
    r"^For users\b": "This page is for users",
    r"\bthis page answers (how|what)\b": "This page explains",
    r"\. Writes\b": "The script writes",
    r"\braises \w+Error\.": "say when",
    r"\bends count\b|\bend of an imagined\b|\bignores? (the )?ends\b": "termination",
    r"\bimagined episodes? ends?\b": "terminates",
    r"\bGaussian members?\b": "probabilistic members",
    r"^\W*##+ (Run|Build|Understand|Does|What|How|Which)\b": "a noun phrase",
}
LINE_END = r"[ \t]*(?:\\n)?[\"',]*\n[^\w\n]*"  # with quotes and comment signs around it
PATTERN = re.compile(
    "|".join(
        f"(?P<p{number}>{phrase.replace(' ', f'(?: |{LINE_END})')})"
        for number, phrase in enumerate(BANNED)
    ),
    re.IGNORECASE | re.MULTILINE,
)


def problems(file: Path) -> list[str]:
    """Return a line per problem of a file."""
    text, name, found = file.read_text(), file.relative_to(ROOT), []
    for number, line in enumerate(text.splitlines(), start=1):
        is_table = name.as_posix() in GENERATED and line.lstrip().startswith("|")
        is_link = re.fullmatch(r"\S*\s*\S*https?://\S+", line.strip()) is not None
        narrow = file.suffix in {".md", ".toml", ".sh", ".txt"} and not (is_table or is_link)
        if narrow and len(line) > WIDTH:
            found.append(f"{name}:{number}: {len(line)} columns; must be at most {WIDTH}")
    for match in PATTERN.finditer(text):
        number = text.count("\n", 0, match.start()) + 1
        instead = list(BANNED.values())[int(match.lastgroup[1:])] if match.lastgroup else ""
        found.append(f'{name}:{number}: "{" ".join(match[0].split())}"; write: {instead}')
    return found


def main() -> int:
    """Print every problem of the tracked files, and return 1 if there is one."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    files = [ROOT / name for name in listed if Path(name).suffix in CHECKED]
    checked = [file for file in files if file.exists() and file != Path(__file__)]
    found = [line for file in checked for line in problems(file)]
    print("\n".join([*found, f"{len(found)} prose problems"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
