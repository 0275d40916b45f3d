from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import label, regionprops
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

from sam_spl.metrics import NativeMetric, count_image, scores
from tests.conftest import GOLDEN


def _bits(name: str, key: str, side: int) -> np.ndarray:
    return np.unpackbits(np.load(GOLDEN / name)[key], axis=1).reshape(-1, side, side).astype(bool)


def test_golden_cases():
    expected = json.loads((GOLDEN / "metrics_expected.json").read_text())
    prob = np.load(GOLDEN / "metrics_cases.npz")["prob"] / 255
    counts = [
        count_image(pred, mask) for pred, mask in zip(prob > 0.5, _bits("metrics_cases.npz", "target", 96), strict=True)
    ]
    result = scores(counts)
    for key in ("iou", "niou", "pd", "fa"):
        assert getattr(result, key) == pytest.approx(expected["native"][key], rel=1e-9)
    assert result.pixel_accuracy == pytest.approx(expected["basicirstd"]["pixel_accuracy"], rel=1e-9)
    assert result.f1 == pytest.approx(expected["sam_spl"]["f1"], rel=1e-9)
    assert (result.images, result.targets, result.detected) == (40, 97, 56)
    assert sum(count.false_alarm_pixels for count in counts) == expected["counts"]["false_alarm_pixels"]


def test_golden_crowded_cases_where_the_order_of_matching_decides():
    expected = json.loads((GOLDEN / "metrics_dense_expected.json").read_text())
    per_image = np.load(GOLDEN / "metrics_dense_cases.npz")["per_image_detected_and_false_pixels"]
    preds, masks = (_bits("metrics_dense_cases.npz", key, 16) for key in ("pred", "target"))
    counts = [count_image(pred, mask) for pred, mask in zip(preds, masks, strict=True)]
    assert [[c.detected, c.false_alarm_pixels] for c in counts] == per_image.tolist()
    result = scores(counts)
    assert (result.targets, result.detected) == (expected["targets"], expected["detected"])
    assert result.iou == pytest.approx(expected["iou"], rel=1e-9)
    assert result.niou == pytest.approx(expected["niou_empty_one"], rel=1e-9)


def test_iou_counts_pixels_over_the_dataset_not_per_image():
    preds = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool).reshape(2, 1, 4)
    masks = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool).reshape(2, 1, 4)
    result = scores(count_image(p, m) for p, m in zip(preds, masks, strict=True))
    assert result.iou == pytest.approx(1 / 3)  # (1 + 0) / (2 + 1), the mean over images would be 1/4
    assert result.niou == pytest.approx(1 / 4)


def _place(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    canvas = np.zeros((32, 32), bool)
    for top, left, height, width in boxes:
        canvas[top : top + height, left : left + width] = True
    return canvas


@pytest.mark.parametrize(
    ("pred", "mask", "detected", "false_pixels"),
    [
        (_place((5, 5, 3, 3)), _place((5, 5, 3, 3)), 1, 0),
        (_place((5, 7, 3, 3)), _place((5, 5, 3, 3)), 1, 0),  # centroids 2 px apart
        (_place((5, 8, 3, 3)), _place((5, 5, 3, 3)), 0, 9),  # exactly 3 px: not nearer than 3
        (
            _place((5, 5, 2, 2), (9, 9, 2, 2)),
            _place((5, 5, 2, 2)),
            1,
            4,
        ),  # as large as the hit, false all the same
        (_place((5, 5, 1, 1)), _place((5, 5, 1, 1), (5, 7, 1, 1)), 1, 0),  # one prediction detects one target
        (
            _place((5, 5, 1, 1), (6, 6, 1, 1)),
            _place((5, 5, 1, 1), (6, 6, 1, 1)),
            1,
            0,
        ),  # touching corners are one
        (_place((0, 0, 32, 32)), _place(), 0, 1024),
        (_place(), _place((0, 0, 1, 1)), 0, 0),
        (_place((0, 31, 1, 1)), _place((0, 31, 1, 1)), 1, 0),
        (
            _place((4, 4, 9, 9)) & ~_place((5, 5, 7, 7)) | _place((8, 8, 1, 1)),
            _place((8, 8, 1, 1)),
            1,
            1,
        ),  # ring
    ],
)
def test_cases_by_eye(pred, mask, detected, false_pixels):
    counts = count_image(pred, mask)
    assert (counts.detected, counts.false_alarm_pixels) == (detected, false_pixels)


def _reference(pred: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """The definition, from scikit-image's regions and nothing of ours: targets, detected, false-alarm pixels."""
    regions = regionprops(label(pred, connectivity=2))
    targets = regionprops(label(mask, connectivity=2))
    used: set[int] = set()
    for target in targets:
        for index, region in enumerate(regions):
            if index not in used and np.linalg.norm(np.subtract(region.centroid, target.centroid)) < 3:
                used.add(index)
                break
    return len(targets), len(used), sum(int(r.area) for i, r in enumerate(regions) if i not in used)


@pytest.mark.parametrize("density", [0.002, 0.05, 0.3])
def test_random_images_equal_an_independent_definition(density):
    rng = np.random.default_rng(int(density * 1000))
    preds, masks, counts = [], [], []
    for _ in range(30):
        mask = ndimage.binary_dilation(rng.random((40, 56)) < density, iterations=int(rng.integers(1, 3)))
        pred = np.roll(mask, rng.integers(-2, 3, 2), (0, 1)) ^ (rng.random(mask.shape) < density / 4)
        preds.append(pred), masks.append(mask)
        counts.append(count_image(pred, mask))
        c = counts[-1]
        assert (c.targets, c.detected, c.false_alarm_pixels) == _reference(pred, mask)
    result = scores(counts)
    p, m = torch.from_numpy(np.stack(preds)), torch.from_numpy(np.stack(masks)).int()
    assert result.iou == pytest.approx(BinaryJaccardIndex()(p, m).item(), rel=1e-6)
    assert result.f1 == pytest.approx(BinaryF1Score()(p, m).item(), rel=1e-6)
    assert result.f1 == pytest.approx(2 * result.iou / (1 + result.iou), rel=1e-12)


def test_empty_data_has_undefined_figures_and_no_exception():
    empty = np.zeros((4, 4), bool)
    result = scores([count_image(empty, empty)])
    assert (result.iou, result.pd, result.pixel_accuracy, result.niou, result.fa) == (
        None,
        None,
        None,
        1.0,
        0.0,
    )
    assert "Pd = -" in result.line()
    assert scores([]).niou is None


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="differ in size"):
        count_image(np.zeros((4, 4), bool), np.zeros((4, 5), bool))


def test_batches_and_order_change_nothing():
    rng = np.random.default_rng(1)
    masks, preds = rng.random((2, 9, 20, 20)) < 0.05
    whole, parts = NativeMetric(), NativeMetric()
    whole.update(range(9), preds, masks)
    for indices in ([7, 8], [0], [3, 1, 2, 6, 5, 4]):
        parts.update(indices, preds[indices], masks[indices])
    assert whole.counts() == parts.counts()
    assert list(parts.counts()) == list(range(9))
