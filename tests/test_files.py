"""A folder is written by one process at a time."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from sam_spl import files
from sam_spl.errors import InputError
from sam_spl.files import lock


def _hold(folder, ready, done) -> None:
    with lock(folder):
        ready.set()
        done.wait(60)


def test_a_folder_that_another_process_writes_is_refused_until_it_ends(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "run", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        message = r"run: another process is writing there\. Wait until it ends"
        with pytest.raises(InputError, match=message), lock(tmp_path / "run"):
            pass
        with lock(tmp_path / "another"):  # each folder has a lock of its own
            pass
    finally:
        done.set()
        other.join()
    with lock(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()


def test_a_process_that_was_killed_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    assert ready.wait(60)
    other.kill()
    other.join()
    assert (tmp_path / ".lock").exists()
    with lock(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


def test_nothing_is_left_of_a_block_that_wrote_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    for name, stays in (("new", False), ("there", True)):
        with pytest.raises(KeyError), lock(tmp_path / name):
            raise KeyError
        assert (tmp_path / name).exists() == stays
    with lock(tmp_path / "new"):
        (tmp_path / "new" / "file").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_without_locks_of_the_system_a_folder_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with lock(tmp_path), lock(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot write .*Permission denied"), lock(tmp_path / "a"):
        pass
    tmp_path.chmod(0o700)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match=f"cannot write {tmp_path / 'a'}"), lock(tmp_path / "a"):
        pass
