"""Threads of this process: one for every operation, and idle cores for independent ones.

Sums depend in their last bits on how many threads share an operation. Collection therefore holds
torch to one thread. Where cores are idle, whole operations on blocks of rows run beside each other
instead: the blocks do not depend on the number of threads, so neither do the results.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

_threads = 1  # that `map_on_threads` uses, the calling one among them
_helpers: ThreadPoolExecutor | None = None
_num_helpers = 0


@contextmanager
def one_thread(planning_threads: int = 1) -> Iterator[None]:
    """Hold torch to one thread, as in a worker, and let `map_on_threads` use several."""
    before = torch.get_num_threads(), _threads
    torch.set_num_threads(1)
    set_planning_threads(planning_threads)
    try:
        yield
    finally:
        set_planning_threads(before[1])
        torch.set_num_threads(before[0])


def set_planning_threads(count: int) -> None:
    """Let `map_on_threads` use so many threads; above 1 only while torch is held to one."""
    global _threads
    _threads = count
    if count > _num_helpers + 1:
        _start_helpers(count - 1)


def map_on_threads(function: Callable[[Tensor], Tensor], items: Sequence[Tensor]) -> list[Tensor]:
    """Return the function's results of all items, in their order, without gradients.

    The calling thread takes one item after the other, too, so that helpers which find no free core
    cost nothing.
    """
    helping = min(_threads, len(items)) - 1
    if helping <= 0 or _helpers is None:
        return [function(item) for item in items]
    is_inference = torch.is_inference_mode_enabled()  # a thread has modes of its own
    waiting = deque(enumerate(items))
    results: dict[int, Tensor] = {}

    def work() -> None:
        with torch.inference_mode(is_inference), torch.no_grad():
            while waiting:
                try:
                    index, item = waiting.popleft()
                except IndexError:  # another thread has just taken the last one
                    return
                results[index] = function(item)

    helpers = [_helpers.submit(work) for _ in range(helping)]
    try:
        work()
    finally:
        waiting.clear()  # where `function` raised, the helpers stop, too
        for helper in helpers:
            helper.result()
    return [results[index] for index in range(len(items))]


def _start_helpers(count: int) -> None:
    """Start threads that compute alone, all before this returns.

    torch.set_num_threads in one of them is in part a setting of the whole process: it must not come
    later than the setting that `one_thread` restores.
    """
    global _helpers, _num_helpers
    if _helpers is not None:
        _helpers.shutdown()
    all_started = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        all_started.wait()

    _helpers, _num_helpers = ThreadPoolExecutor(count, "planning", start), count
    for _ in range(count):
        _helpers.submit(int)
    all_started.wait()
