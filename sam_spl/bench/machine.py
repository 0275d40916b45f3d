"""What measured times depend on: processor, threads, versions, and the commit of the toolkit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import sam_spl


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and the software of a measurement; ``device`` is a GPU's name, or ``cpu``."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return {
        "cpu": cpu_info().get("model name") or platform.processor() or platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "sam_spl": sam_spl.__version__,
        "commit": commit(),
    }


def cpu_info() -> dict[str, str]:
    """What Linux says of the processor; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    parts = (line.partition(":") for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, _, value in parts}


def commit() -> str | None:
    """The commit of the checkout that runs, and whether its files were changed; None without a repository."""
    root = Path(sam_spl.__file__).parents[1]
    if not (root / ".git").exists():  # or an installed package would state the repository around it
        return None

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or a repository that it does not read
