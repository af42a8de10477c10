#!/usr/bin/env bash
# Install the requirements into .venv, then lint, type-check and test. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./install.sh requirements.txt requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports --no-logo
.venv/bin/python -m tests.prose
# One more process than cores, because some tests wait.
workers=$(.venv/bin/python -c "import os; print(os.cpu_count() + 1)")
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n "$workers" --dist loadfile \
  --no-loadscope-reorder "$@"
