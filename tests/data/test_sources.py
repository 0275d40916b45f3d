from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from sam_spl.data.layout import find_split
from sam_spl.data.sources import FolderSource
from sam_spl.errors import InputError
from tests.conftest import write_folder


def test_unreadable_files_and_masks_of_another_size_are_named(folder):
    cv2.imwrite(str(folder / "masks" / "im_1.png"), np.zeros((5, 7), np.uint8))
    with pytest.raises(InputError, match=r"im_1\.png is 7x5, its image im_1\.png 40x48"):
        FolderSource(find_split(folder).train)
    (folder / "images" / "im_0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"im_0\.png is not a readable image"):
        FolderSource(find_split(folder).train)


def test_images_are_read_once(folder):
    source = FolderSource(find_split(folder).train)
    first = source.load(0)[0]
    for path in (folder / "images").iterdir():
        path.unlink()
    assert source.load(0)[0] is first


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
