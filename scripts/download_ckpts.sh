#!/usr/bin/env bash
# Fetch the SAM 2.1 checkpoints into checkpoints/ (the name that users of the published code know).
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec .venv/bin/python -m sam_spl download "$@"
