"""torch.compile for the three functions that a run spends its time in: --compile."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cs285.infrastructure.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


def compile_if(wanted: bool, function: Function) -> Function:
    """Return `function`, compiled if so wanted; on a GPU as a CUDA graph.

    It takes tensors and modules, and returns a tensor or a NamedTuple of tensors. A CUDA graph's
    results are overwritten when it runs again: copies are returned, to be kept.
    """
    if not wanted:
        return function
    graph = torch.compile(function, mode="reduce-overhead")

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        result = graph(*arguments)
        if isinstance(result, Tensor):
            return result.clone()
        return type(result)(*(tensor.clone() for tensor in result))

    return cast(Function, run)


def check_compiler(device: torch.device) -> None:
    """Raise UsageError if torch.compile would find no C++ compiler, which it needs on a CPU."""
    compiler = os.environ.get("CXX", "g++" if sys.platform == "linux" else "clang++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise UsageError(
            f"--compile: there is no C++ compiler {compiler}; allowed where one is installed, "
            "which the environment variable CXX may name"
        )
