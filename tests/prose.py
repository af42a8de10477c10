"""Check the words and the line width of everything a person reads: `python -m tests.prose`.

ruff checks the width of Python lines. This adds Markdown, TOML and shell scripts, and a short list
of phrases that make text hard to read, each with what to write instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 100
CHECKED = {".md", ".py", ".toml", ".sh", ".ipynb"}
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
}
PATTERN = re.compile("|".join(f"(?P<p{number}>{phrase})" for number, phrase in enumerate(BANNED)))


def problems(file: Path) -> list[str]:
    """Return a line per problem of a file."""
    found, fence = [], False
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        where = f"{file.relative_to(ROOT)}:{number}"
        fence ^= line.lstrip().startswith("```")
        is_table = line.lstrip().startswith(("|", "> |"))
        is_link = re.fullmatch(r"\S*\s*\S*https?://\S+", line.strip()) is not None
        narrow = file.suffix in {".md", ".toml", ".sh"} and not (is_table or is_link)
        if narrow and len(line) > WIDTH:
            found.append(f"{where}: {len(line)} columns; must be at most {WIDTH}")
        for match in PATTERN.finditer(line):
            instead = list(BANNED.values())[int(match.lastgroup[1:])] if match.lastgroup else ""
            found.append(f'{where}: "{match[0]}"; write: {instead}')
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
    print("\n".join([*found, f"{len(found)} problems of prose"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
