"""Replay buffer speed: transitions added and sampled per second at three buffer sizes.

Run `python -m benchmarks.replay` on an idle machine.

The speed should not depend on the size of the buffer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.timing import Contender, rates, summarize, write

OB_DIM, AC_DIM, BATCH, ADDED = 21, 6, 256, 1000
SIZES = (1_000, 100_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds")
    arguments = parser.parse_args()
    content: dict[str, object] = {
        "shape": f"O {OB_DIM} A {AC_DIM}, sampling {BATCH} rows or adding {ADDED} rows at a time",
        "unit": "transitions per second",
        "torch_threads": torch.get_num_threads(),
    }
    for what in ("add", "sample"):
        contenders: dict[str, Contender] = {
            f"{size} rows": partial(replay, what, size) for size in SIZES
        }
        content[what] = summarize(rates(contenders, arguments.repeats), f"{SIZES[0]} rows")
    write("replay", content)


def replay(what: str, size: int) -> Callable[[], int]:
    from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions

    buffer = ReplayBuffer(size, OB_DIM, AC_DIM)
    batch = Transitions(
        torch.randn(ADDED, OB_DIM),
        torch.randn(ADDED, AC_DIM),
        torch.randn(ADDED),
        torch.randn(ADDED, OB_DIM),
        torch.zeros(ADDED, dtype=torch.bool),
    )
    for _ in range(size // ADDED):
        buffer.add(batch)

    def add() -> int:
        for _ in range(200):
            buffer.add(batch)
        return 200 * ADDED

    def sample() -> int:
        for _ in range(500):
            buffer.rows[torch.randint(len(buffer), (BATCH,))]
        return 500 * BATCH

    return {"add": add, "sample": sample}[what]


if __name__ == "__main__":
    main()
