"""What a queue needs of the machines that its runs go to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO

LOST = 1000  # in place of an exit code: the run was lost together with its machine
EPSILON = 1e-9  # three shares of 1/3 fill a GPU


class Share(NamedTuple):
    """What each run gets of a machine."""

    cpus: int
    gpus: float | None = None  # part of one, or several; None: all that is visible, unassigned


class Node(NamedTuple):
    """What a machine has."""

    cpus: float
    gpus: float


class Process(Protocol):
    """A run under way, wherever it is."""

    lost_because: str  # with LOST, as far as it is known

    def poll(self) -> int | None:
        """Return the exit code, None while it runs, or LOST."""

    def interrupt(self) -> None:
        """Ask it to stop so that it can be resumed."""

    def kill(self) -> None:
        """End it at once; it can be resumed from its last checkpoint."""


class Launcher(Protocol):
    """Starts runs on one or more machines."""

    name: str  # for errors

    def nodes(self) -> list[Node]:
        """Return the machines there are now."""

    def places(self, share: Share) -> int:
        """Return how many runs may be started at a time, as things are now."""

    def start(
        self, module: str, words: Sequence[str], log: Path, lock: TextIO, share: Share
    ) -> Process:
        """Start `python -m module words` with its share of a machine.

        It prints to `log`, and on this machine holds `lock` while it lives.
        """


def places(nodes: Sequence[Node], share: Share) -> int:
    """Return how many runs have room at a time; at least one if they are assigned no GPU."""
    room = sum(_places_of(node, share) for node in nodes)
    return room if share.gpus else max(1, room)


def _places_of(node: Node, share: Share) -> int:
    by_cpus = int(node.cpus // share.cpus)
    if not share.gpus:
        return by_cpus
    if share.gpus <= 1:
        return min(by_cpus, int(node.gpus) * int(1 / share.gpus + EPSILON))
    return min(by_cpus, int(node.gpus // share.gpus))
