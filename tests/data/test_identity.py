"""A set under another one's name is found out; a part of it, or other lists, are only stated."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.identity import Identity, identify
from sam_spl.data.layout import Item, Split


def _split(counts: str, *, val: int = 0, prefix: str = "a") -> Split:
    """Names alone: nothing of it lies on disk."""
    train, test = (int(count) for count in counts.split("/"))

    def items(role: str, count: int) -> tuple[Item, ...]:
        return tuple(Item(f"{prefix}{role}{k}", Path("absent.png"), Path("absent.png")) for k in range(count))

    return Split(Path("somewhere"), "50_50", items("train", train), items("val", val), items("test", test))


@pytest.mark.parametrize(
    ("name", "counts", "size", "mismatch", "remark"),
    [
        ("nudt_sirst", "663/664", (256, 256), None, None),
        ("irstd_1k", "800/201", (512, 512), None, None),
        ("irdst", "32523/8130", (480, 720), None, None),  # its images are of several sizes
        # Another set's counts, more than there are, or images that cannot be its own.
        ("irstd_1k", "663/664", (512, 512), "its 663/664 images are those of NUDT-SIRST", None),
        ("sirst", "800/201", (200, 300), "its 800/201 images are those of IRSTD-1k", None),
        ("nudt_sirst", "1000/664", (256, 256), "it has 1664 images and not 1327", None),
        ("nudt_sirst", "663/664", (512, 512), "its images are 512x512 and not 256x256", None),
        ("nudt_sirst", "30/20", (100, 200), "its images are 200x100 and not 256x256", None),
        # A part, or lists of one's own.
        ("nudt_sirst", "30/20", (256, 256), None, "30/20 images, published results use 663/664"),
        ("sirst", "300/127", (200, 300), None, "300/127 images, published results use 256/85/86 or 213/214"),
        ("sirst", "213/214", (200, 300), None, "other names than the official ones"),
        ("custom", "213/214", (200, 300), None, None),  # nothing is known of it
    ],
)
def test_counts_and_sizes_tell_another_set_from_a_part_of_it(name, counts, size, mismatch, remark):
    identity = identify(DatasetConfig.named(name, data_path="somewhere"), _split(counts), [size] * 5)
    for got, expected in ((identity.mismatch, mismatch), (identity.remark, remark)):
        assert (got is None) is (expected is None), got
        assert expected is None or (expected in got and "\n" not in got)


def test_one_image_of_another_size_is_no_other_set():
    split = _split("663/664")
    assert identify(DatasetConfig.named("nudt_sirst"), split, [(256, 256)] * 3 + [(9, 9)] * 2) == Identity()
    assert (
        identify(DatasetConfig.named("nudt_sirst"), split, [(256, 256)] * 2 + [(9, 9)] * 3).mismatch
        is not None
    )
    assert (
        identify(DatasetConfig.named("nudt_sirst"), split) == Identity()
    )  # none can be read: the reader will say so


@pytest.mark.parametrize("lists", ["50_50", "idx_427"])
def test_the_real_sirst_is_itself_and_no_other_set(sirst, lists):
    assert (
        open_dataset(DatasetConfig.named("sirst", data_path=str(sirst), lists=lists)).identity == Identity()
    )
    held_out = open_dataset(DatasetConfig.named("sirst", data_path=str(sirst), lists=lists), val_share=0.2)
    assert held_out.identity == Identity()
    for other in ("nudt_sirst", "irstd_1k", "sirst_v2", "sirst_aug", "irdst", "irstdid_sky", "nudt_sea"):
        identity = open_dataset(DatasetConfig.named(other, data_path=str(sirst), lists=lists)).identity
        assert "its lists are those of SIRST" in identity.mismatch
        assert identity.remark is None


def test_a_part_of_the_real_sirst_is_stated_and_its_sizes_are_read(sirst, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(sirst / name)
    for role, count in (("train", 9), ("test", 5)):
        names = (sirst / "50_50" / f"{role}.txt").read_text().split()[:count]
        (tmp_path / f"{role}.txt").write_text("\n".join(names))
    identity = open_dataset(DatasetConfig.named("sirst", data_path=str(tmp_path))).identity
    assert identity.mismatch is None
    assert "SIRST with 9/5 images" in identity.remark
    assert (
        " and not 256x256"
        in open_dataset(DatasetConfig.named("nudt_sirst", data_path=str(tmp_path))).identity.mismatch
    )


def test_a_broken_image_is_left_to_who_needs_it(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for stem in ("a", "b", "c"):
            cv2.imwrite(str(tmp_path / name / f"{stem}.png"), np.zeros((256, 256), np.uint8))
    (tmp_path / "train.txt").write_text("a\nb")
    (tmp_path / "test.txt").write_text("c")
    (tmp_path / "images" / "a.png").write_bytes(b"broken")
    data = open_dataset(DatasetConfig.named("nudt_sirst", data_path=str(tmp_path)))
    assert (data.identity.mismatch, len(data.part("test").open())) == (None, 1)
