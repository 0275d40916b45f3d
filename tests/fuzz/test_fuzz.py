"""Hostile input ends in success or in one clear line: a part of ``scripts/fuzz.py``, and slowly all of it."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.fuzz.judge import Case, judge

_FUZZ = [sys.executable, str(ROOT / "scripts" / "fuzz.py")]


def _run(*words: str) -> None:
    ended = subprocess.run([*_FUZZ, *words], capture_output=True, text=True, timeout=3600)
    assert ended.returncode == 0, f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}"


def test_a_sample_of_hostile_input_ends_in_success_or_one_clear_line():
    _run("--sample", "24", "--cases", "36", "--seed", "5")


@pytest.mark.slow
def test_3000_cases_of_hostile_input_end_in_success_or_one_clear_line():
    _run("--cases", "3000", "--seed", "1")


def _work(do):
    """A command that runs Python instead, and one error line where that asks for it."""

    def run(argv: list[str]) -> None:
        do()

    return run


def _refused(text: str, code: int = 1):
    def do() -> None:
        print(text, file=sys.stderr)
        sys.exit(code)

    return do


_FAR = "../../../../../.."  # above the tree that is watched


def _moved() -> None:
    Path("here").write_text("x")
    os.rename("here", f"{_FAR}/moved")


#: What a command does -> what the judge finds; nothing where it is in order.
_DEEDS = {
    "success": (lambda: None, ""),
    "one line": (_refused("error: data: wrong"), ""),
    "traceback": (lambda: 1 // 0, "traceback"),
    "two lines": (_refused("error: data: wrong\nsee above"), "message"),
    "no name": (_refused("error: wrong"), "names none"),
    "an escape": (_refused("error: data \x1b[31m"), "not printable"),
    "long line": (_refused("error: data " + "x" * 600), "characters"),
    "much output": (lambda: print("x" * 10**5), "prints"),
    "file beside": (lambda: Path("../beside").write_text("x"), "outside"),
    "file out of sight": (lambda: Path(f"{_FAR}/seen").write_text("x"), "outside"),
    "file beside, not by Python": (
        lambda: cv2.imwrite("../beside.png", np.zeros((2, 2), np.uint8)),
        "outside",
    ),
    "folder out of sight": (lambda: os.mkdir(f"{_FAR}/seen-folder"), "outside"),
    "moved out of sight": (_moved, "outside"),
    "canary": (lambda: Path("../CANARY").write_text(""), "the canary sang"),
    "exit code": (lambda: sys.exit(70), "exit code 70"),
    "program": (lambda: subprocess.run(["true"]), "code"),
    "pickle": (lambda: pickle.loads(b"cos\ngetcwd\n."), "unpickles"),
    "memory": (lambda: len(b"x" * (5 * 2**29)), "memory"),
    "crash": (lambda: os.kill(os.getpid(), 9), "signal"),
    "network": (lambda: socket.socket().connect_ex(("127.0.0.1", 9)), "network"),
}


@pytest.mark.parametrize("deed", list(_DEEDS))
def test_the_judge_sees(deed, tmp_path):
    do, finding = _DEEDS[deed]
    root = tmp_path / "root"
    (root / "valid").mkdir(parents=True)
    outcome = judge(Case("x", deed, lambda folder, valid: [], ("data",)), root / "valid", root, _work(do))
    assert (finding in " ".join(outcome.faults)) if finding else not outcome.faults
