"""Time and memory against image size, batch and number of files; and what a start takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmark.networks import Case
from benchmark.processes import in_own_process
from benchmark.rows import ROOT, Row
from benchmark.stages import write_images
from sam_spl.errors import InputError


def networks(cases: Sequence[Case], repeat: int, limit: float) -> Iterator[Row]:
    """Each case in a process of its own, so that one that does not fit is a row that says so."""
    for case in cases:
        outcome = in_own_process("network", asdict(case), repeat, limit)
        yield outcome.row(replace(case.row, mode=f"growth {case.mode}"), case.batch_size)


def files(counts: Sequence[int], repeat: int, limit: float) -> Iterator[Row]:
    """Finding and decoding the images of a folder, each in a process of its own, for growing folders."""
    for count in counts:
        for task in ("listing", "decoding"):
            outcome = in_own_process(task, {"count": count}, repeat, limit)
            yield outcome.row(Row(name=f"{task} {count} images", mode="growth files"))


#: Runs ``training.py`` up to the end of its first step.
_FIRST_STEP = """
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(77))
sys.argv[0] = "training.py"
sys.path.insert(0, "")
runpy.run_path("training.py", run_name="__main__")
"""


def starts(models: Sequence[str], size: int, images: int, device: str, repeat: int) -> list[Row]:
    """Seconds from nothing to ``import sam_spl``, to the help, and to the first step of training, in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        write_images(folder, images, size)
        work = {
            ("import sam_spl", 0): ["-c", "import sam_spl"],
            ("import torch", 0): ["-c", "import torch"],
            ("sam-spl --help", 0): ["-m", "sam_spl", "--help"],
        }
        for model in models:
            words = ["--model", model, "--dataset", "custom", "--data_path", str(folder)]
            words += ["--image_size", str(size), "--device", device, "--save_dir", f"{temporary}/run"]
            words += ["trainer.batch_size=4", "trainer.selection=last", "overwrite=true"]
            work[f"training.py {model}, to its first step", 77] = ["-c", _FIRST_STEP, *words]
        seconds: dict[tuple[str, int], list[float]] = {key: [] for key in work}
        for round_ in range(repeat + 1):
            for (name, code), words in work.items():
                start = time.perf_counter()
                done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
                if done.returncode != code:
                    said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
                    raise InputError(f"startup: {name} failed: {said[-1]}")
                if round_:  # the first fills the caches of the system
                    seconds[name, code].append(time.perf_counter() - start)
    return [Row(name=name, mode="startup").timed(rounds) for (name, _), rounds in seconds.items()]
