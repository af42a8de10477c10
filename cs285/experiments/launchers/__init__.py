"""Where runs go: processes of this machine, or a Ray cluster with --address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cs285.experiments.launchers.base import Launcher
from cs285.experiments.launchers.local import LocalLauncher


@contextlib.contextmanager
def open_launcher(address: str | None, die_with_us: bool = False) -> Iterator[Launcher]:
    """Give the launcher for an --address (None: this machine) until the block ends.

    Local runs that do not `die_with_us` finish on their own when this process is killed. Runs on a
    cluster always end with it. Raises UsageError: Ray is not installed, or no cluster answers.
    """
    if address is None:
        yield LocalLauncher(die_with_us)
        return
    from cs285.experiments.launchers.ray import RayLauncher, connect  # Ray is an extra

    with connect(address):
        yield RayLauncher()


def check_address(address: str | None) -> None:
    """Raise UsageError if Ray is not installed, or no cluster answers at the address."""
    if address is not None:
        from cs285.experiments.launchers import ray  # Ray is an extra

        ray.check_address(address)
