from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import shift

from sam_spl.data.check import check_split, examples, table
from sam_spl.data.config import DatasetConfig
from sam_spl.data.duplicates import perceptual_hash
from sam_spl.data.layout import find_split
from sam_spl.data.synthetic import SyntheticSource
from tests.conftest import write_palette_png


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Twelve generated scenes, eight to train on and four to test on, each with targets."""
    source = SyntheticSource(12, 128, seed=5, scr=(8, 12), areas=(9, 60), empty=0.0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for index in range(12):
        image, mask = source.load(index)
        cv2.imwrite(str(tmp_path / "images" / f"s{index:02d}.png"), image)
        cv2.imwrite(str(tmp_path / "masks" / f"s{index:02d}.png"), mask.astype(np.uint8) * 255)
    (tmp_path / "train.txt").write_text("\n".join(f"s{index:02d}" for index in range(8)))
    (tmp_path / "test.txt").write_text("\n".join(f"s{index:02d}" for index in range(8, 12)))
    return tmp_path


def _check(root: Path, **known) -> dict:
    return check_split(
        find_split(root, skip_missing=True), DatasetConfig.named("custom", data_path=str(root), **known)
    )


def _image(root: Path, index: int) -> np.ndarray:
    return cv2.imread(str(root / "images" / f"s{index:02d}.png"), cv2.IMREAD_UNCHANGED)


def _write(root: Path, folder: str, index: int, content: np.ndarray) -> None:
    cv2.imwrite(str(root / folder / f"s{index:02d}.png"), content)


def test_a_sound_set_is_counted_and_nothing_is_wrong(scenes):
    report = {"dataset": "scenes"} | _check(scenes, published_splits=["8/4"])
    assert "sizes           128x128 (12)\n" in table(report)
    images = np.stack([_image(scenes, index) for index in range(8)]) / 255
    assert report["images"] == {"train": 8, "val": 0, "test": 4}
    assert report["train_mean"] == pytest.approx(images.mean(), abs=1e-5)
    assert report["train_std"] == pytest.approx(images.std(), abs=1e-5)
    assert report["sizes"] == {"128x128": 12}
    assert report["modes"] == {"grey, 8 bits": 12}
    assert report["mask_values"] == {"[0, 255]": 12}
    assert sum(int(n) * count for n, count in report["targets_per_image"].items()) == report["targets"]
    assert (report["wrong"], report["noteworthy"]) == ([], [])


def _other_size(root: Path) -> None:
    _write(root, "masks", 1, np.full((9, 9), 255, np.uint8))


def _grey_mask(root: Path) -> None:
    _write(
        root, "masks", 1, np.where(np.arange(128) % 128 == 5, 100, 0)[None].repeat(128, 0).astype(np.uint8)
    )


def _inverted(root: Path) -> None:
    mask = cv2.imread(str(root / "masks" / "s01.png"), 0)
    _write(root, "masks", 1, 255 - mask)


def _broken(root: Path) -> None:
    (root / "images" / "s01.png").write_bytes(b"\x89PNG nothing")


def _no_mask(root: Path) -> None:
    (root / "masks" / "s01.png").unlink()


def _overlap(root: Path) -> None:
    (root / "test.txt").write_text("s01\ns09")


def _copied(root: Path) -> None:
    _write(root, "images", 9, _image(root, 1))


@pytest.mark.parametrize(
    ("damage", "key", "text"),
    [
        (_other_size, "mask_of_another_size", "another size than the image, first s01"),
        (_grey_mask, "mask_read_as_empty", "none above half, which count as empty, first s01"),
        (_inverted, "target_too_large", "more than 5 % .* first s01. Inverted"),
        (_broken, "unreadable", "cannot be read, first s01"),
        (_no_mask, "missing", r"without file or mask, first s01\. .*missing=skip"),
        (_overlap, "in_train_and_test", "both the training and the test list, first s01"),
        (_copied, "exact_duplicates", "equal, pixel for pixel, to training ones, first s01 = s09"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(scenes, damage, key, text):
    damage(scenes)
    report = _check(scenes)
    assert len(report[key]) == 1
    (wrong,) = report["wrong"]
    assert re.search(text, wrong)


def test_modes_are_told_apart(scenes):
    grey = _image(scenes, 0)
    colour = np.dstack([grey, grey // 2, grey])
    _write(scenes, "images", 0, np.dstack([grey] * 3))
    _write(scenes, "images", 1, colour)
    _write(scenes, "images", 2, np.dstack([colour, grey]))
    _write(scenes, "images", 3, grey.astype(np.uint16) * 257)
    write_palette_png(scenes / "images" / "s04.png", grey, np.stack([np.arange(256, dtype=np.uint8)] * 3, -1))
    modes = _check(scenes)["modes"]
    assert modes.pop("grey, 8 bits") == 7
    assert modes == {
        "grey stored as colour, 8 bits": 1,
        "colour, 8 bits": 1,
        "colour with alpha, 8 bits": 1,
        "grey, 16 bits": 1,
        "palette, 8 bits": 1,
    }


def test_masks_of_other_images_are_noticed(scenes):
    """With the masks of other images, targets no longer stand out."""
    masks = [cv2.imread(str(scenes / "masks" / f"s{index:02d}.png"), 0) for index in range(8)]
    for index in range(8):
        _write(scenes, "masks", index, masks[(index + 3) % 8])
    assert len(_check(scenes)["target_not_visible"]) >= 6


@pytest.mark.parametrize(
    ("scale", "values"),
    [(np.float32(1), "[0.0, 1.0]"), (np.float32(255), "[0.0, 255.0]"), (np.int32(255), "[0, 255]")],
)
def test_masks_of_floats_and_wide_integers_are_measured_too(scenes, scale, values):
    mask = cv2.imread(str(scenes / "masks" / "s01.png"), 0) > 0
    (scenes / "masks" / "s01.png").unlink()
    cv2.imwrite(str(scenes / "masks" / "s01.tiff"), mask * scale)
    report = _check(scenes)
    assert (report["wrong"], report["noteworthy"]) == ([], [])
    assert report["mask_values"].pop(values) == (12 if values == "[0, 255]" else 1)


@pytest.mark.parametrize("change", ["noise", "moved", "brighter"])
def test_neighbouring_frames_across_the_split_are_found(scenes, change):
    rng = np.random.default_rng(0)
    image = _image(scenes, 2).astype(np.float32)
    frames = {
        "noise": image + rng.normal(0, 3, image.shape),
        "moved": shift(image, (1, 1), mode="nearest"),
        "brighter": 1.1 * image + 5,
    }
    _write(scenes, "images", 10, np.clip(frames[change], 0, 255).astype(np.uint8))
    report = _check(scenes)
    assert report["exact_duplicates"] == []
    assert report["near_duplicates"] == [["s02", "s10"]]


def test_the_hash_ignores_brightness_and_contrast():
    rng = np.random.default_rng(1)
    grey = cv2.GaussianBlur(rng.random((90, 120), dtype=np.float32), (0, 0), 6)
    np.testing.assert_array_equal(perceptual_hash(grey), perceptual_hash(0.5 * grey + 0.2))
    other = cv2.GaussianBlur(rng.random((90, 120), dtype=np.float32), (0, 0), 6)
    assert 20 < (perceptual_hash(grey) != perceptual_hash(other)).sum() < 44  # as unlike as chance


def test_the_picture_shows_findings_first_and_no_image_twice(scenes):
    _copied(scenes)
    _write(scenes, "masks", 9, cv2.imread(str(scenes / "masks" / "s01.png"), 0))
    _inverted(scenes)
    report = _check(scenes)
    shown = examples(find_split(scenes), report, 5)
    captions = {item.name: caption for item, caption in shown}
    assert list(captions)[:2] == ["s01", "s09"]
    assert captions["s01"] == "s01 (train)\ntarget too large"
    assert captions["s09"] == "s09 (test)\nlooks like s01"
    assert len(captions) == len(shown) == 5


def test_lists_are_compared_with_the_published_ones(scenes):
    official = [entry["sha256"] for entry in _check(scenes)["fingerprints"].values()]
    assert _check(scenes, published_splits=["8/4"], official_lists=official)["wrong"] == []
    assert "published results use 663/664" in _check(scenes, published_splits=["663/664"])["wrong"][0]
    (scenes / "train.txt").write_text("\n".join(f"s{index:02d}" for index in (0, 1, 2, 3, 4, 5, 6, 11)))
    (scenes / "test.txt").write_text("\n".join(f"s{index:02d}" for index in (7, 8, 9, 10)))
    assert (
        "other names than the official"
        in _check(scenes, published_splits=["8/4"], official_lists=official)["wrong"][0]
    )


def test_the_real_sirst_has_one_scene_on_both_sides_of_its_split(sirst):
    report = check_split(find_split(sirst, "50_50"), DatasetConfig.named("sirst"))
    assert report["wrong"] == []
    assert report["near_duplicates"] == [["Misc_201", "Misc_204"]]
    assert (report["targets"], report["target_not_visible"]) == (533, [])
