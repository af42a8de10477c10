"""The interface between a queue and the machines that execute its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO

LOST = 1000  # returned instead of an exit code if the machine of a run was lost
EPSILON = 1e-9  # rounding error: three shares of 1/3 must fit on one GPU


class Share(NamedTuple):
    """The cores and GPUs that each run gets."""

    cpus: int
    gpus: float | None = None  # a fraction of one GPU, or several GPUs; None: every visible GPU


class Node(NamedTuple):
    """The cores and GPUs of a machine."""

    cpus: float
    gpus: float


class Process(Protocol):
    """A started run, on any machine."""

    lost_because: str  # the reason for LOST, or "" if unknown

    def poll(self) -> int | None:
        """Return the exit code, LOST, or None while the run is active."""

    def interrupt(self) -> None:
        """Ask the run to write a checkpoint and stop."""

    def kill(self) -> None:
        """Kill the run. It can be resumed from its last checkpoint."""


class Launcher(Protocol):
    """Start runs on one or more machines."""

    name: str  # used in error messages

    def nodes(self) -> list[Node]:
        """Return the machines that are currently available."""

    def capacity(self, share: Share) -> int:
        """Return how many runs may currently be active in parallel."""

    def start(
        self, module: str, words: Sequence[str], log: Path, lock: TextIO, share: Share
    ) -> Process:
        """Start `python -m module words` with a share of a machine.

        The run writes its output to `log`. A local run holds `lock` until it ends.
        """


def capacity(nodes: Sequence[Node], share: Share) -> int:
    """Return how many runs fit on the nodes in parallel, at least one for runs without a GPU."""
    room = sum(_capacity_of(node, share) for node in nodes)
    return room if share.gpus else max(1, room)


def _capacity_of(node: Node, share: Share) -> int:
    by_cpus = int(node.cpus // share.cpus)
    if not share.gpus:
        return by_cpus
    if share.gpus <= 1:
        return min(by_cpus, int(node.gpus) * int(1 / share.gpus + EPSILON))
    return min(by_cpus, int(node.gpus // share.gpus))
