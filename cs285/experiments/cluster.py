"""A Ray on this machine, or the cluster at an address."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from cs285.collection.collector import available_cores
from cs285.infrastructure.errors import UsageError

CONNECT_SECONDS = 12
OBJECT_STORE_BYTES = 100 * 2**20  # nothing large goes through it
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a run logs for itself
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a run that failed at once has logged none
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # sweep.csv and the log folders are all that is needed
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


def require_ray() -> None:
    """Raise UsageError where Ray is not installed."""
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"sweeps and --address need Ray ({error}): install it with pip install -e '.[cluster]'"
        ) from error


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Start a Ray on this machine, or join the cluster at an address, until the block ends."""
    import ray

    on_terminate = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(
            address="local",
            num_cpus=available_cores(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
    else:
        ray.init(address=address, **quiet)
    try:
        signal.signal(signal.SIGTERM, on_terminate)
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise UsageError where no cluster answers: asked by a process that can be given up."""
    host, _, port = address.rpartition(":")
    code = "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR')"
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), CONNECT_SECONDS / 2).close()
        subprocess.run(
            [sys.executable, "-c", code, address],
            timeout=CONNECT_SECONDS,
            check=True,
            capture_output=True,
        )
    except (ValueError, OverflowError, OSError, subprocess.SubprocessError) as error:
        raise UsageError(
            f"--address {address}: no cluster of Ray answers there; allowed: auto, or HOST:PORT of "
            "its head node"
        ) from error
