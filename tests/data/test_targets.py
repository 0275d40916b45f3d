from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam_spl.data.targets import OUTLINE, Targets, draw_place, draw_target
from sam_spl.errors import ConfigError


def components(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1


@pytest.mark.parametrize("area", [5.0, 10.0, 20.0, 60.0, 130.0])
def test_a_targets_mask_has_about_its_area(area):
    rng = np.random.default_rng(0)
    signals, masks = zip(*(draw_target(rng, area) for _ in range(200)), strict=True)
    assert all(signal.max() == pytest.approx(1) and signal.min() >= 0 for signal in signals)
    assert all(signal[[0, -1]].max() < 0.02 and signal[:, [0, -1]].max() < 0.02 for signal in signals)
    areas = [mask.sum() for mask in masks]
    assert np.median(areas) == pytest.approx(area, rel=0.2, abs=4.1)  # a spot of the optics has 3 to 12


@pytest.mark.parametrize(("dark", "sign"), [(0.0, 1), (1.0, -1)])
def test_the_peak_is_the_ratio_times_the_clutter_around_it(dark, sign):
    rng = np.random.default_rng(1)
    noise = 0.02 * rng.standard_normal((96, 96), dtype=np.float32)
    peaks = []
    for _ in range(60):
        image, mask = 0.5 + noise, np.zeros((96, 96), bool)
        Targets(areas=(10, 30), scr=(8, 8), most_targets=1, empty=0, dark=dark).implant(rng, image, mask, 0.0)
        added = sign * (image - 0.5 - noise)
        peaks.append(added.max())
        assert added.min() > -1e-6
        assert (mask == (added >= OUTLINE * added.max() - 1e-6)).mean() > 0.999
    assert np.mean(peaks) == pytest.approx(8 * 0.02, rel=0.05)


def test_targets_stay_apart_from_each_other_and_from_known_ones():
    rng = np.random.default_rng(2)
    number = []
    for _ in range(80):
        mask = np.zeros((80, 80), bool)
        mask[30:50, 30:50] = True
        image = np.full((80, 80), 0.4, np.float32)
        Targets(areas=(5, 30), most_targets=4, empty=0.2).implant(rng, image, mask, 0.01)
        assert mask[30:50, 30:50].all()
        assert (image[31:49, 31:49] - 0.4).max() < 0.2  # at most the foot of a neighbour's signal
        number.append(components(mask) - 1)
    assert set(number) == {0, 1, 2, 3, 4}
    assert 0.08 < np.mean(np.array(number) == 0) < 0.35


def test_where_there_is_no_room_nothing_is_implanted():
    rng = np.random.default_rng(3)
    full = np.ones((64, 64), bool)
    for level, mask in ((0.4, full), (1.0, np.zeros((64, 64), bool))):  # no place, and no contrast left
        image, before = np.full((64, 64), level, np.float32), mask.copy()
        Targets(empty=0).implant(rng, image, mask, 0.1)
        assert (image == level).all()
        assert (mask == before).all()


def test_a_place_may_stand_over_the_edge_and_shows_its_part():
    rng = np.random.default_rng(4)
    over = 0
    for _ in range(300):
        place = draw_place(rng, (9, 9), (32, 40))
        image, patch = np.zeros((32, 40)), np.ones((9, 9))
        image[place.window] += patch[place.inside]
        over += image.sum() < 81
        rows, columns = place.grown(3, image.shape)
        assert 0 <= rows.start < rows.stop <= 32 and 0 <= columns.start < columns.stop <= 40
    assert 20 < over < 280


@pytest.mark.parametrize(
    "arguments",
    [{"areas": (5, 2)}, {"areas": (1e-6, 5)}, {"areas": (5, np.inf)}, {"scr": (0, 3)}, {"scr": (3, np.inf)}],
)
def test_impossible_ranges_are_refused(arguments):
    with pytest.raises(ConfigError, match="dataset: areas"):
        Targets(**arguments)
