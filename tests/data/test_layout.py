from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.data.catalog import hold_out
from sam_spl.data.layout import find_root, find_split, fingerprint
from sam_spl.data.pairing import IMAGE_SUFFIXES, files_below
from sam_spl.data.sources import FolderSource
from sam_spl.errors import InputError
from tests.conftest import write_folder


def _names(items) -> list[str]:
    return [item.name for item in items]


def test_lists_at_the_root_without_trailing_newline(folder):
    split = find_split(find_root(folder, ["mine"]))
    assert _names(split.train) == ["im_0", "im_1", "im_2", "im_3"]
    assert _names(split.test) == ["im_4", "im_5"]
    assert split.val == ()


def test_lists_with_extensions_crlf_blank_lines_and_a_byte_order_mark(folder):
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbfim_2.png\r\n\r\nim_0.png\r\nim_2\r\n")
    assert _names(find_split(folder).train) == ["im_2", "im_0"]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("img_idx", ("train_NUDT-SIRST", "test_NUDT-SIRST")),
        ("50_50", ("train", "test")),
        (".", ("trainval", "test")),
    ],
)
def test_lists_in_the_folders_of_the_published_sets(tmp_path, where, names):
    root = write_folder(tmp_path / "NUDT-SIRST")
    (root / where).mkdir(exist_ok=True)
    for name, content in zip(names, ("im_0\nim_1\n", "im_5\n"), strict=True):
        (root / where / f"{name}.txt").write_text(content)
    split = find_split(root)
    assert (split.lists, _names(split.train), _names(split.test)) == (where, ["im_0", "im_1"], ["im_5"])


def test_val_is_not_part_of_train_when_there_is_trainval_too(tmp_path):
    root = write_folder(
        tmp_path / "s", lists={"train": [0, 1], "val": [2], "trainval": [0, 1, 2], "test": [3]}
    )
    split = find_split(root)
    assert (_names(split.train), _names(split.val)) == (["im_0", "im_1"], ["im_2"])


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VALID_mine"])
def test_validation_lists_in_their_spellings(tmp_path, name):
    root = write_folder(tmp_path / "s", lists={"train": [0, 1], name: [2], "test": [3]})
    if name == "VALID_mine":
        for role in ("train", "test"):
            (root / f"{role}.txt").rename(root / f"{role}_mine.txt")
    split = find_split(root)
    assert (_names(split.train), _names(split.val), _names(split.test)) == (
        ["im_0", "im_1"],
        ["im_2"],
        ["im_3"],
    )


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_validation_folders_in_their_spellings(tmp_path, name):
    for folder, count in (("train", 3), (name, 1), ("test", 2)):
        write_folder(tmp_path / "s" / folder, count=count)
    split = find_split(find_root(tmp_path, ["s"]))
    assert [len(split.images(role)) for role in ("train", "val", "test")] == [3, 1, 2]


def test_several_splits_must_be_chosen_from(folder):
    (folder / "50_50").mkdir()
    for name in ("train", "test"):
        (folder / "50_50" / f"{name}.txt").write_text("im_0")
    with pytest.raises(InputError, match=r"holds 2 splits .* --lists"):
        find_split(folder)
    assert _names(find_split(folder, "50_50").train) == ["im_0"]
    assert _names(find_split(folder, "5050").train) == ["im_0"]  # what YAML makes of 50_50
    with pytest.raises(InputError, match="Nearest: 50_50"):
        find_split(folder, "50-51")


@pytest.mark.parametrize("train", ["train", "trainval"])
def test_split_folders(tmp_path, train):
    write_folder(tmp_path / "s" / train, count=3)
    write_folder(tmp_path / "s" / "test", count=2)
    split = find_split(find_root(tmp_path / "s", ["s"]))
    assert (len(split.train), len(split.test)) == (3, 2)


def test_without_lists_the_split_is_fixed_by_the_names(tmp_path):
    root = write_folder(tmp_path / "s", count=40)
    split = find_split(root)
    assert len(split.train) + len(split.test) == 40
    assert 2 <= len(split.test) <= 14
    assert set(_names(split.train)).isdisjoint(_names(split.test))
    (root / "images" / "im_39.png").unlink()
    fewer = find_split(root)
    assert set(_names(fewer.test)) == set(_names(split.test)) - {"im_39"}  # no image changed sides


