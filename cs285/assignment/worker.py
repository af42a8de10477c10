"""Run checks in a process of their own: `python -m cs285.assignment.worker`, for grading.py.

The request is one line of JSON on stdin. stdout gets one line of JSON when the process is ready,
and one per check. What the learner's code prints goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from types import TracebackType

from cs285.assignment.blanks import (
    BLOCKED,
    FOLDER,
    NOT_BEGUN,
    PACKAGE,
    PASSED,
    WRONG,
    Blank,
    WrongError,
    choose_blanks,
)
from cs285.infrastructure.errors import BlankError, one_line


def main() -> None:
    """Answer the request on stdin."""
    request = json.loads(sys.stdin.readline())
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # prints of the learner's code must not look like results

    def answer(**values: str) -> None:
        results.write(json.dumps({"key": request["key"], **values}) + "\n")
        results.flush()

    import torch  # noqa: F401  # takes seconds, which are not a check's

    for name, value in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    answer(package=str(PACKAGE))
    for name in request["blanks"]:
        (blank,) = choose_blanks([name])
        status, message = judge(blank)
        answer(blank=name, status=status, message=one_line(message))


def judge(blank: Blank) -> tuple[str, str]:
    """Run the check of a blank; return its status and a message.

    For `blocked`, the message is the id of the blank, or the file, that the check cannot do
    without.
    """
    question, name = blank.id.split(".")
    files = {(PACKAGE / cut.file).as_posix() for cut in blank.cuts}
    try:
        module = importlib.import_module(f"cs285.assignment.checks.{question}")
    except BaseException as error:
        file, text = _describe(error)
        return (WRONG if file in files else BLOCKED), text
    try:
        getattr(module, name)()
    except BlankError as error:
        other = str(error.args[0])
        return (NOT_BEGUN, "") if other == blank.id else (BLOCKED, other)
    except WrongError as error:
        return WRONG, str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        return WRONG, _describe(error)[1]
    return PASSED, ""


def _describe(error: BaseException) -> tuple[str, str]:
    """Return the file of an exception, and "FILE:LINE: TYPE: MESSAGE" for the learner."""
    if isinstance(error, SyntaxError):
        file, line, reason = error.filename or "", error.lineno or 0, f"{error.msg}"
    else:
        file, line = _place(error.__traceback__)
        reason = str(error)
    in_package = Path(file).is_relative_to(PACKAGE)
    place = f"{Path(file).relative_to(PACKAGE.parent)}:{line}: " if in_package else ""
    return Path(file).as_posix(), f"{place}{type(error).__name__}: {reason}"


def _place(trace: TracebackType | None) -> tuple[str, int]:
    """Return the file and line of the innermost frame in the package, but not in its checks."""
    for frame in reversed(traceback.extract_tb(trace)):
        file = Path(frame.filename)
        if file.is_relative_to(PACKAGE) and not file.is_relative_to(FOLDER):
            return frame.filename, frame.lineno or 0
    return "", 0


if __name__ == "__main__":
    main()
