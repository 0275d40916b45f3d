#!/usr/bin/env bash
# Make .venv and install this checkout into it. Sourced by demo.sh and test.sh; quick when nothing changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# What the installation depends on; unchanged means installed.
fingerprint=$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum)

if [ "$(cat .venv/installed 2>/dev/null || true)" != "$fingerprint" ]; then
    python=$(find_python) || fail "no Python 3.11 or newer found ($(python3 --version 2>&1 || echo 'no python3')). Install one, or name it: PYTHON=/path/to/python3.12 bash $0"
    # A word, no refusal: uv links files from its cache, and then a second checkout takes next to nothing.
    free=$(df -Pm . | awk 'NR == 2 {print $4}')
    [ -d .venv ] || [ "$free" -ge 9000 ] || echo "setup: only $free MB free in $PWD; PyTorch with its CUDA libraries takes 5200, and its download as much while it lasts" >&2

    echo "setup: installing into .venv with $("$python" --version) (PyTorch is several GB; minutes on the first run)"
    if [ ! -x .venv/bin/python ]; then
        rm -rf .venv
        "$python" -m venv .venv || fail "cannot make a virtual environment in $PWD/.venv (on Debian: apt install python3-venv)."
    fi
    log=.venv/install.log
    {
        # uv is many times faster than pip, and pip does where uv is not to be had.
        if .venv/bin/python -m pip install --quiet uv; then
            .venv/bin/uv pip install --python .venv/bin/python -c constraints.txt -e '.[dev]'
        else
            .venv/bin/python -m pip install -c constraints.txt -e '.[dev]'
        fi
    } >"$log" 2>&1 || {
        tail -n 12 "$log" >&2
        if grep -qiE 'no space left' "$log"; then
            fail "the disk is full. Free some 6 GB (10 without uv) and run this again."
        elif grep -qiE 'connection (refused|reset|error)|could not connect|newconnectionerror|failed to fetch|name or service|name resolution|timed out|dns error|unreachable|proxyerror' "$log"; then
            fail "the package index could not be reached. Check the network (or PIP_INDEX_URL and UV_INDEX_URL for a mirror) and run this again."
        fi
        fail "installation failed; the whole log is $PWD/$log"
    }
    echo "$fingerprint" >.venv/installed
    echo "setup: done. Now: source .venv/bin/activate"
fi
