"""Train the MBPO agent: SAC on real transitions and on those of an ensemble model (question 6)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cs285.cli.launch import launch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return launch("mbpo", argv)


if __name__ == "__main__":
    sys.exit(main())
