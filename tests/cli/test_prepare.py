"""``sam-spl prepare``, and what it makes checked by ``sam-spl check``."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.cli.check import CheckConfig, check
from sam_spl.cli.prepare import COMMAND, PrepareConfig, prepare
from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.errors import ConfigError, InputError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six frames of three sequences, and a COCO file of boxes for five of them."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    names = [f"run{k // 2}_{k}.bmp" for k in range(6)]
    for name in names:
        cv2.imwrite(str(tmp_path / "in" / name), rng.integers(0, 255, (24, 32), dtype=np.uint8))
    content = {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
        "annotations": [{"image_id": k, "bbox": [2 * k, 3, 3, 2]} for k in range(5)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return tmp_path / "in"


def _prepare(images: Path, target: Path, **options) -> None:
    labels = {} if {"masks", "labelme"} & options.keys() else {"coco": str(images.parent / "coco.json")}
    prepare(PrepareConfig(**{"images": str(images), "output": str(target)} | labels | options))


def test_a_folder_of_boxes_is_split_by_sequence_checked_and_opened(images, capsys):
    target = images.parent / "mine"
    _prepare(images, target, by="sequence", test=0.3)
    assert capsys.readouterr().out.splitlines() == [
        f"{target}: 4 train, 2 test images, 1 of them without target",
        f"check: sam-spl check {target}",
        f"train: sam-spl train --dataset custom --data_path {target}",
    ]
    test = (target / "test.txt").read_text().split()
    assert len({name[:4] for name in test}) == 1  # one sequence
    mask = cv2.imread(str(target / "masks" / "run1_3.png"), cv2.IMREAD_UNCHANGED)
    assert (mask.dtype, mask.sum() // 255, mask[3, 6]) == (np.uint8, 6, 255)
    assert (target / "images" / "run1_3.bmp").read_bytes() == (images / "run1_3.bmp").read_bytes()

    with pytest.raises(InputError, match="exists and is not empty"):
        _prepare(images, target)

    check(CheckConfig(dataset=str(target), output=str(images.parent / "checks")))
    report = json.loads((images.parent / "checks" / "mine.json").read_text())
    assert (report["targets"], report["areas"]) == (5, [6] * 5)
    assert (images.parent / "checks" / "mine.png").stat().st_size > 10000
    data = open_dataset(DatasetConfig.named("custom", data_path=str(target)))
    assert (data.part("train").count, data.part("test").count) == (4, 2)


def test_masks_among_the_images_are_labels_and_not_images(images, capsys):
    masks = images / "labels"
    masks.mkdir()
    for path in list(images.glob("*.bmp")):
        cv2.imwrite(str(masks / f"{path.stem}_mask.png"), np.eye(24, 32, dtype=np.uint8) * 255)
    target = images.parent / "mine"
    _prepare(images, target, masks=str(masks), link=True)
    output = capsys.readouterr().out
    assert "5 train, 1 test images, 0 of them without target" in output
    assert "note" not in output
    assert (target / "images" / "run0_0.bmp").samefile(images / "run0_0.bmp")
    assert (cv2.imread(str(target / "masks" / "run0_0.png"), 0) == np.eye(24, 32) * 255).all()


def test_masks_without_image_are_counted(images, capsys):
    masks = images.parent / "masks"
    masks.mkdir()
    for name in [*(path.stem for path in images.iterdir()), *(f"other_{k}" for k in range(4))]:
        cv2.imwrite(str(masks / f"{name}.png"), np.eye(24, 32, dtype=np.uint8) * 255)
    _prepare(images, images.parent / "mine", masks=str(masks))
    first, note, *_ = capsys.readouterr().out.splitlines()
    assert "5 train, 1 test images" in first
    assert note == "note: 4 masks have no image and are left out, first other_0, other_1, other_2"
    assert len(list((images.parent / "mine" / "masks").iterdir())) == 6


def test_labelme_files_beside_the_images_are_found(images, capsys):
    for path in list(images.glob("*.bmp")):
        shape = {"shape_type": "rectangle", "points": [[1, 1], [4, 3]]}
        path.with_suffix(".json").write_text(json.dumps({"shapes": [shape]}))
    _prepare(images, images.parent / "mine", labelme=str(images))
    assert cv2.imread(str(images.parent / "mine" / "masks" / "run2_4.png"), 0).sum() == 6 * 255


def test_unlabelled_images_stop_it_and_nothing_is_left_behind(images, capsys):
    cv2.imwrite(str(images / "extra_1.bmp"), np.zeros((24, 32), np.uint8))
    target = images.parent / "mine"
    with pytest.raises(InputError, match="1 of 7 images have no label, first extra_1"):
        _prepare(images, target)
    _prepare(images, target, unlabelled="empty")
    assert len(list((target / "masks").iterdir())) == 7
    _prepare(images, images.parent / "fewer", unlabelled="skip")
    assert "1 without label skipped" in capsys.readouterr().out
    assert len(list((images.parent / "fewer" / "masks").iterdir())) == 6

    (images / "run0_0.bmp").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"run0_0\.bmp is not a readable image"):
        _prepare(images, images.parent / "other", unlabelled="skip")
    assert sorted(path.name for path in images.parent.iterdir()) == ["coco.json", "fewer", "in", "mine"]


def test_masks_of_another_size_than_the_images_stop_it(images):
    runs = {"size": [10, 10], "counts": [100]}
    file = images.parent / "coco.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"annotations": [{"image_id": 0, "segmentation": runs}]}))
    with pytest.raises(InputError, match="annotation 0 is a mask of 10x10, its image is 32x24"):
        _prepare(images, images.parent / "mine")
    assert not (images.parent / "mine").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "masks, coco, labelme: give one of them"),
        ({"masks": "a", "coco": "b"}, "masks, coco, labelme: give one of them"),
        ({"coco": "b", "test": 1.0}, "test, val: 1.0 and 0.0 are not valid"),
        ({"coco": "b", "test": 0.0}, "test, val"),
        ({"coco": "b", "test": 0.6, "val": 0.4}, "test, val"),
        ({"coco": "b", "by": "frame"}, "by: frame is not valid"),
        ({"coco": "b", "unlabelled": "drop"}, "unlabelled: drop is not valid"),
        ({"coco": "b", "seed": -1}, "seed: -1 is not valid"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PrepareConfig(images="images", output="output", **options)


def test_what_the_command_declares():
    assert (COMMAND.name, COMMAND.positional, COMMAND.aliases) == ("prepare", ("images",), {"-o": "output"})
    assert COMMAND.run is prepare
