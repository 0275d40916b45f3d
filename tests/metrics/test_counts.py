from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance
from skimage.measure import label, regionprops

from sam_spl.metrics import DatasetCounts, Meter, count_image, scores
from sam_spl.metrics.target import components
from tests.conftest import GOLDEN


def _bits(name: str, key: str, side: int) -> np.ndarray:
    return np.unpackbits(np.load(GOLDEN / name)[key], axis=1).reshape(-1, side, side).astype(bool)


def test_golden_cases():
    expected = json.loads((GOLDEN / "metrics_expected.json").read_text())
    prob = np.load(GOLDEN / "metrics_cases.npz")["prob"] / 255
    counts = [
        count_image(pred, mask)
        for pred, mask in zip(prob > 0.5, _bits("metrics_cases.npz", "target", 96), strict=True)
    ]
    result = scores(DatasetCounts.of(counts))
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
    result = scores(DatasetCounts.of(counts))
    assert (result.targets, result.detected) == (expected["targets"], expected["detected"])
    assert result.iou == pytest.approx(expected["iou"], rel=1e-9)
    assert result.niou == pytest.approx(expected["niou_empty_one"], rel=1e-9)


def test_iou_counts_pixels_over_the_dataset_not_per_image():
    preds = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool).reshape(2, 1, 4)
    masks = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool).reshape(2, 1, 4)
    result = scores(DatasetCounts.of(count_image(p, m) for p, m in zip(preds, masks, strict=True)))
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
    """Targets, detected, false-alarm pixels by definition, from scikit-image's regions, nothing of ours."""
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
    result = scores(DatasetCounts.of(counts))
    p, m = np.stack(preds).ravel(), np.stack(masks).ravel()
    assert result.iou == pytest.approx(1 - distance.jaccard(p, m), rel=1e-12)
    assert result.f1 == pytest.approx(1 - distance.dice(p, m), rel=1e-12)
    assert result.f1 == pytest.approx(2 * result.iou / (1 + result.iou), rel=1e-12)


def test_empty_data_has_undefined_figures_and_no_exception():
    empty = np.zeros((4, 4), bool)
    result = scores(DatasetCounts.of([count_image(empty, empty)]))
    assert (result.iou, result.pd, result.pixel_accuracy, result.niou, result.fa) == (
        None,
        None,
        None,
        1.0,
        0.0,
    )
    assert "Pd = -" in result.line()
    assert scores(DatasetCounts.of([])).niou is None


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="differ in size"):
        count_image(np.zeros((4, 4), bool), np.zeros((4, 5), bool))


def _adversarial() -> list[tuple[np.ndarray, np.ndarray]]:
    ring = _place((4, 4, 20, 20)) & ~_place((6, 6, 16, 16))
    rings = ring | (_place((8, 8, 12, 12)) & ~_place((10, 10, 8, 8))) | _place((13, 13, 2, 2))
    corners = _place((3, 3, 2, 2), (5, 5, 2, 2), (7, 3, 2, 2))
    border = _place((0, 0, 2, 2), (30, 30, 2, 2), (0, 31, 1, 1), (31, 0, 1, 1))
    tie = _place((10, 8, 1, 1), (10, 12, 1, 1))
    equal = _place((2, 2, 2, 2), (2, 10, 2, 2), (2, 18, 2, 2))
    full = np.ones((32, 32), bool)
    shapes = [ring, rings, corners, border, tie, equal, full, ~full, ~border, _place((10, 10, 1, 1))]
    return [(a, b) for a in shapes for b in shapes]


def test_adversarial_shapes_equal_an_independent_definition():
    """Touching corners, nested rings, borders, ties in distance, equal areas, empty and full."""
    for pred, mask in _adversarial():
        for p, m in ((pred, mask), (np.roll(pred, (1, 2), (0, 1)), mask)):
            counts = count_image(p, m)
            assert (counts.targets, counts.detected, counts.false_alarm_pixels) == _reference(p, m)
            assert (counts.intersection, counts.union) == ((p & m).sum(), (p | m).sum())


def test_an_image_of_ten_thousand_targets():
    mask = np.zeros((400, 400), bool)
    mask[::4, ::4] = True
    counts = count_image(mask, mask)
    assert (counts.targets, counts.detected, counts.false_alarms, counts.targets_to_9) == (
        10000,
        10000,
        0,
        10000,
    )


