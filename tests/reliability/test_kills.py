"""Whatever kills a run and whenever: going on gives what the unbroken run gives, bit by bit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from sam_spl.engine.record import PREVIOUS, read_saved
from sam_spl.errors import InputError
from sam_spl.files import lock
from tests.conftest import train
from tests.reliability.kills import MODEL, WORDS, differs, record


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_is_as_one_that_was_not(kills, command):
    """Losses, rows, weights, averages, moments, random numbers, best; no temporary files, no lock."""
    done = command(
        *(sys.executable, "-m", "tests.reliability.kills", "--kills", kills, "--seed", kills),
        env={"OMP_NUM_THREADS": "1"},
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["found"] == []
    assert told["kills"] == kills
    assert kills / 4 < told["by_file"] < kills


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of three epochs, never broken."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train([*WORDS, f"save_dir={folder}"])
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def _flip(file: Path, at: float) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1
    file.write_bytes(content)


def _cut(file: Path, at: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * at)])


@pytest.mark.parametrize("spoil", [_flip, _cut])
@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.8])
def test_a_torn_file_is_known_by_its_checksum_and_the_one_before_taken(spoil, at, whole, copy, caplog):
    spoil(copy / "last.pt", at)
    train([MODEL, "--resume", copy])
    assert (
        f"Going on from the one before, {PREVIOUS}"
        in (copy / "train.log").read_text(encoding="utf-8") + caplog.text
    )
    assert differs(record(whole), record(copy)) == []
    assert read_saved(copy).path == copy / "last.pt"


def test_the_one_before_is_the_one_before(copy):
    (copy / "last.pt").unlink()
    saved = read_saved(copy)
    assert (saved.path, saved.state["epoch"]) == (copy / PREVIOUS, 2)


def test_a_run_of_which_only_the_one_before_is_left_goes_on(copy):
    (copy / "last.pt").unlink()
    train([*WORDS, f"save_dir={copy}", "resume=auto"])
    assert (copy / "last.pt").is_file()


def test_two_torn_files_are_refused(copy):
    for name in ("last.pt", PREVIOUS):
        _flip(copy / name, 0.5)
    with pytest.raises(InputError, match=rf"resume: .*{PREVIOUS} is damaged: its checksums do not fit"):
        read_saved(copy)


def test_what_a_killed_process_left_is_removed_and_what_is_not_ours_stays(copy):
    ours, other = copy / ".last.pt.4711.tmp", copy / ".notes.tmp"
    for file in (ours, other):
        file.touch()
    (copy / ".lock").touch()  # nobody holds it
    with lock(copy) as is_there:
        assert is_there()
        assert not ours.exists()
    assert other.exists()
    assert not (copy / ".lock").exists()
