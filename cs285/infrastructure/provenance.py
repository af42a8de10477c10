"""Where a result comes from: command, commit, versions and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cs285.infrastructure.processor import processor_name

PACKAGE = Path(__file__).resolve().parents[1]
_VERSIONS_OF = ("torch", "numpy", "gymnasium", "mujoco", "tensorboardX", "matplotlib")


def describe_command() -> dict[str, Any]:
    """Return what is needed to repeat this command: its words, versions, commit, machine."""
    return {"command": ["python", *sys.argv], **provenance()}


def provenance() -> dict[str, Any]:
    """Return the time, the versions, the commit and the machine."""
    import torch  # here, because it takes seconds and --help imports this module

    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONS_OF},
        "git": _git_state(),
        "machine": {
            "platform": platform.platform(),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            # "bf16" if cpu_tuning.py set it: on this machine, products stay in float32
            "matmul_precision": getattr(matmul, "fp32_precision", None),  # torch 2.9 and later
        },
    }


def is_checkout() -> bool:
    """Return whether the package is in a checkout of the project, and not installed."""
    return (PACKAGE.parent / "setup.py").exists()


def _git_state() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    if not is_checkout():  # a repository around an installed package belongs to another project
        return {"commit": None}
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None}
