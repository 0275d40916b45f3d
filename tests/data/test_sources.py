from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.data.layout import find_split
from sam_spl.data.sources import FolderSource
from sam_spl.errors import InputError
from tests.conftest import ROOT, write_folder


def test_unreadable_files_and_masks_of_another_size_are_named(folder):
    cv2.imwrite(str(folder / "masks" / "im_1.png"), np.zeros((5, 7), np.uint8))
    with pytest.raises(InputError, match=r"im_1\.png is 7x5, its image im_1\.png 40x48"):
        FolderSource(find_split(folder).train)
    (folder / "images" / "im_0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"im_0\.png is not a readable image"):
        FolderSource(find_split(folder).train)


def test_images_are_read_once(folder):
    source = FolderSource(find_split(folder).train)
    first = [array.copy() for array in source.load(0)]
    for path in (folder / "images").iterdir():
        path.unlink()
    for array, before in zip(source.load(0), first, strict=True):
        np.testing.assert_array_equal(array, before)
        assert array.flags.writeable and array.dtype == before.dtype


@pytest.mark.parametrize("limit", [0, 3000, 10_000, 10**9])
def test_no_more_bytes_are_kept_than_the_limit(tmp_path, limit):
    """The first image is a small one, so nothing follows from its size."""
    root = write_folder(tmp_path / "s", count=12, size=(60, 50))
    cv2.imwrite(str(root / "images" / "im_0.png"), np.zeros((2, 2), np.uint8))
    cv2.imwrite(str(root / "masks" / "im_0.png"), np.zeros((2, 2), np.uint8))
    items = sorted(find_split(root).images("all"), key=lambda item: item.name)
    source, size = FolderSource(items, limit), 2 * 60 * 50  # of an image and its mask
    for path in (root / "images").iterdir():
        path.unlink()
    kept = 0
    for index in range(len(items)):
        try:
            kept += sum(array.nbytes for array in source.load(index))
        except InputError:  # read from disk
            continue
    assert kept <= limit
    assert kept >= min(limit, 11 * size) - size


def test_the_kept_images_are_not_sent_to_other_processes(folder):
    items = find_split(folder).train
    source = FolderSource(items)
    assert len(pickle.dumps(source)) == len(pickle.dumps(FolderSource(items, 0)))
    copy = pickle.loads(pickle.dumps(source))
    assert (len(copy), copy.name(1)) == (4, "im_1")
    for array, again in zip(source.load(1), copy.load(1), strict=True):
        np.testing.assert_array_equal(array, again)


def test_every_kind_of_image_is_kept_as_it_is_read(tmp_path):
    """Sides of odd length, so that 16-bit images do not follow each other at even places by chance."""
    root = write_folder(tmp_path / "kinds", count=6, size=(41, 33))
    rng = np.random.default_rng(1)
    for index, (shape, dtype) in enumerate((((41, 33), np.uint16), ((41, 33, 3), np.uint8)) * 2):
        values = rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
        cv2.imwrite(str(root / "images" / f"im_{index}.png"), values)
    items = find_split(root).images("all")
    kept, read = FolderSource(items), FolderSource(items, 0)
    for index in range(len(items)):
        for array, again in zip(kept.load(index), read.load(index), strict=True):
            assert array.dtype == again.dtype
            assert array.flags.aligned
            np.testing.assert_array_equal(array, again)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the kernel lists no mappings")
def test_forked_processes_read_the_same_bytes_of_one_file(folder):
    """The kernel's own list of mappings: one file without a name, by its inode, in parent and child."""
    source = FolderSource(find_split(folder).train)

    def mapped() -> set[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return {line.split()[4] for line in lines if tempfile.gettempdir() in line and "(deleted)" in line}

    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b" ".join(inode.encode() for inode in mapped()))
        os._exit(0)
    os.waitpid(child, 0)
    inodes = mapped()
    assert len(inodes) >= 1
    assert set(os.read(read, 1000).decode().split()) == inodes
    assert len(source) == 4


@pytest.mark.parametrize("images", [2, 4])
def test_nothing_is_left_on_the_disk_by_a_killed_process(folder, tmp_path, images):
    """Killed while it decodes the third image, and when all four are kept."""
    kept = tmp_path / "temporary"
    kept.mkdir()
    script = f"""
import os, signal
from pathlib import Path
from sam_spl.data import sources
from sam_spl.data.layout import find_split

read, count = sources.read_pair, iter(range(99))

def read_pair(item):
    if next(count) == {images}:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(item)

sources.read_pair = read_pair
kept = sources.FolderSource(find_split(Path({str(folder)!r})).train)
assert len(kept) == 4
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "TMPDIR": str(kept), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(kept.iterdir()) == []


def test_a_full_disk_is_a_smaller_limit(folder, monkeypatch):
    """The disk has room for two of the four images, and for a part of the third."""
    items, room, write = find_split(folder).train, 2 * 2 * 48 * 40 + 100, os.pwrite

    def pwrite(file: int, content: bytes, start: int) -> int:
        if start >= room:
            raise OSError(28, "No space left on device")
        return write(file, content[: room - start], start)

    monkeypatch.setattr(os, "pwrite", pwrite)
    source = FolderSource(items)
    monkeypatch.undo()
    expected = [FolderSource(items, 0).load(index)[0] for index in range(4)]
    for index in range(4):
        np.testing.assert_array_equal(source.load(index)[0], expected[index])
    for path in (folder / "images").iterdir():
        path.unlink()
    kept = 0
    for index in range(4):
        try:
            source.load(index)
            kept += 1
        except InputError:
            pass
    assert kept == 2
