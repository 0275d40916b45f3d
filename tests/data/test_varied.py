from __future__ import annotations

import numpy as np
import pytest

from sam_spl.data.targets import Targets
from sam_spl.data.varied import BACKGROUNDS, VariedSource
from sam_spl.errors import ConfigError


def test_images_follow_seed_and_index():
    a, b, c = VariedSource(9, 64, seed=1), VariedSource(5, 64, seed=1), VariedSource(9, 64, seed=2)
    for index in range(5):
        for x, y in zip(a.load(index), b.load(index), strict=True):
            np.testing.assert_array_equal(x, y)
    assert (a.load(0)[0] != a.load(1)[0]).any()
    assert (a.load(0)[0] != c.load(0)[0]).any()


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("shape", [(32, 32), (61, 200)])
def test_every_background_has_any_size_and_structure(kind, shape):
    for seed in range(8):
        image = BACKGROUNDS[kind](np.random.default_rng(seed), shape)
        assert image.shape == shape
        assert np.isfinite(image).all()
        assert image.std() > 0


def test_images_reach_from_flat_to_full_contrast_and_from_clean_to_noisy():
    images = [VariedSource(200, 96, seed=3, targets=Targets(empty=1)).load(i) for i in range(200)]
    assert all(image.dtype == np.uint8 and image.shape == mask.shape == (96, 96) for image, mask in images)
    assert not any(mask.any() for _, mask in images)
    contrast = [image.std() for image, _ in images]
    low, high = np.percentile(contrast, (10, 90))
    assert low < 9 and high > 40  # SIRST: 3 and 75 at 5 and 95 %
    steps = [np.median(np.abs(np.diff(image.astype(int), axis=1))) for image, _ in images]
    assert min(steps) == 0 and max(steps) >= 4


def test_nearly_every_image_that_should_have_a_target_has_one():
    masks = [VariedSource(150, 96, seed=4, targets=Targets(empty=0)).load(i)[1] for i in range(150)]
    assert np.mean([mask.any() for mask in masks]) > 0.9  # in the others there was no contrast left
    areas = [mask.sum() for mask in masks if mask.any()]
    assert min(areas) >= 3 and np.median(areas) > 10


def test_a_small_image_is_refused():
    with pytest.raises(ConfigError, match="at least 32"):
        VariedSource(1, 16)
