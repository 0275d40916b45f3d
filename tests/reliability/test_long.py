"""Long runs: memory and open files stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY_OVERRIDES
from tests.reliability.kills import WORDS

SCRIPT = """
import json, multiprocessing, os, sys
from pathlib import Path
from sam_spl.cli.main import execute
from sam_spl.engine.trainer import Trainer

def memory(process):
    # Without files' pages, the libraries: their share is larger when another program that has them ends.
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(text.split(key)[1].split()[0]) for key in ("Pss_Anon:", "Pss_Shmem:")) / 1024

def files(process):
    return len(os.listdir(f"/proc/{process}/fd"))

found = []
finish = Trainer.finish_epoch

def measured(self, scored):
    finish(self, scored)
    all = [os.getpid(), *(one.pid for one in multiprocessing.active_children())]
    found.append([sum(map(memory, all)), sum(map(files, all)), len(all)])

Trainer.finish_epoch = measured
execute(["train", *sys.argv[2:]])
Path(sys.argv[1]).write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_memory_and_files_are_flat_over_2000_steps_and_20_evaluations(tmp_path: Path):
    """SAM-SPL, 2 loader processes: the memory of all (MiB, without files) after each epoch of 100 steps."""
    words = [*TINY_OVERRIDES, *WORDS[1:], "dataset.synthetic.train=200", "dataset.synthetic.val=20"]
    words += ["trainer.batch_size=2", "trainer.epochs=20", "num_workers=2", f"save_dir={tmp_path / 'run'}"]
    script = tmp_path / "long.py"
    script.write_text(SCRIPT)
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "found.json"), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=3000,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    print([round(memory) for memory, _, _ in found], [files for _, files, _ in found])
    assert len(found) == 20
    assert {processes for _, _, processes in found} == {3}
    assert max(memory for memory, _, _ in found[1:]) < 1.02 * found[1][0]
    assert max(files for _, files, _ in found[1:]) <= found[1][1]
