#!/usr/bin/env bash
# install.sh [REQUIREMENTS...]: create or reuse .venv, and install the requirements and cs285 into
# it, unless the same versions are already installed. PYTHON_BIN is the Python that creates .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
[[ $# -gt 0 ]] || set -- requirements.txt
python_bin=${PYTHON_BIN:-python3}

suits() {
  "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

# Create .venv again if its creation was interrupted, or if its Python is not supported.
if ! { suits .venv/bin/python && .venv/bin/python -m pip --version; } >/dev/null 2>&1; then
  if ! suits "$python_bin"; then
    echo "install.sh: error: PYTHON_BIN=$python_bin: must be Python 3.11 to 3.14" >&2
    exit 2
  fi
  "$python_bin" -m venv --clear .venv
fi

wanted="$(pwd) $(.venv/bin/python --version) $(cat setup.py "$@" | cksum)"
stamp=.venv/.installed_$(printf '%s_' "$@")
if [[ -e $stamp && $(cat "$stamp") == "$wanted" ]]; then
  exit 0
fi
echo "installing $* into .venv (the first time takes a few minutes)"
arguments=()
for file in "$@"; do
  arguments+=(-r "$file")
done
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
echo "$wanted" >"$stamp"
