"""Run the tests with the oldest or the newest supported versions. Use both before a release.

    python -m tests.versions lowest
    python -m tests.versions highest tests/unit -x

The first argument selects the ends of the ranges in setup.py, and more arguments go to pytest. The
packages are installed into .venv-lowest or .venv-highest. The Python of this process creates them.
"""

import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# These need a narrow range of simulator versions. Their tests are skipped without them.
SIMULATORS = ("shimmy", "dm-control", "gymnasium-robotics")
# Old packages have other types, or none. That does not affect users.
TYPE_CHECK = "tests/cli/test_make_starter.py::test_starter_has_types"


def requirements(end: str) -> list[str]:
    """Return the requirements of cs285 for pip, each at this end of its range."""
    found = [Requirement(text) for text in requires("cs285") or []]
    found = [one for one in found if "extra" not in str(one.marker)]
    return [_lowest(one) if end == "lowest" else str(one) for one in found]


def tools() -> list[str]:
    """Return the requirements of the tests for pip, without the packages in SIMULATORS."""
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    found = [line.split("#")[0].strip() for line in lines if line[:1] not in ("", "#")]
    return [one for one in found if Requirement(one).name not in SIMULATORS]


def _lowest(requirement: Requirement) -> str:
    (version,) = [one.version for one in requirement.specifier if one.operator == ">="]
    extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={version}"


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in ("lowest", "highest"):
        print("usage: python -m tests.versions lowest|highest [PYTEST_ARGUMENTS]", file=sys.stderr)
        return 2
    end, *rest = arguments
    folder = ROOT / f".venv-{end}"
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--upgrade", *tools(), *requirements(end)], check=True, cwd=ROOT)
    subprocess.run([*install, "--no-deps", "--editable", "."], check=True, cwd=ROOT)
    subprocess.run([python, "-m", "pip", "list", "--disable-pip-version-check"], check=True)
    options = ["-n", "auto", "--dist", "loadfile", "--deselect", TYPE_CHECK]
    test = [python, "-m", "pytest", *options, *rest]
    return subprocess.run(test, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
