"""Train the MBPO agent: SAC on real transitions and imagined transitions (question 6)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cs285.cli.launch import launch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return launch("mbpo", argv)


if __name__ == "__main__":
    sys.exit(main())
