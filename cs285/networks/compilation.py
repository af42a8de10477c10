"""Compilation of the most expensive functions of a run: --compile."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.processor import processor_field

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# The header of a 64-bit ELF file: offset of the table of sections, size and number of its entries.
ELF = struct.Struct("<40sQ10sHHH")
LINK_SECONDS = 10.0  # a linker needs less time to write a library
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return `function` compiled as a whole: losses, gradients and optimiser steps (see take_step).

    It takes tensors, modules and plain values, and returns a tensor, or a tuple or dict of results.
    On a GPU it runs as a CUDA graph, which overwrites its results in the next call. The compiled
    function therefore returns copies. If torch cannot compile the function, for example because of
    a task's get_reward, it warns once and calls the original function instead.
    """
    import torch._dynamo  # not at the top: the import takes a second

    torch._dynamo.config.trace_autograd_ops = True
    torch._dynamo.reset()  # otherwise, it refuses to compile for the ninth run in a process
    _set_cache_folder()
    graph = torch.compile(function, mode="reduce-overhead", fullgraph=True)
    is_compiled = True

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        nonlocal is_compiled
        if is_compiled:
            try:
                torch.compiler.cudagraph_mark_step_begin()
                return _copied(graph(*arguments))
            except (
                torch._dynamo.exc.TorchDynamoException,
                torch._dynamo.exc.FailOnRecompileLimitHit,
            ) as error:
                is_compiled = False  # nothing has run yet, because the whole function is one graph
                print(
                    f"warning: --compile: torch cannot compile this part of the run, which "
                    f"continues without it ({_cause(error)}); a get_reward must consist of torch "
                    "operations",
                    file=sys.stderr,
                )
        return function(*arguments)

    return cast(Function, run)


def _cause(error: Exception) -> str:
    """Return what torch could not compile, on one line."""
    text = str(error)
    context = re.search(r"Developer debug context: (.+)", text)
    place = re.findall(r'File "([^"]+)", line (\d+)', text)
    cause = context[1] if context else text.split("\n")[0]
    return f"{cause.strip()}, line {place[-1][1]} of {place[-1][0]}" if place else cause.strip()


def _set_cache_folder() -> None:
    """Make torch cache compiled code in a permanent folder, so that only the first run waits.

    By default, torch uses a temporary folder, which may not exist in the next run. Importing
    torch._dynamo sets the variable to that folder. Each kind of processor has its own subfolder:
    torch would load vector code for another processor, which returns wrong numbers.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder, chosen = Path(root) / "cs285" / "compiled", os.environ.get(CACHE_VARIABLE)
    if chosen not in (None, default_cache_dir()):
        folder = Path(chosen)
    if folder.name != (processor := _processor()):
        folder /= processor
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[CACHE_VARIABLE] = str(folder)
    _clear_if_damaged(Path(os.environ[CACHE_VARIABLE]))


def _processor() -> str:
    """Return a folder name that differs between processors with different instructions."""
    instructions = processor_field("flags", "Features") or platform.processor()
    used = torch.backends.cpu.get_cpu_capability().replace(" ", "_")  # ATEN_CPU_CAPABILITY sets it
    return f"{platform.machine()}-{used}-{hashlib.sha256(instructions.encode()).hexdigest()[:8]}"


def _clear_if_damaged(folder: Path) -> None:
    """Remove all compiled code if a killed process left an incomplete library.

    Torch would try to load it in every later run, and fail. A library that another process is
    writing at this moment is soon complete.
    """
    with contextlib.suppress(OSError):
        for library in folder.rglob("*.so"):
            while not _is_complete(library):
                if time.time() - library.stat().st_mtime > LINK_SECONDS:
                    shutil.rmtree(folder)
                    return
                time.sleep(0.5)


def _is_complete(library: Path) -> bool:
    """Return whether an ELF file has its last part, the table of sections."""
    with library.open("rb") as stream:
        header = stream.read(ELF.size)
    if len(header) < ELF.size or header[:4] != b"\x7fELF":
        return len(header) == ELF.size and not sys.platform.startswith("linux")
    _, table, _, size, count, _ = ELF.unpack(header)
    return table + size * count <= library.stat().st_size


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
