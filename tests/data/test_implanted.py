from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.implanted import CameraFrame, ImplantedSource, find_frames
from sam_spl.data.targets import Targets
from sam_spl.data.varied import VariedSource
from sam_spl.errors import InputError

ALWAYS = Targets(areas=(10, 40), empty=0)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def grey(seed: int, kind: type = np.uint8) -> np.ndarray:
    full = np.iinfo(kind).max
    return np.random.default_rng(seed).integers(full // 4, full // 3, (80, 100)).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_outside_the_targets_a_frame_is_as_it_is_stored(tmp_path, kind):
    frames = [CameraFrame(write(tmp_path / f"{k}.png", grey(k, kind))) for k in range(3)]
    source = ImplantedSource(frames, 12, seed=5, targets=ALWAYS)
    for index in range(12):
        image, mask = source.load(index)
        stored = grey(index % 3, kind)
        assert image.dtype == kind and image.shape == mask.shape == (80, 100)
        assert mask.any()
        assert (image[mask].astype(int) > stored[mask]).mean() > 0.95
        far = cv2.dilate(mask.view(np.uint8), np.ones((61, 61))) == 0
        np.testing.assert_array_equal(image[far], stored[far])
    again = ImplantedSource(frames, 3, seed=5, targets=ALWAYS)
    np.testing.assert_array_equal(again.load(2)[0], source.load(2)[0])
    assert (source.load(0)[1] != source.load(3)[1]).any()  # the same frame with other targets
    assert source.name(4) == "0000004-1"


def test_colour_frames_get_grey_targets(tmp_path):
    stored = np.stack([grey(1), grey(2), grey(3)], -1)
    source = ImplantedSource([CameraFrame(write(tmp_path / "c.png", stored[..., ::-1]))], 1, targets=ALWAYS)
    added = source.load(0)[0].astype(int) - stored
    assert added.max() > 10
    assert np.ptp(added, axis=-1).max() <= 1  # by rounding


def test_known_targets_stay_and_new_ones_keep_away(tmp_path):
    known = np.zeros((80, 100), np.uint8)
    known[20:40, 20:60] = 255
    write(tmp_path / "images" / "a.png", grey(1))
    write(tmp_path / "images" / "sub" / "b.png", grey(2))
    write(tmp_path / "masks" / "a.png", known)
    frames = find_frames(tmp_path)
    assert [(one.image.name, one.mask and one.mask.name) for one in frames] == [
        ("a.png", "a.png"),
        ("b.png", None),
    ]
    for index in range(0, 20, 2):
        image, mask = ImplantedSource(frames, 20, targets=ALWAYS).load(index)
        assert mask[20:40, 20:60].all()
        assert mask.sum() > 800 or (image == grey(1)).all()


def test_the_last_fifth_of_the_frames_is_for_tests_alone(tmp_path):
    for k in range(10):
        write(tmp_path / "deep" / f"frame_{k:02d}.png", grey(k))
    config = DatasetConfig.named(
        "implanted", data_path=str(tmp_path), synthetic={"train": 40, "test": 10, "areas": [5, 20]}
    )
    data = open_dataset(config, seed=1)
    names = {
        role: {part.open().name(i).rpartition("-")[2] for i in range(part.count)}
        for role, part in data.parts.items()
    }
    assert names == {
        "train": {f"frame_{k:02d}" for k in range(8)},
        "val": set(),
        "test": {"frame_08", "frame_09"},
    }
    other = open_dataset(config, seed=2)
    assert (other.part("train").open().load(0)[1] != data.part("train").open().load(0)[1]).any()
    np.testing.assert_array_equal(other.part("test").open().load(0)[0], data.part("test").open().load(0)[0])


def test_what_cannot_be_used_is_said(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        find_frames(tmp_path / "none")
    with pytest.raises(InputError, match="no images/ folder"):
        find_frames(tmp_path)
    small = CameraFrame(
        write(tmp_path / "f.png", grey(0)), write(tmp_path / "m.png", np.zeros((9, 9), np.uint8))
    )
    with pytest.raises(InputError, match="another size"):
        ImplantedSource([small], 1).load(0)


def test_a_share_of_training_images_is_generated_whole(tmp_path):
    frames = [CameraFrame(write(tmp_path / "a.png", np.full((80, 100), 7, np.uint8)))]
    scenes = VariedSource(200, 64, seed=3)
    source = ImplantedSource(frames, 200, 3, ALWAYS, scenes, 0.3)
    shapes = [source.load(index)[0].shape for index in range(200)]
    assert np.mean([shape == (64, 64) for shape in shapes]) == pytest.approx(0.3, abs=0.1)
    index = shapes.index((64, 64))
    np.testing.assert_array_equal(source.load(index)[0], scenes.load(index)[0])
    synthetic = {"train": 40, "test": 10, "scenes": 1.0}
    data = open_dataset(DatasetConfig.named("implanted", data_path=str(tmp_path), synthetic=synthetic))
    assert {data.part("train").open().load(index)[0].shape for index in range(9)} == {(256, 256)}
    assert {data.part("test").open().load(index)[0].shape for index in range(9)} == {(80, 100)}


def test_numbers_in_names_count_and_no_frame_is_taken_for_a_mask(tmp_path):
    for name in ("f_10", "f_9", "f_2", "a", "a_label"):
        write(tmp_path / f"{name}.png", grey(1))
    frames = find_frames(tmp_path)
    assert [one.image.stem for one in frames] == ["a", "a_label", "f_2", "f_9", "f_10"]
    assert all(one.mask is None for one in frames)
