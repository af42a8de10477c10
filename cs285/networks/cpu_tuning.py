"""CPU settings that make torch faster, for each process that computes: docs/performance.md."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Any

import torch

from cs285.infrastructure.processor import processor_field

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # constants of malloc.h
SWITCH = "CS285_TUNE_CPU"  # environment variable; 0 disables the tuning
FLOAT32_ERROR = 1e-3  # limit for sums of 256 products of normal numbers; bfloat16 is off by 0.1
# (rows, inner, columns) of products: oneDNN chooses a kernel by shape.
SHAPES = (
    # fits, planners and SAC of the homework
    (256, 256, 256), (512, 27, 256), (512, 256, 21), (256, 256, 1), (256, 512, 27), (1, 256, 256),
    # the model of the MBPO paper, and the model, policy and critics of double-horizon MBPO
    (256, 200, 200), (32, 14, 256), (32, 256, 256), (32, 256, 12), (256, 14, 256), (256, 256, 6),
)  # fmt: skip


def tune_cpu() -> None:
    """Tune torch and malloc in this process, unless SWITCH is 0 or there is nothing to gain."""
    if os.environ.get(SWITCH) == "0":
        return
    _keep_freed_memory()
    _multiply_by_onednn()


def _keep_freed_memory() -> None:
    """Make glibc's malloc keep freed blocks for the next tensor.

    By default, malloc returns every block over 128 kB to the system. The system then zeroes the
    pages again for the next temporary tensor of a planner or an update.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)


def _multiply_by_onednn() -> None:
    """Make oneDNN multiply float32 matrices on AMD CPUs, where it is faster than MKL.

    MKL does not use the wide instructions of AMD CPUs. torch passes float32 products to oneDNN only
    if oneDNN may compute them in bfloat16. oneDNN does so only on CPUs with bfloat16 instructions.
    This function therefore tests products, and restores the old setting if one of them is not in
    float32. config.json of a run records the setting ("matmul_precision").
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not (_is_amd() and hasattr(matmul, "fp32_precision")):  # torch before 2.9 has no such flag
        return
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    if not products_are_float32():
        matmul.fp32_precision = before


def products_are_float32() -> bool:
    """Return whether torch multiplies float32 matrices in float32, for each kernel and shape."""
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in SHAPES:
        left = torch.randn(3, rows, inner, generator=generator)
        right = torch.randn(3, inner, columns, generator=generator)
        exact = left.double() @ right.double()
        zero = torch.zeros(3, 1, columns)
        products = (
            (torch.bmm(left, right), exact),
            (torch.bmm(right.mT, left.mT), exact.mT),  # as in gradients
            (torch.baddbmm(zero, left, right), exact),
            (torch.mm(left[0], right[0]), exact[0]),
            (torch.addmm(zero[0], left[0], right[0]), exact[0]),
        )
        if any((product - expected).abs().max() > FLOAT32_ERROR for product, expected in products):
            return False
    return True


def _is_amd() -> bool:
    return processor_field("vendor_id") == "AuthenticAMD"
