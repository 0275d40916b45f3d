from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam_spl.data.synthetic import SCENES, SyntheticSource, fractal, scene, target_shape
from sam_spl.errors import ConfigError


def test_images_follow_seed_and_index():
    a, b, c = SyntheticSource(9, 64, seed=1), SyntheticSource(5, 64, seed=1), SyntheticSource(9, 64, seed=2)
    for index in range(5):
        for x, y in zip(a.load(index), b.load(index), strict=True):
            np.testing.assert_array_equal(x, y)
    assert (a.load(0)[0] != a.load(1)[0]).any()
    assert (a.load(0)[0] != c.load(0)[0]).any()


@pytest.mark.parametrize("size", [32, 64, (48, 200), (256, 33)])
def test_any_size(size):
    image, mask = SyntheticSource(1, size).load(0)
    assert image.shape == mask.shape == ((size, size) if isinstance(size, int) else size)
    assert (image.dtype, mask.dtype) == (np.uint8, bool)


def _targets(source: SyntheticSource, count: int) -> tuple[list[int], list[int]]:
    areas, numbers = [], []
    for index in range(count):
        _, mask = source.load(index)
        number, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
        numbers.append(number - 1)
        areas += stats[1:, cv2.CC_STAT_AREA].tolist()
    return areas, numbers


def test_targets_are_as_many_and_as_large_as_asked():
    areas, numbers = _targets(SyntheticSource(150, 128, areas=(1, 100), most_targets=4, empty=0.2), 150)
    assert set(numbers) == {0, 1, 2, 3, 4}
    assert np.mean(np.array(numbers) == 0) == pytest.approx(0.2, abs=0.09)
    assert min(areas) == 1
    assert 60 < max(areas) < 140
    assert np.mean(np.array(areas) <= 10) == pytest.approx(0.5, abs=0.1)  # log-uniform: half of them below 10


@pytest.mark.parametrize("area", [1.0, 2.0, 8.0, 30.0, 100.0])
def test_a_targets_mask_has_about_its_area(area):
    rng = np.random.default_rng(0)
    areas = [(target_shape(rng, area, sigma=0.6) >= 0.5).sum() for _ in range(200)]
    assert np.mean(areas) == pytest.approx(area, rel=0.35, abs=0.9)  # a spot between two pixels marks both
    assert min(areas) >= 1


@pytest.mark.parametrize(("dark", "sign"), [(0.0, 1), (1.0, -1)])
def test_the_signal_to_clutter_ratio_is_the_one_asked_for(dark, sign):
    source = SyntheticSource(120, 96, areas=(20, 80), scr=(8, 8), most_targets=1, empty=0, dark=dark)
    ratios = []
    for index in range(120):
        image, mask = source.load(index)
        ys, xs = np.nonzero(mask)
        around = (slice(max(0, ys.min() - 6), ys.max() + 7), slice(max(0, xs.min() - 6), xs.max() + 7))
        patch = image[around].astype(float)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5)))[around] > 0
        clutter = patch[~near]
        peak = np.percentile(sign * patch[mask[around]], 90)
        ratios.append((peak - sign * clutter.mean()) / clutter.std())
    assert np.median(ratios) == pytest.approx(8, rel=0.3)


@pytest.mark.parametrize("kind", SCENES)
def test_scenes_are_structured_and_neither_black_nor_saturated(kind):
    scenes = np.stack([scene(np.random.default_rng(seed), kind, (64, 64)) for seed in range(20)])
    assert scenes.min() >= 0
    assert scenes.max() <= 0.9
    assert 0.1 < scenes.mean() < 0.7
    assert scenes.std((1, 2)).mean() > 0.01


def test_fractal_noise_is_standardised_and_smoother_than_white_noise():
    noise = fractal(np.random.default_rng(0), (128, 128), coarsest=8, octaves=5, persistence=0.5)
    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(noise, axis=1)).mean() < 0.3  # white noise: 1.13


@pytest.mark.parametrize("arguments", [{"image_size": 16}, {"areas": (5, 2)}, {"scr": (0, 3)}])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ConfigError, match="dataset"):
        SyntheticSource(**{"count": 1, "image_size": 64, **arguments})
