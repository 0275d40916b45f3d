"""What the process keeps, and where it computes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from sam_spl.runtime import place

def mapped():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

if sys.argv[1] == "keep":
    place(torch.nn.Identity(), torch.device("cpu"))
kept = torch.empty(2**24)  # 64 MB
with_it = mapped()
del kept
print(with_it - mapped())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_stays_with_the_process():
    given_back = {}
    for how in ("keep", "default"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, timeout=120
        )
        given_back[how] = int(done.stdout)
    assert given_back["keep"] < 2**20 < 2**26 <= given_back["default"]
