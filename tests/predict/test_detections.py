"""Detections are the regions above a threshold; their numbers are those of an independent definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops

from sam_spl.predict.detections import RING, detect, regions


def _scene(seed: int, shape: tuple[int, int] = (90, 70)) -> tuple[np.ndarray, np.ndarray]:
    """A map of blobs of many sizes, some on the border, and an image."""
    rng = np.random.default_rng(seed)
    prob = ndimage.gaussian_filter(rng.random(shape), rng.uniform(1, 2.5))
    prob = (prob - prob.min()) / np.ptp(prob)
    return prob.astype(np.float32), rng.integers(0, 65536, shape, dtype=np.uint16)


def test_the_numbers_of_a_region_by_hand():
    prob, image = np.zeros((9, 40), np.float32), np.zeros((9, 40))
    prob[2, 30], prob[3, 31], prob[4, 31] = 0.75, 0.5, 1.0  # joined by a corner
    prob[1, 3] = 0.25  # at the threshold is not above it
    prob[6, 2] = 0.375
    image[:, ::2] = 0.5  # in the ring mean 0.25 and deviation 0.25, up to the odd column
    image[6, 2] = 1.0
    first, second = detect(prob, image.astype(np.float32), threshold=0.25)
    assert (first.id, first.centroid, first.box, first.area) == (1, (3.0, 92 / 3), (30, 2, 2, 3), 3)
    assert (first.mean_prob, first.peak_prob) == (0.75, 1.0)
    assert (second.id, second.centroid, second.box, second.area) == (2, (6.0, 2.0), (2, 6, 1, 1), 1)
    # The ring: rows 0 to 8 and columns 0 to 12 without rows 4 to 8 and columns 0 to 4, 92 pixels.
    bright = 4 * 7 + 5 * 4
    mean = 0.5 * bright / 92
    spread = np.sqrt(0.25 * bright / 92 - mean**2)
    assert second.scr == pytest.approx((1.0 - mean) / spread, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_detections_are_the_regions_of_scikit_image(seed):
    prob, image = _scene(seed)
    threshold, least = 0.6, 1 + 3 * (seed % 3)
    expected = [
        one
        for one in regionprops(label(prob > threshold, connectivity=2), intensity_image=prob)
        if one.area >= least
    ]
    found = detect(prob, image, threshold=threshold, min_area=least)
    assert len(found) == len(expected) > 3
    assert [one.id for one in found] == list(range(1, len(found) + 1))
    for one, other in zip(found, expected, strict=True):  # label() numbers in raster order
        top, left, bottom, right = other.bbox
        assert one.box == (left, top, right - left, bottom - top)
        assert one.area == other.area
        assert one.centroid == pytest.approx(other.centroid, abs=1e-9)
        assert one.mean_prob == pytest.approx(prob[label(prob > threshold) == other.label].mean(), abs=1e-6)
        assert one.peak_prob == other.intensity_max
    counted = np.isin(label(prob > threshold, connectivity=2), [one.label for one in expected])
    np.testing.assert_array_equal(regions(prob, threshold=threshold, min_area=least).mask(), counted)


@pytest.mark.parametrize("colour", [False, True])
def test_the_ring_is_of_pixels_near_the_region_and_away_from_all(colour):
    prob, grey = _scene(7)
    image = np.random.default_rng(8).integers(0, 256, (*grey.shape, 3), dtype=np.uint8) if colour else grey
    if colour:
        grey = image.mean(-1)
    labels = label(prob > 0.7, connectivity=2)
    of_all = ndimage.distance_transform_cdt(labels == 0, "chessboard")
    found = detect(prob, image, threshold=0.7, min_area=3, top=5)  # the others stay out of the ring
    assert len(found) == 5 < labels.max()
    for one in found:
        region = labels == labels[prob == one.peak_prob]
        distance = ndimage.distance_transform_cdt(~region, "chessboard")
        ring = grey[(of_all > RING[0]) & (distance <= RING[1])]
        assert one.scr == pytest.approx((grey[region].mean() - ring.mean()) / ring.std(), rel=1e-9)


def test_the_ratio_is_the_same_on_every_scale_and_negative_for_dark_targets():
    prob, image = np.zeros((30, 30), np.float32), np.random.default_rng(1).integers(90, 110, (30, 30))
    prob[14:17, 14:17] = 1
    image[14:17, 14:17] = 200
    forms = (image.astype(np.uint8), (image * 257).astype(np.uint16), (image / 255).astype(np.float32))
    bright = [detect(prob, form, threshold=0.5)[0].scr for form in forms]
    assert bright[0] > 10
    np.testing.assert_allclose(bright, bright[0], rtol=1e-5)
    (dark,) = detect(prob, (255 - image).astype(np.uint8), threshold=0.5)
    assert dark.scr == pytest.approx(-bright[0])


def test_top_takes_the_highest_peaks_of_equal_ones_the_larger():
    prob = np.zeros((5, 30), np.float32)
    for column, (peak, width) in zip(range(1, 30, 5), [(0.9, 1), (0.8, 2), (0.8, 3), (1.0, 1)], strict=False):
        prob[2, column : column + width] = 0.7
        prob[2, column] = peak
    columns = {
        top: [one.box[0] for one in detect(prob, prob, threshold=0.5, top=top)]
        for top in (1, 2, 3, 4, 9, None)
    }
    assert columns == {
        1: [16],
        2: [1, 16],
        3: [1, 11, 16],
        4: [1, 6, 11, 16],
        9: [1, 6, 11, 16],
        None: [1, 6, 11, 16],
    }
    assert [one.box[0] for one in detect(prob, prob, threshold=0.5, top=2, min_area=2)] == [6, 11]
    assert [one.id for one in detect(prob, prob, threshold=0.5, top=2)] == [1, 2]
    expected = np.zeros_like(prob, bool)
    expected[2, [1, 16]] = True
    np.testing.assert_array_equal(regions(prob, threshold=0.5, top=2).mask(), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (7, 33)])
def test_frames_of_any_shape_empty_full_or_with_a_target_on_each_corner(shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    prob = np.zeros(shape, np.float32)
    assert detect(prob, image, threshold=0.5) == []
    assert not regions(prob, threshold=0.5).mask().any()

    (whole,) = detect(np.ones(shape, np.float32), image, threshold=0.5)
    assert (whole.box, whole.area, whole.scr) == ((0, 0, shape[1], shape[0]), image.size, None)
    assert whole.centroid == ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    assert regions(np.ones(shape, np.float32), threshold=0.5).mask().all()

    for row in (0, -1):
        for column in (0, -1):
            prob[row, column] = 1
    corners = detect(prob, image, threshold=0.5)
    assert sum(one.area for one in corners) == np.count_nonzero(prob)
    assert corners[0].box[:2] == (0, 0)
    np.testing.assert_array_equal(regions(prob, threshold=0.5).mask(), prob > 0)


def test_a_flat_surrounding_has_no_ratio():
    prob = np.zeros((40, 40), np.float32)
    prob[20, 20] = 1
    (one,) = detect(prob, prob, threshold=0.5)
    assert one.scr is None
