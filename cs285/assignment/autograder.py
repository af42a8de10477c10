"""The files of Gradescope's autograder: two scripts and the finished checkout."""

from __future__ import annotations

from collections.abc import Sequence

from cs285.assignment.blanks import choose_blanks
from cs285.assignment.starter import CHECKOUT, FILES, check_is_finished, copied_files

SETUP = """#!/usr/bin/env bash
# Gradescope runs this once, to build the image.
set -euo pipefail
apt-get update
apt-get install --yes python3 python3-venv
cd "${AUTOGRADER:-/autograder}/source"
# The wheels for CPUs are several GB smaller.
export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
./install.sh
.venv/bin/python -m compileall -q cs285
"""

RUN = """#!/usr/bin/env bash
# Gradescope runs this for each submission.
cd "${AUTOGRADER:-/autograder}/source"
.venv/bin/python scripts/grade.py NAMES --submission ../submission \\
  --results ../results/results.json --user "${GRADER_USER:-nobody}"
code=$?
if [[ ! -e ../results/results.json ]]; then
  echo '{"score": 0, "output": "The autograder failed. Please tell the instructors."}' \\
    >../results/results.json
  exit "$code"
fi
"""


def files_of_autograder(names: Sequence[str]) -> dict[str, bytes]:
    """Return the content of the zip by the names of its files, for questions or blanks `names`.

    Raises UsageError: this is not the finished checkout.
    """
    check_is_finished(choose_blanks([]))
    files = [*copied_files(("cs285", "scripts")), *(CHECKOUT / name for name in FILES)]
    files.append(CHECKOUT / "README.md")  # setup.py reads it
    content = {file.relative_to(CHECKOUT).as_posix(): file.read_bytes() for file in files}
    run = RUN.replace("NAMES ", "".join(f"{name} " for name in names))
    scripts = {"setup.sh": SETUP, "run_autograder": run}
    return {**{name: text.encode() for name, text in scripts.items()}, **content}
