"""What makes torch fast on a CPU, in each process that computes: see docs/performance.md."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
SWITCH = "CS285_TUNE_CPU"  # environment variable; 0 leaves torch and malloc as they are
FLOAT32_ERROR = 1e-3  # of the sum of 256 products of normal numbers; bfloat16 is at 0.1


def tune_cpu() -> None:
    """Set up this process; where there is nothing to gain, or SWITCH is 0, do nothing."""
    if os.environ.get(SWITCH) == "0":
        return
    _keep_freed_memory()
    _multiply_by_onednn()


def _keep_freed_memory() -> None:
    """Have glibc's malloc keep freed blocks for the next tensor.

    By default it hands every block over 128 kB back to the system, which zeroes its pages anew for
    the next temporary of a planner or an update.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)


def _multiply_by_onednn() -> None:
    """On AMD's CPUs have oneDNN multiply matrices, in float32, not MKL: it is faster there.

    MKL leaves the wide instructions of AMD's CPUs unused. torch hands float32 products to oneDNN
    only where that may compute in bfloat16, which it then does on CPUs with AMX alone; that it
    does not do so here is tried, and otherwise all is left as it was.
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not (_is_amd() and hasattr(matmul, "fp32_precision")):  # torch before 2.9 has no such switch
        return
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    if not products_are_float32():
        matmul.fp32_precision = before


def products_are_float32() -> bool:
    """Return whether float32 matrices are multiplied in float32."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 1, 256, 256, generator=generator)
    error = torch.bmm(left, right) - torch.bmm(left.double(), right.double())
    return bool(error.abs().max() < FLOAT32_ERROR)


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
