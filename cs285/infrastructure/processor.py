"""The processor of this machine, as /proc/cpuinfo on Linux describes it."""

from __future__ import annotations

import platform
from pathlib import Path


def processor_field(*names: str) -> str | None:
    """Return the first field that has one of these `names`, or None if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() in names), None)


def processor_name() -> str:
    """Return the processor's model name, or its architecture if the name is unknown."""
    return processor_field("model name") or platform.processor() or platform.machine()
