"""torch.compile for the functions that a run spends its time in: --compile."""

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
    """Return `function` compiled whole: losses, gradients and optimiser steps (see take_step).

    On a GPU it is a CUDA graph. It takes tensors, modules and plain values, and returns a tensor or
    a tuple or dict of such. A CUDA graph's results are overwritten when it runs again: copies are
    returned, to be kept.
    """
    import torch._dynamo  # not at the top: it takes a second, of every run

    torch._dynamo.config.trace_autograd_ops = True
    _keep_compiled_code()
    graph = torch.compile(function, mode="reduce-overhead", fullgraph=True)

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return _kept(graph(*arguments))

    return cast(Function, run)


def _keep_compiled_code() -> None:
    """Have torch keep what it compiled where the next run finds it: only the first one waits.

    By default it does so in a temporary folder, which may be gone by then.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "cs285" / "compiled"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _kept(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.clone() if result.is_cuda else result
    if isinstance(result, dict):
        return {name: _kept(part) for name, part in result.items()}
    parts = map(_kept, result)
    return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)


def check_compiler(device: torch.device) -> None:
    """Raise UsageError if torch is too old or finds no compiler: C++ for a CPU, C for a GPU."""
    version = torch.__version__.split("+")[0].split(".")
    if tuple(map(int, version[:2])) < (2, 13):  # it cannot compile gradients
        raise UsageError(f"--compile: torch {torch.__version__}: must be at least 2.13")
    is_cpu = device.type == "cpu"
    variable, usual = ("CXX", ["g++", "clang++"]) if is_cpu else ("CC", ["gcc", "clang"])
    wanted = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, wanted)):
        raise UsageError(
            f"--compile: there is no compiler {' or '.join(wanted)}; allowed where one is "
            f"installed, which the environment variable {variable} may name"
        )


def can_compile(device: torch.device) -> bool:
    """Return whether --compile would find what it needs."""
    try:
        check_compiler(device)
    except UsageError:
        return False
    return True
