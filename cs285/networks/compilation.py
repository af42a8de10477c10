"""Compilation of the most expensive functions of a run: --compile."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cs285.infrastructure.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return `function` compiled as a whole: losses, gradients and optimiser steps (see take_step).

    It takes tensors, modules and plain values, and returns a tensor, or a tuple or dict of results.
    On a GPU it runs as a CUDA graph, which overwrites its results in the next call. The compiled
    function therefore returns copies.
    """
    import torch._dynamo  # not at the top: the import takes a second

    torch._dynamo.config.trace_autograd_ops = True
    _set_cache_folder()
    graph = torch.compile(function, mode="reduce-overhead", fullgraph=True)

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return _copied(graph(*arguments))

    return cast(Function, run)


def _set_cache_folder() -> None:
    """Make torch cache compiled code in a permanent folder, so that only the first run waits.

    By default, torch uses a temporary folder, which may not exist in the next run.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "cs285" / "compiled"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _copied(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.clone() if result.is_cuda else result
    if isinstance(result, dict):
        return {name: _copied(part) for name, part in result.items()}
    parts = map(_copied, result)
    return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)


def check_compiler(device: torch.device) -> None:
    """Check that torch is new enough and finds a compiler: C++ for a CPU, C for a GPU.

    Raises UsageError: torch is too old, or there is no compiler.
    """
    version = torch.__version__.split("+")[0].split(".")
    if tuple(map(int, version[:2])) < (2, 13):  # older versions cannot compile gradients
        raise UsageError(
            f"--compile: torch must be version 2.13 or newer, not {torch.__version__}; upgrade "
            "torch or omit --compile"
        )
    is_cpu = device.type == "cpu"
    variable, usual = ("CXX", ["g++", "clang++"]) if is_cpu else ("CC", ["gcc", "clang"])
    wanted = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, wanted)):
        raise UsageError(
            f"--compile: found no compiler ({' or '.join(wanted)}); install one, set the "
            f"environment variable {variable} to an installed one, or omit --compile"
        )


def can_compile(device: torch.device) -> bool:
    """Return whether --compile works on `device` (see check_compiler)."""
    try:
        check_compiler(device)
    except UsageError:
        return False
    return True
