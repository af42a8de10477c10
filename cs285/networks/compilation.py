"""torch.compile for the functions that a run spends its time in: --compile."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
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
    torch._dynamo.config.trace_autograd_ops = True
    graph = torch.compile(function, mode="reduce-overhead", fullgraph=True)

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return _kept(graph(*arguments))

    return cast(Function, run)


def _kept(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.clone() if result.is_cuda else result
    if isinstance(result, dict):
        return {name: _kept(part) for name, part in result.items()}
    parts = map(_kept, result)
    return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)


def check_compiler(device: torch.device) -> None:
    """Raise UsageError if torch.compile would find no compiler: C++ for a CPU, C for a GPU."""
    is_cpu = device.type == "cpu"
    variable, usual = ("CXX", ["g++", "clang++"]) if is_cpu else ("CC", ["gcc", "clang"])
    wanted = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, wanted)):
        raise UsageError(
            f"--compile: there is no compiler {' or '.join(wanted)}; allowed where one is "
            f"installed, which the environment variable {variable} may name"
        )
