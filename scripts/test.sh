#!/usr/bin/env bash
# Set up, then run the tests; arguments go to pytest. Without any: all but the slow and the GPU ones (14 to 17 minutes on two cores).
#   bash scripts/test.sh                          the suite
#   bash scripts/test.sh -m "slow or gpu"         the rest
#   SAM_SPL_DATA=/data bash scripts/test.sh       also the tests on real data, found at /data/SIRST
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ $# -eq 0 ]; then
    # Two processes of one thread each, a file at a time: small tensors gain nothing from threads.
    set -- -m "not slow and not gpu" --durations=8 -n 2 --dist loadfile
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
exec .venv/bin/python -m pytest "$@"
