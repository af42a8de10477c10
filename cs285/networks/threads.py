"""Threads of this process: one thread per operation, and idle cores for independent operations.

The last bits of a sum depend on the number of threads that share the operation. Collection
therefore limits torch to one thread. If cores are idle, operations on different chunks of rows run
in parallel. The chunks do not depend on the number of threads, so the results do not depend on it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

_threads = 1  # threads of `map_on_threads`, including the calling thread
_helpers: ThreadPoolExecutor | None = None
_num_helpers = 0


@contextmanager
def one_thread(planning_threads: int = 1) -> Iterator[None]:
    """Limit torch to one thread, as in a worker, and let `map_on_threads` use several."""
    before = torch.get_num_threads(), _threads
    torch.set_num_threads(1)
    set_planning_threads(planning_threads)
    try:
        yield
    finally:
        set_planning_threads(before[1])
        torch.set_num_threads(before[0])


def set_planning_threads(count: int) -> None:
    """Set the threads of `map_on_threads`; more than 1 only while torch is limited to one."""
    global _threads
    _threads = count
    if count > _num_helpers + 1:
        _start_helpers(count - 1)


def map_on_threads(function: Callable[[Tensor], Tensor], items: Sequence[Tensor]) -> list[Tensor]:
    """Return the function's results for all items, in their order, without gradients.

    The calling thread also processes items, so helpers that find no free core cost nothing.
    """
    helping = min(_threads, len(items)) - 1
    if helping <= 0 or _helpers is None:
        return [function(item) for item in items]
    is_inference = torch.is_inference_mode_enabled()  # a helper does not inherit the mode
    waiting = deque(enumerate(items))
    results: dict[int, Tensor] = {}

    def work() -> None:
        with torch.inference_mode(is_inference), torch.no_grad():
            while waiting:
                try:
                    index, item = waiting.popleft()
                except IndexError:  # another thread took the last item
                    return
                results[index] = function(item)

    helpers = [_helpers.submit(work) for _ in range(helping)]
    try:
        work()
    finally:
        waiting.clear()  # if `function` raised, the helpers stop, too
        for helper in helpers:
            helper.result()
    return [results[index] for index in range(len(items))]


def _start_helpers(count: int) -> None:
    """Start helpers in which torch uses one thread, and wait until all have started.

    torch.set_num_threads in a helper partly affects the whole process. It must not run after
    `one_thread` has restored the number of threads.
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
