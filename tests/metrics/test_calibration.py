"""Promises of thresholds: exact bounds, kept in at least 95 % of random splits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from sam_spl.errors import InputError
from sam_spl.metrics.calibration import allowed, at_threshold, calibrate, images_for, unlike, upper_bound
from sam_spl.metrics.curves import STEPS, THRESHOLDS


def curves_of(alarms: np.ndarray, detected: int = 1) -> np.ndarray:
    """Counts of images with these numbers of false alarms, (images, 200), and targets found everywhere."""
    counts = np.zeros((*alarms.shape, 5))
    counts[..., 2], counts[..., 3] = detected, alarms + detected
    return counts


def falling(last: np.ndarray) -> np.ndarray:
    """One false alarm up to and with each image's last step."""
    return (np.arange(STEPS) <= np.asarray(last)[:, None]).astype(int)


def test_the_bound_is_that_of_clopper_and_pearson():
    assert upper_bound(0, 60) == pytest.approx(1 - 0.05 ** (1 / 60))  # closed form
    for alarmed, images in ((3, 50), (17, 213)):
        assert binom.cdf(alarmed, images, upper_bound(alarmed, images)) == pytest.approx(0.05)
    assert upper_bound(5, 5) == 1
    most = allowed(200, 0.1)
    assert upper_bound(most, 200) <= 0.1 < upper_bound(most + 1, 200)
    assert (allowed(28, 0.1), allowed(29, 0.1), images_for(0.1)) == (-1, 0, 29)  # 0.9 ** 29 < 0.05


def test_the_lowest_threshold_within_the_budget_is_taken():
    last = np.repeat([150, 120, 80, 20], [3, 5, 42, 150])
    found = calibrate(curves_of(falling(last)), 200, 0.1)
    most = allowed(200, 0.1)
    assert 8 <= most < 50
    assert found.threshold == THRESHOLDS[81]  # those up to step 80 would be 50
    assert (found.alarmed, found.images, found.alarms_per_frame) == (8, 200, 0.04)
    assert (found.detected, found.targets) == (200, 200)
    assert found.bound == upper_bound(8, 200) <= 0.1
    told = at_threshold(curves_of(falling(last)), found.threshold)
    assert told == {
        "threshold": THRESHOLDS[81],
        "detected": 200,
        "alarms_per_frame": 0.04,
        "alarmed": 0.04,
    }


def test_false_alarms_that_come_back_at_higher_thresholds_count_below_too():
    alarms = falling(np.full(100, 10))
    alarms[:30, 100:120] = 1  # a region that breaks into parts
    assert calibrate(curves_of(alarms), 100, 0.1).threshold == THRESHOLDS[120]


def test_too_few_images_or_too_many_alarms_are_said():
    with pytest.raises(
        InputError, match=r"20 images .* promise 0.139 of frames at best, not 0.1, which takes 29"
    ):
        calibrate(curves_of(falling(np.zeros(20))), 20, 0.1)
    with pytest.raises(InputError, match="100 of 100 images have a false alarm at the highest threshold"):
        calibrate(curves_of(np.ones((100, STEPS), int)), 100, 0.1)
    with pytest.raises(InputError, match=r"^budget: 0 images"):
        calibrate(np.zeros((0, STEPS, 5)), 0, 0.1)


def test_settings_that_a_promise_is_not_for_are_named():
    about = {"settings": {"range": "full", "tile": None, "tta": False}}
    assert unlike(about, {"range": "full", "tile": None, "tta": False}) is None
    assert unlike({}, {"range": "minmax"}) is None
    told = unlike(about, {"range": "minmax", "tile": 256, "tta": False})
    assert "range minmax (there full), tile 256 (there none). Its promise" in told


@pytest.mark.parametrize(("images", "budget"), [(60, 0.1), (150, 0.05), (100, 0.3)])
def test_the_promise_is_broken_in_five_of_a_hundred_splits_at_most(images, budget):
    rng = np.random.default_rng(0)
    last = np.clip(rng.normal(90, 30, 200_000), -1, STEPS - 1).astype(int)  # of all frames there are
    share = np.array([(last >= step).mean() for step in range(STEPS)])
    broken = 0
    for _ in range(1000):
        found = calibrate(curves_of(falling(rng.choice(last, images))), images, budget)
        broken += share[int(np.searchsorted(THRESHOLDS, found.threshold))] > budget
    assert broken <= 50 + 3 * np.sqrt(1000 * 0.05 * 0.95)
    assert broken >= 1  # a bound that is never touched is too wide
