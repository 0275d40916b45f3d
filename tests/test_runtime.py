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


LAUNCHED = """
import os, signal, sys, time
from sam_spl.runtime import end_with_launcher

if not (process := os.fork()):
    signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))  # and goes on waiting
    end_with_launcher(patience=0.5)
    for _ in range(600):
        time.sleep(0.1)
    print("still there", flush=True)
    os._exit(0)
time.sleep(2)  # then the launcher ends, as by SIGKILL
os._exit(9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone sends the signal")
def test_a_process_without_launcher_is_told_and_ends_though_it_waits():
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHED], capture_output=True, text=True, timeout=40, check=False
    )
    # Read to its end: all who could write there have ended.
    assert (done.returncode, done.stdout) == (9, "told\n")
