"""Train PILCO: Gaussian processes as the model, and a policy search on their predictions."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cs285.cli.launch import launch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    return launch("pilco", argv)


if __name__ == "__main__":
    sys.exit(main())
