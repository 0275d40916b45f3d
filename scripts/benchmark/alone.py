"""A process of its own, which :mod:`benchmark.processes` starts. It imports no more than its work needs."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # where the package ``benchmark`` is

import torch  # noqa: E402

from benchmark.folders import decoding, listing  # noqa: E402
from benchmark.networks import network  # noqa: E402
from benchmark.timing import interleaved  # noqa: E402
from sam_spl.runtime import promise_float32  # noqa: E402

TASKS = {"network": network, "listing": listing, "decoding": decoding}


def alone(order: dict[str, Any]) -> None:
    """Do what :func:`benchmark.processes.in_own_process` asks for; print the outcome as one line of JSON."""
    started = time.perf_counter()
    device = torch.device(order["arguments"].get("device", "cpu"))
    if device.type == "cpu":
        # Allocations fail at the end of the memory, before the system kills this process or another one.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (_available(), resource.RLIM_INFINITY))
    with TASKS[order["task"]](**order["arguments"]) as work:
        left = order["limit"] / 2 - (time.perf_counter() - started)
        times = interleaved({"": work}, order["repeat"], device, limit=left)[""]
    outcome = {"first": times.first, "rounds": times.rounds, "peak_memory_bytes": _peak(device)}
    print(json.dumps(outcome))


def _available() -> int:
    """Bytes that this process may still take."""
    fields = re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    free = int(dict(fields)["MemAvailable"]) * 1024
    group = Path("/sys/fs/cgroup")  # a container's limit
    with contextlib.suppress(OSError, ValueError):
        used, most = ((group / f"memory.{name}").read_text() for name in ("current", "max"))
        free = min(free, int(most) - int(used))
    return max(free, 2**30)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, AttributeError):
        # Linux hands ru_maxrss of the parent on to a process that it starts; this one begins anew.
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024  # type: ignore[index]
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


if __name__ == "__main__":
    promise_float32()
    alone(json.loads(sys.argv[1]))
