"""Components above every threshold at once, against labelling each threshold alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops

from sam_spl.metrics.branches import states
from sam_spl.metrics.counts import count_image
from sam_spl.metrics.curves import STEPS, THRESHOLDS, curve_counts


def _maps() -> list[np.ndarray]:
    """Of levels: noise, hills, plateaus, flat maps, nested rings that a bridge joins, a checkerboard."""
    rng = np.random.default_rng(0)
    maps = [
        rng.integers(0, top, shape) for top in (2, 4, 30, 201) for shape in ((1, 1), (1, 9), (9, 1), (31, 22))
    ]
    hills = ndimage.gaussian_filter(rng.random((40, 50)), 2)
    hills = (hills - hills.min()) / np.ptp(hills)
    maps += [np.rint(hills * top) for top in (1, 5, 200)]
    maps += [np.full((6, 7), value) for value in (0, 1, 200)]
    rings = np.zeros((15, 15), int)
    for k in range(0, 7, 2):
        rings[k : 15 - k, k : 15 - k] = 100 - k
        rings[k + 1 : 14 - k, k + 1 : 14 - k] = 3
    rings[7, :] = np.maximum(rings[7, :], 50)
    return [
        *(m.astype(np.uint8) for m in maps),
        rings.astype(np.uint8),
        (np.indices((9, 9)).sum(0) % 2 * 7).astype(np.uint8),
    ]


@pytest.mark.parametrize("level", _maps(), ids=lambda level: f"{level.shape} to {level.max()}")
def test_components_equal_those_of_each_threshold_alone(level):
    found = states(level)
    assert len(found.steps) == len(found.areas) == len(found.x) == len(found.y)
    for step in range(0, STEPS + 1):
        at = found.steps == step
        expected = sorted(
            (region.area, region.coords[:, 1].sum(), region.coords[:, 0].sum())
            for region in regionprops(label(level > step, connectivity=2))
        )
        assert sorted(zip(found.areas[at], found.x[at], found.y[at], strict=True)) == expected


def test_a_map_too_large_for_single_precision_keys():
    """300 x 300 pixels x 200 levels are more than float32 tells apart."""
    level = np.random.default_rng(1).integers(0, 201, (300, 300)).astype(np.uint8)
    found = states(level)
    for step in (0, 60, 120, 190):
        areas = np.sort(found.areas[found.steps == step])
        labels = label(level > step, connectivity=2)
        np.testing.assert_array_equal(areas, np.sort(np.bincount(labels.ravel())[1:]))


@pytest.mark.parametrize("seed", range(6))
def test_curves_of_crowded_maps_equal_the_counts_of_each_threshold(seed):
    """Targets a few pixels apart, so that components compete for them and the order of matching decides."""
    rng = np.random.default_rng(seed)
    mask = ndimage.binary_dilation(rng.random((48, 40)) < 0.02, iterations=int(rng.integers(0, 2)))
    prob = np.where(
        np.roll(mask, rng.integers(-1, 2, 2), (0, 1)), rng.random(mask.shape), 0.4 * rng.random(mask.shape)
    )
    if seed % 2:
        prob = np.rint(prob * 8) / 8
    curve, competing = curve_counts(prob, mask), 0
    for step, threshold in enumerate(THRESHOLDS):
        c = count_image(prob > threshold, mask)
        expected = (
            c.intersection,
            c.predicted,
            c.detected,
            c.detected + c.false_alarms,
            c.false_alarm_pixels,
        )
        assert tuple(curve[step]) == expected
        targets, regions = (
            np.array([r.centroid for r in regionprops(label(binary, connectivity=2))]).reshape(-1, 2)
            for binary in (mask, prob > threshold)
        )
        near = np.linalg.norm(targets[:, None] - regions[None], axis=2) < 3
        competing += bool((near.sum(0) > 1).any() or (near.sum(1) > 1).any())
    assert competing  # the case that this test is for
