"""Read TOML files, also on Python 3.10, whose standard library has no TOML parser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of `file`.

    Raises OSError: the file cannot be read. Raises ValueError: it is not valid TOML.
    """
    return tomllib.loads(file.read_text())
