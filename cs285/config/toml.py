"""Read TOML, also on Python 3.10, whose standard library cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(file: Path) -> dict[str, Any]:
    """Return what is in `file`. Raises OSError, and ValueError: it is no TOML."""
    return tomllib.loads(file.read_text())
