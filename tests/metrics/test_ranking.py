"""Rankings: order, adjusted p, and what is known of networks that are not trained."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sam_spl.metrics.figures import ratio
from sam_spl.metrics.ranking import holm, rank

IMAGES = 300


def _niou(sums):
    return {"niou": ratio(sums["iou_of_images"], sums["images_of_niou"])}


def _fa(sums):
    return {"fa": ratio(sums["false_alarm_pixels"], sums["pixels"])}


def _run(values):
    return {"iou_of_images": np.asarray(values, float), "images_of_niou": np.ones(len(values))}


def test_holm_multiplies_the_smallest_by_all_and_keeps_their_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_what_differs_by_more_than_chance_is_supported_and_the_rest_is_open():
    rng = np.random.default_rng(0)
    base = rng.normal(0.6, 0.1, IMAGES)  # hard images are hard for all
    methods = {
        "worst": [_run(base - 0.10 + rng.normal(0, 0.03, IMAGES))],
        "twin": [_run(base + rng.normal(0, 0.03, IMAGES))],
        "best": [_run(base + 0.001 + rng.normal(0, 0.03, IMAGES))],
    }
    found = rank(methods, "niou", _niou, resamples=2000)
    values = {name: run["iou_of_images"] for name, (run,) in methods.items()}
    order = sorted(values, key=lambda name: -values[name].mean())
    assert [place.name for place in found.places] == order
    assert [place.mean for place in found.places] == pytest.approx([values[name].mean() for name in order])
    assert order[2] == "worst"
    assert [found.supported(*pair) for pair in ((0, 1), (0, 2), (1, 2), (2, 0))] == [False, True, True, False]
    assert found.p[0, 1] == pytest.approx(
        stats.ttest_rel(values[order[0]], values[order[1]]).pvalue, abs=0.03
    )
    assert found.p[0, 2] == pytest.approx(
        3 * 2 / 2001
    )  # no resample reaches it; Holm's factor for three pairs


def test_of_false_alarms_fewer_are_better_and_undefined_figures_come_last():
    rng = np.random.default_rng(0)

    def run(rate, pixels=1000.0):
        return {"false_alarm_pixels": rng.poisson(rate, 80) * 1.0, "pixels": np.full(80, pixels)}

    found = rank({"none": [run(0, pixels=0.0)], "many": [run(9)], "few": [run(3)]}, "fa", _fa, resamples=500)
    assert [place.name for place in found.places] == ["few", "many", "none"]
    assert found.supported(0, 1)
    assert not found.supported(0, 2)  # of what is not defined nothing follows
    assert found.p[0, 2] == 1.0


def test_a_network_that_is_not_trained_has_no_spread_of_runs():
    """Beside three runs of known spread a fixed one is compared by their Student t alone."""
    base = np.random.default_rng(0).normal(0.5, 0.1, IMAGES)
    values = np.array([0.02, 0.03, 0.04])
    methods = {"trained": [_run(base + gain) for gain in values], "filter": [_run(base)]}
    trained = stats.ttest_1samp(values, 0.0).pvalue
    assert rank(methods, "niou", _niou, fixed=["filter"]).p[0, 1] == pytest.approx(trained, rel=0.01)
    assert rank(methods, "niou", _niou).p[0, 1] > 1.5 * trained  # once trained, it might vary as much


def test_wrong_orders_are_rare():
    """Four equal networks of three runs each, 60 times: hardly ever is any order supported."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(60):
        base = rng.normal(0.6, 0.1, 50)
        methods = {
            name: [_run(base + rng.normal(0, 0.02) + rng.normal(0, 0.03, 50)) for _ in range(3)]
            for name in "abcd"
        }
        p = rank(methods, "niou", _niou, resamples=200).p
        wrong += bool((p <= 0.05).any())
    assert wrong <= 7  # 5 % of 60 are 3; more than 7 come by chance once in a hundred times
