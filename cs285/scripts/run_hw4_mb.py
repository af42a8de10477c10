"""Train the model-based agent: an ensemble dynamics model and an MPC policy (questions 1 to 5)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cs285.cli.launch import launch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return launch("mb", argv)


if __name__ == "__main__":
    sys.exit(main())
