"""torch's default dtype: float32 in this package, and the user's own in the code of a task.

A task cannot switch gradients off for this package, either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_of_tasks: Any = None  # the default dtype that the code of a task has last set; None: unchanged


@contextmanager
def float32_default() -> Iterator[None]:
    """Compute in float32 inside the block. Tasks keep the default dtype of the user's script."""
    global _of_tasks
    torch = sys.modules.get("torch")
    if torch is None:  # then no one has changed its default dtype
        yield
        return
    _of_tasks = before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def dtype_of_tasks() -> Iterator[None]:
    """Run the code of a task inside the block: what it sets applies only to the code of tasks."""
    global _of_tasks
    torch = sys.modules.get("torch")
    if torch is None:  # in the probe of the renderer, which computes nothing
        yield
        return
    before, has_gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.set_default_dtype(_of_tasks or before)
    try:
        yield
    finally:
        _of_tasks = torch.get_default_dtype()
        torch.set_default_dtype(before)
        torch.set_grad_enabled(has_gradients)
