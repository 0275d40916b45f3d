#!/usr/bin/env bash
# The tests with the lowest versions that pyproject.toml allows, in .venv-lowest; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || { echo "test_lowest: no $python. Name one: PYTHON=/path/to/python3.11 bash $0" >&2; exit 1; }
[ -x .venv-lowest/bin/python ] || "$python" -m venv .venv-lowest
.venv-lowest/bin/python -m pip install --quiet uv
.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
if [ $# -eq 0 ]; then
    set -- -m "not slow and not gpu" -n 2 --dist loadfile
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
exec .venv-lowest/bin/python -m pytest "$@"