def test_squeezing_empty_rows_and_columns_changes_no_component():
    rng = np.random.default_rng(3)
    for density in (0.0005, 0.003, 0.02):
        binary = ndimage.binary_dilation(rng.random((90, 120)) < density, iterations=1)
        found = components(binary)
        expected = regionprops(label(binary, connectivity=2))  # in raster order
        order = found.raster_order()
        assert [int(found.areas[k]) for k in order] == [int(region.area) for region in expected]
        np.testing.assert_allclose(found.centroids[order][:, ::-1], [r.centroid for r in expected], atol=1e-9)
        boxes = [(r.bbox[1], r.bbox[0], r.bbox[3] - r.bbox[1], r.bbox[2] - r.bbox[0]) for r in expected]
        assert [tuple(box) for box in found.boxes[order].tolist()] == boxes


def test_targets_are_counted_by_their_size():
    mask = _place((1, 1, 3, 3), (1, 10, 2, 5), (10, 1, 5, 5), (10, 10, 9, 9), (22, 1, 9, 9), (22, 20, 9, 10))
    pred = mask & ~_place((10, 10, 9, 9))
    counts = count_image(pred, mask)
    assert counts[9:13] == (1, 2, 2, 1)  # up to 9, 25, 81 and more: 9 | 10, 25 | 81, 81 | 90 px
    assert counts[13:17] == (1, 2, 1, 1)


def test_by_area_a_false_alarm_as_large_as_a_hit_vanishes():
    pred, mask = _place((5, 5, 2, 2), (20, 20, 2, 2), (25, 5, 1, 3)), _place((5, 5, 2, 2))
    counts = count_image(pred, mask)
    assert (counts.false_alarm_pixels, counts.false_alarm_pixels_by_area) == (7, 3)
    assert count_image(pred, _place()).false_alarm_pixels_by_area == 11


def test_batches_shards_and_order_change_nothing():
    rng = np.random.default_rng(1)
    masks, probs = rng.random((9, 20, 20)) < 0.05, rng.random((9, 20, 20))
    whole, parts = Meter(detailed=True), Meter(detailed=True)
    whole.update(range(9), [{"own": prob} for prob in probs], masks)
    for indices in ([7, 8], [0], [3, 1, 2, 6, 5, 4], [2]):  # one of them twice
        parts.update(indices, [{"own": probs[k]} for k in indices], masks[indices])
    a, b = whole.counts(), parts.counts()
    np.testing.assert_array_equal(a.indices, b.indices)
    for view in a.views:
        np.testing.assert_array_equal(a.views[view], b.views[view])
    np.testing.assert_array_equal(a.hierarchical, b.hierarchical)
    np.testing.assert_array_equal(a.curves, b.curves)
    assert scores(a) == scores(b)


def test_a_further_false_alarm_never_lowers_fa():
    rng = np.random.default_rng(5)
    for _ in range(50):
        mask = ndimage.binary_dilation(rng.random((40, 40)) < 0.004, iterations=1)
        pred = ndimage.binary_dilation(rng.random((40, 40)) < 0.004, iterations=1)
        free = ndimage.distance_transform_edt(~(pred | mask)) > 6
        if not free.any():
            continue
        more = pred.copy()
        more[tuple(rng.choice(np.argwhere(free)))] = True
        assert count_image(more, mask).false_alarm_pixels == count_image(pred, mask).false_alarm_pixels + 1


def test_mirrored_images_give_equal_figures():
    """Where no two candidates compete: the raster order of matching has a direction."""
    rng = np.random.default_rng(6)
    for _ in range(30):
        mask, pred = np.zeros((2, 64, 64), bool)
        for row in range(4, 60, 14):
            for column in range(4, 60, 14):
                h, w = rng.integers(1, 5, 2)
                if rng.random() < 0.6:
                    mask[row : row + h, column : column + w] = True
                if rng.random() < 0.6:
                    y, x = np.add((row, column), rng.integers(-2, 3, 2))
                    pred[max(0, y) : y + h, max(0, x) : x + w] = True
        for change in (np.fliplr, np.flipud, np.transpose):
            assert count_image(change(pred), change(mask)) == count_image(pred, mask)
