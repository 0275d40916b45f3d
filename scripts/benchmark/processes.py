"""Work in a process of its own: its peak memory, a limit of time, and what happens if it does not fit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.rows import Row

#: What libraries say when memory ends.
_FULL = re.compile("out of memory|(can.t|cannot) allocate|not enough memory|bad_alloc|MemoryError", re.I)


@dataclass(frozen=True)
class Outcome:
    """What a process measured: seconds of each round, and bytes; or a note that says why it did not."""

    first: float = 0.0
    rounds: list[float] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    note: str = ""

    def row(self, row: Row, images: int = 1) -> Row:
        """A row with these figures."""
        of = vars(row) | {"peak_memory_bytes": self.peak_memory_bytes, "note": self.note}
        if not self.rounds:
            return Row(**of)
        return Row(**of | {"first_call_seconds": self.first}).timed(self.rounds, images)


def in_own_process(task: str, arguments: dict[str, Any], repeat: int, limit: float) -> Outcome:
    """Have a fresh process do one of the tasks of ``alone.py``.

    Args:
        task: its name.
        arguments: for it.
        repeat: rounds, after a first call; fewer where half the limit is over.
        limit: seconds for the whole process.
    """
    order = {"task": task, "arguments": arguments, "repeat": repeat, "limit": limit}
    command = [sys.executable, str(Path(__file__).with_name("alone.py")), json.dumps(order)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Outcome(note=f"not done in {limit:g} s")
    if done.returncode == 0:
        return Outcome(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode == -9 or _FULL.search(done.stderr):
        return Outcome(note="does not fit into memory")
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return Outcome(note=f"failed: {said[-1][:200]}")
