"""Launchers: they start runs as local processes, or on a Ray cluster (--address)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cs285.experiments.launchers.base import Launcher
from cs285.experiments.launchers.local import LocalLauncher


@contextlib.contextmanager
def open_launcher(address: str | None, end_with_parent: bool = False) -> Iterator[Launcher]:
    """Yield the launcher for an --address. None means this machine.

    If this process is killed, local runs end with it only if `end_with_parent` is true. Runs on a
    cluster always end with it. Raises UsageError: Ray is not installed.
    """
    if address is None:
        yield LocalLauncher(end_with_parent)
        return
    from cs285.experiments.launchers.ray import RayLauncher, connect  # Ray is optional

    with connect(address):
        yield RayLauncher()


def check_address(address: str | None) -> None:
    """Raise UsageError if Ray is not installed, or if no cluster answers at `address`."""
    if address is not None:
        from cs285.experiments.launchers import ray  # Ray is optional

        ray.check_address(address)
