"""Speed of autograd gradients, eager and compiled, against hand-written gradients.

Run `python -m benchmarks.autograd` on an idle machine.

The baseline is commit b0c3007, the last one with hand-written gradients. The script exports it from
git into a temporary folder. All contenders run with the same CPU settings.
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
HAND_WRITTEN = "b0c3007"  # the last commit with hand-written gradients
BASELINE = f"hand-written ({HAND_WRITTEN})"
SAC = "SAC update"
FITS = {  # members, batch, width, hidden layers
    "fit, E 3 batch 512 2x250": (3, 512, 250, 2),
    "fit, E 7 batch 256 4x200": (7, 256, 200, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds")
    names = [SAC, *FITS]
    parser.add_argument("--names", nargs="+", default=names, help=f"some of {'; '.join(names)}")
    parser.add_argument("--first_update", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_update:
        time_first_update()
        return
    repeats, names = arguments.repeats, arguments.names
    content: dict[str, Any] = {"unit": "updates or gradient steps per second"}
    with tempfile.TemporaryDirectory() as folder:
        export_baseline(Path(folder))
        for name in names:
            for threads in dict.fromkeys((1, torch.get_num_threads())):
                contenders: dict[str, Contender] = {
                    BASELINE: partial(work_of, name, threads, False, folder),
                    "autograd": partial(work_of, name, threads, False),
                    "autograd, compiled": partial(work_of, name, threads, True),
                }
                measured = rates(contenders, repeats)
                content[section_name(name, threads)] = summarize(measured, BASELINE)
    if SAC in names:
        content["compilation of SAC updates"] = compilation_cost(content)
    write("autograd", content)


def section_name(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def compilation_cost(content: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of the first compiled round and the updates until compiling pays off."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
        seconds = []
        for _ in range(2):  # the second run finds the compiled code of the first in the cache
            command = [sys.executable, "-m", "benchmarks.autograd", "--first_update"]
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
            )
            seconds.append(float(done.stdout.split()[-1]))
    section = content[section_name(SAC, torch.get_num_threads())]
    saved = 1 / section["autograd"]["median"] - 1 / section["autograd, compiled"]["median"]
    return {
        "seconds of the first round, empty cache": round(seconds[0], 1),
        "seconds of the first round, filled cache": round(seconds[1], 1),
        "updates until compiling pays off, empty cache": round(seconds[0] / saved),
        "updates until compiling pays off, filled cache": round(seconds[1] / saved),
    }


def time_first_update() -> None:
    """Print the seconds of the first round of updates, including compilation."""
    work = work_of(SAC, torch.get_num_threads(), True)
    start = time.perf_counter()
    work()
    print(time.perf_counter() - start)


def export_baseline(folder: Path) -> None:
    """Write the package and the benchmarks of commit HAND_WRITTEN into `folder`."""
    command = ["git", "archive", HAND_WRITTEN, "cs285", "benchmarks"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def work_of(
    name: str, threads: int, compile: bool, folder: str | None = None
) -> Callable[[], float]:
    """Return the work of one contender, with the code of this checkout or of `folder`."""
    torch.set_num_threads(threads)
    if folder is not None:  # this process has already imported modules of this checkout
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
