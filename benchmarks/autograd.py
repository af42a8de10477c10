"""Gradients by autograd, eager and compiled, against the ones written out by hand before.

    python -m benchmarks.autograd

The written-out code is that of commit b0c3007, taken out of git's history into a temporary folder.
All contenders take turns in one run, with the same settings of the processor. Run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Contender, rates, summarize, write

ROOT = Path(__file__).parents[1]
WRITTEN_OUT = "b0c3007"  # the last commit whose gradients are written out
BASELINE = f"written out ({WRITTEN_OUT})"
SAC = "SAC update"
FITS = {  # members, batch, width, hidden layers
    "fit, E 3 batch 512 2x250": (3, 512, 250, 2),
    "fit, E 7 batch 256 4x200": (7, 256, 200, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="counted rounds")
    parser.add_argument("--names", nargs="+", default=[SAC, *FITS])
    parser.add_argument("--first_update", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_update:
        time_first_update()
        return
    repeats, names = arguments.repeats, arguments.names
    content: dict[str, Any] = {"unit": "updates or gradient steps per second"}
    with tempfile.TemporaryDirectory() as folder:
        export_file(Path(folder))
        for name in names:
            for threads in dict.fromkeys((1, torch.get_num_threads())):
                contenders: dict[str, Contender] = {
                    BASELINE: partial(work_of, name, threads, False, folder),
                    "autograd": partial(work_of, name, threads, False),
                    "autograd, compiled": partial(work_of, name, threads, True),
                }
                measured = rates(contenders, repeats)
                content[f"{name}, {threads} threads"] = summarize(measured, BASELINE)
    if SAC in names:
        content["compiling a SAC update"] = compiling(content)
    write("autograd", content)


def compiling(content: dict[str, Any]) -> dict[str, float]:
    """Return the seconds before a first compiled update, and from how many updates on they pay."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
        seconds = []
        for _ in range(2):  # the first run, and a later one that finds what was compiled
            command = [sys.executable, "-m", "benchmarks.autograd", "--first_update"]
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
            )
            seconds.append(float(done.stdout.split()[-1]))
    section = content[f"{SAC}, {torch.get_num_threads()} threads"]
    saved = 1 / section["autograd"]["median"] - 1 / section["autograd, compiled"]["median"]
    return {
        "seconds in a first run": round(seconds[0], 1),
        "seconds in later runs": round(seconds[1], 1),
        "pays from so many updates on, in a first run": round(seconds[0] / saved),
        "pays from so many updates on, in later runs": round(seconds[1] / saved),
    }


def time_first_update() -> None:
    """Print the seconds that a round of updates takes which has to be compiled first."""
    work = work_of(SAC, torch.get_num_threads(), True)
    start = time.perf_counter()
    work()
    print(time.perf_counter() - start)


def export_file(folder: Path) -> None:
    """Write the package and the benchmarks of the commit WRITTEN_OUT into a folder."""
    command = ["git", "archive", WRITTEN_OUT, "cs285", "benchmarks"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def work_of(
    name: str, threads: int, compile: bool, folder: str | None = None
) -> Callable[[], float]:
    """Return the work of one contender: of this checkout, or of the package in `folder`."""
    torch.set_num_threads(threads)
    if folder is not None:  # this process has imported a little of this checkout's by now
        for module in [*sys.modules]:
            if module.split(".")[0] in ("cs285", "benchmarks"):
                del sys.modules[module]
        sys.path.insert(0, folder)
    if name == SAC:
        from benchmarks.sac_updates import ours as sac

        return sac(compile=compile)
    from benchmarks.dynamics_fit import ours as fit

    members, batch, width, n_layers = FITS[name]
    return fit(members, batch, width, n_layers, compile=compile)


if __name__ == "__main__":
    main()
