"""Run all benchmarks, or only the given ones, in sequence and write the report.

Run `python -m benchmarks [NAME ...]` on an idle machine. `python -m benchmarks.report` rewrites the
report from the saved measurements.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(report.NAMES)}"
    )
    names = parser.parse_args().names or report.NAMES
    if unknown := set(names) - set(report.NAMES):
        parser.error(f"NAME {sorted(unknown)[0]}: must be one of {', '.join(report.NAMES)}")
    for name in names:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
    report.main()


if __name__ == "__main__":
    main()