@pytest.mark.parametrize("spelling", ["SIRST", "sirst", "NUAA-SIRST", "nuaa_sirst"])
def test_the_set_is_found_under_its_names(tmp_path, spelling):
    write_folder(tmp_path / spelling)
    assert find_root(tmp_path, ["SIRST", "NUAA-SIRST"]) == tmp_path / spelling


def test_one_more_folder_of_an_archive_and_capital_folders(tmp_path):
    inner = write_folder(tmp_path / "IRSTDID-800" / "IRSTDID-SKY")
    (inner / "images").rename(inner / "Images")
    (inner / "masks").rename(inner / "Masks")
    root = find_root(tmp_path, ["IRSTDID-SKY", "IRSTDID-800"])
    assert root == inner
    assert len(find_split(root).train) > 0


@pytest.mark.parametrize("ending", ["_pixels0", "_mask", "_label", ""])
def test_mask_endings(tmp_path, ending):
    root = write_folder(tmp_path / "s", count=2)
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(path.stem + ending + path.suffix))
    split = find_split(root)
    masks = {item.name: item.mask.stem for item in split.train + split.test}
    assert masks == {"im_0": f"im_0{ending}", "im_1": f"im_1{ending}"}


def _remove_mask(root: Path) -> None:
    (root / "masks" / "im_3.png").unlink()


def _empty_list(root: Path) -> None:
    (root / "train.txt").write_text("\n")


def _absent_image(root: Path) -> None:
    (root / "train.txt").write_text("im_0\nim_77\nim_78")


def _latin_list(root: Path) -> None:
    (root / "train.txt").write_bytes("im_0\nBär\n".encode("latin-1"))


def _no_masks(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove_mask, r"1 of 4 images in .*train\.txt have no mask, first im_3 "),
        (_empty_list, r"the list .*train\.txt is empty"),
        (_absent_image, r"the list .*train\.txt names 2 of 3 images that are not there, first im_77, im_78"),
        (_latin_list, r"the list .*train\.txt is not UTF-8 text .* Save it as UTF-8"),
        (_no_masks, "no masks/ folder"),
    ],
)
def test_damaged_sets_say_what_where_and_how_to_fix_it(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        find_split(find_root(folder, ["mine"]))


def test_an_absent_folder_and_an_absent_set(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        find_root(tmp_path / "nowhere", ["SIRST"])
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"no folder named SIRST .*found: other"):
        find_root(tmp_path, ["SIRST"])


def test_hold_out_takes_a_share_and_leaves_the_rest_in_order(folder):
    items = find_split(folder).train
    train, val = hold_out(items, 0.25, seed=1)
    assert len(val) == 1
    assert [item for item in items if item not in val] == list(train)
    assert hold_out(items, 0.25, seed=1) == (train, val)


def test_fingerprints_ignore_order(folder):
    items = find_split(folder).train
    assert fingerprint(items) == fingerprint(items[::-1])
    assert fingerprint(items) != fingerprint(items[1:])


@pytest.mark.parametrize(
    ("lists", "counts", "train_list"),
    [
        ("50_50", (213, 0, 214), "b2365b71"),
        ("idx_427", (256, 85, 86), "f1e4856c"),
    ],
)
def test_the_real_sirst(sirst, lists, counts, train_list):
    split = find_split(find_root(sirst.parent, ["SIRST"]), lists)
    assert (len(split.train), len(split.val), len(split.test)) == counts
    assert set(_names(split.train)).isdisjoint(_names(split.test))
    assert fingerprint(split.train).startswith(train_list)


def test_the_real_sirst_reads_whole(sirst):
    split = find_split(sirst, "50_50")
    areas, channels = [], set()
    for part in (split.train, split.test):
        source = FolderSource(part)
        for index in range(len(source)):
            image, mask = source.load(index)
            channels.add(image.ndim)
            count, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
            areas += stats[1:count, cv2.CC_STAT_AREA].tolist()
    assert (len(areas), np.median(areas)) == (533, 20)  # as published
    assert channels <= {2, 3}


def test_files_below_are_those_of_rglob_in_the_order_of_their_parts(tmp_path):
    for name in (
        "b/2.PNG",
        "b/1.png",
        "b-c/1.png",
        "a.png",
        "a b/x y.tif",
        ".png",
        "z.",
        "c/d/e.f.jpg",
        "q.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    paths = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    expected = [(path.relative_to(tmp_path).with_suffix("").as_posix(), path) for path in paths]
    assert len(expected) == 6
    assert list(files_below(tmp_path).items()) == expected
    assert list(files_below(tmp_path, nested=False)) == ["a"]
