from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from sam_spl.data.layout import find_split
from sam_spl.data.reading import read_mask
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.errors import ConfigError
from sam_spl.metrics import PROTOCOLS, DatasetCounts, Meter, Protocol, count_image, protocols_named, scores
from sam_spl.metrics.curves import HALF, STEPS, THRESHOLDS, curve_counts, curve_figures, levels, probabilities
from sam_spl.metrics.dataset_counts import OWN
from sam_spl.metrics.figures import FIGURES, figures, hierarchical_figures, pd_by_size
from sam_spl.metrics.hiou import HierarchicalCounts, count_hierarchical
from sam_spl.metrics.intervals import intervals
from sam_spl.metrics.scores import columns
from sam_spl.metrics.target import components
from sam_spl.predict.maps import probability
from sam_spl.results.rules import differences
from sam_spl.results.summary import summarise
from sam_spl.results.text import _side_by_side
from tests.conftest import GOLDEN

EXPECTED = json.loads((GOLDEN / "metrics_expected.json").read_text())
DENSE = json.loads((GOLDEN / "metrics_dense_expected.json").read_text())


def _bits(name: str, key: str, side: int) -> np.ndarray:
    return np.unpackbits(np.load(GOLDEN / name)[key], axis=1).reshape(-1, side, side).astype(bool)


def _count(probs, masks, names=tuple(PROTOCOLS), **arguments) -> DatasetCounts:
    metric = Meter(protocols_named(names), **arguments)
    metric.update(range(len(probs)), [dict.fromkeys(metric.resolutions, prob) for prob in probs], list(masks))
    return metric.counts()


@pytest.fixture(scope="module")
def cases() -> tuple[np.ndarray, np.ndarray]:
    return np.load(GOLDEN / "metrics_cases.npz")["prob"] / 255, _bits("metrics_cases.npz", "target", 96)


@pytest.fixture(scope="module")
def counts(cases) -> DatasetCounts:
    return _count(*cases, detailed=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("native", EXPECTED["native"]),
        ("basicirstd", EXPECTED["basicirstd"]),
        ("sam_spl", {**EXPECTED["sam_spl"], "niou": EXPECTED["sam_spl"]["niou_empty_zero"]}),
        ("mshnet", {**EXPECTED["sam_spl"], "niou": EXPECTED["sam_spl"]["niou_empty_zero"]}),
        ("dnanet", {**EXPECTED["sam_spl"], "niou": EXPECTED["sam_spl"]["niou_empty_zero"]}),
    ],
)
def test_protocols_give_what_the_published_codes_answer(counts, name, expected):
    result = scores(counts, PROTOCOLS[name])
    for key, value in expected.items():
        if key != "niou_empty_zero":
            assert getattr(result, key) == pytest.approx(value, rel=1e-9), key


def test_datransnets_protocol_on_the_images_with_targets(cases):
    probs, masks = cases
    has = masks.any((1, 2))
    expected = EXPECTED["datransnet_on_images_with_targets"]
    result = scores(_count(probs[has], masks[has], ["datransnet"]), PROTOCOLS["datransnet"])
    assert result.images == expected["images"]
    for key in ("iou", "f1", "pd", "fa"):
        assert getattr(result, key) == pytest.approx(expected[key], rel=1e-9)
    everything = scores(_count(probs, masks, ["datransnet"]), PROTOCOLS["datransnet"])
    assert everything.iou == pytest.approx(
        EXPECTED["native"]["iou"], rel=1e-9
    )  # images without target count here
    assert (everything.f1, everything.pd, everything.fa) == (result.f1, result.pd, result.fa)  # and not here
    assert everything.niou is None


def test_the_by_value_false_alarms_of_the_crowded_cases():
    preds, masks = (_bits("metrics_dense_cases.npz", key, 16) for key in ("pred", "target"))
    result = _count(preds.astype(float), masks, ["native", "sam_spl"])
    assert scores(result).detected == DENSE["detected"]
    for name, key in (("native", "false_alarm_pixels"), ("sam_spl", "false_alarm_pixels_by_area_value")):
        assert scores(result, PROTOCOLS[name]).fa == pytest.approx(DENSE[key] / preds.size, rel=1e-12)


def test_hierarchical_iou_of_both_golden_sets(cases):
    probs, masks = cases
    dense = [_bits("metrics_dense_cases.npz", key, 16) for key in ("pred", "target")]
    for preds, of, expected in ((probs > 0.5, masks, EXPECTED), (*dense, DENSE)):
        golden = dict(expected["hiou_on_images_with_targets_and_detections"])
        rows = [
            count_hierarchical(components(pred), components(mask))
            for pred, mask in zip(preds, of, strict=True)
            if pred.any() and mask.any()
        ]
        assert len(rows) == golden.pop("images")
        result = _hierarchical(rows)
        for key, value in golden.items():
            assert result[key] == pytest.approx(value, rel=1e-9, abs=1e-12), key
        assert sum(result[f"seg_{key}"] for key in ("iou", "mrg_err", "itf_err", "pcp_err")) == pytest.approx(
            1
        )
        parts = ("iou", "itf_err", "pcp_err", "m2s_err", "s2m_err")
        assert sum(result[f"loc_{key}"] for key in parts) == pytest.approx(1)


def _hierarchical(rows: list[HierarchicalCounts]) -> dict[str, float]:
    sums = dict(zip(HierarchicalCounts._fields, np.array(rows, float).sum(0), strict=True))
    return {key: float(value) for key, value in hierarchical_figures(sums).items()}


def _place(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    canvas = np.zeros((32, 32), bool)
    for top, left, height, width in boxes:
        canvas[top : top + height, left : left + width] = True
    return canvas


def _hiou(pred: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    return _hierarchical([count_hierarchical(components(pred), components(mask))])


def test_hierarchical_iou_by_eye():
    """One target half covered (overlap), one found by distance with an IoU of 1/4, one false, one missed."""
    mask = _place((2, 2, 4, 4), (12, 12, 2, 2), (25, 25, 2, 2))
    pred = _place((2, 2, 4, 2), (12, 12, 1, 1), (2, 25, 3, 3))
    result = _hiou(pred, mask)
    assert result["seg_iou"] == pytest.approx((8 / 16 + 1 / 4) / 2)
    assert result["seg_pcp_err"] == pytest.approx((8 / 16 + 3 / 4) / 2)
    assert (result["loc_iou"], result["loc_itf_err"], result["loc_pcp_err"]) == (0.5, 0.25, 0.25)


def test_hierarchical_iou_of_images_that_lack_one_side():
    target = _place((2, 2, 4, 4))
    assert _hiou(_place(), target)["loc_pcp_err"] == 1
    assert _hiou(target, _place())["loc_itf_err"] == 1
    assert _hiou(_place(), target)["hiou"] == 0
    assert np.isnan(_hiou(_place(), _place())["hiou"])


def _perfect(masks, name: str, shift: int = 0):
    """The scores of the masks themselves as logits, under a protocol that resizes."""
    metric = Meter([PROTOCOLS[name]])
    for index, mask in enumerate(masks):
        logits = torch.from_numpy(np.roll(mask, shift, (0, 1)))[None].float() * 20 - 10
        sizes = {"own": mask.shape, "input": (256, 256), "256": (256, 256)}
        metric.update([index], [{r: probability(logits, sizes[r]) for r in metric.resolutions}], [mask])
    return scores(metric.counts(), PROTOCOLS[name])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_perfect_prediction_is_near_perfect_under_every_protocol(name, sirst):
    """Resized ones lose a little where a mask's border is interpolated and its pixels are not."""
    masks = [read_mask(item.mask) for item in find_split(sirst, "50_50").test]
    result = _perfect(masks, name)
    assert result.iou == pytest.approx(0.966 if PROTOCOLS[name].resolution != "own" else 1, abs=5e-4)
    assert (result.pd, result.fa) == (1, 0)
    assert _perfect(masks, name, shift=2).iou < 0.55
    empty = _perfect([np.zeros_like(mask) for mask in masks], name)
    assert (empty.detected, empty.false_alarms) == (0, 0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_perfect_prediction_of_generated_masks(name):
    masks = [
        SyntheticSource(12, (200, 320), seed=5, areas=(9, 200), empty=0).load(index)[1] for index in range(12)
    ]
    result = _perfect(masks, name)
    assert result.iou > 0.93
    assert result.pd == 1
    assert result.fa == 0


def test_each_resolution_has_its_own_map():
    mask = np.zeros((64, 64), bool)
    mask[8:16, 8:16] = True
    metric = Meter(protocols_named(["native", "sam_spl", "mshnet"]))
    assert metric.resolutions == ["own", "input", "256"]
    maps = {"own": mask * 1.0, "input": np.zeros((32, 32)), "256": np.ones((256, 256))}
    metric.update([0], [maps], [mask])
    results = {name: scores(metric.counts(), PROTOCOLS[name]) for name in ("native", "sam_spl", "mshnet")}
    assert (results["native"].iou, results["sam_spl"].iou) == (1, 0)
    assert results["mshnet"].iou == pytest.approx(64 / 4096)


@pytest.mark.parametrize(("rule", "niou"), [(1.0, 0.75), (0.0, 0.25), (float("nan"), 0.5)])
def test_correctly_empty_images(rule, niou):
    """Two such images, one with an IoU of 1 and one of 0: 1, 0 and left out of the mean."""
    target = _place((2, 2, 4, 4))
    masks = [_place(), _place(), target, target]
    preds = [_place(), _place(), target, _place()]
    assert scores(
        _count([1.0 * pred for pred in preds], masks, ["native"]), empty=rule
    ).niou == pytest.approx(niou)


def test_adding_a_protocol_is_registering_a_declaration(cases, monkeypatch):
    monkeypatch.setattr(PROTOCOLS, "_entries", dict(PROTOCOLS))
    PROTOCOLS.register("mine", Protocol("mine", empty=0.0))
    result = scores(_count(*cases, ["mine"]), PROTOCOLS["mine"])
    assert result.niou == pytest.approx(EXPECTED["sam_spl"]["niou_empty_zero"])
    assert result.fa == pytest.approx(EXPECTED["native"]["fa"])


def test_differences_are_marked_with_their_reason(counts):
    chosen = protocols_named(["native", "basicirstd", "sam_spl", "datransnet"])
    scored = {protocol.name: vars(scores(counts, protocol)) for protocol in chosen}
    found = differences(chosen, scored, empties=True)
    assert "basicirstd" not in found
    assert "as large as a detected target's component is not counted" in found["sam_spl"]["fa"]
    assert "counts 0 instead of 1" in found["sam_spl"]["niou"]
    assert "relative to each image's maximum" in found["datransnet"]["pd"]
    assert "iou" not in found["datransnet"]


def test_a_figure_by_another_rule_is_marked_even_where_the_printed_digits_agree():
    chosen = protocols_named(["native", "sam_spl", "mshnet"])
    scored = {"native": 0.5, "sam_spl": 0.5 + 1e-9, "mshnet": 0.5}
    found = differences(
        chosen, {name: {"iou": iou, "pd": None, "images": 3} for name, iou in scored.items()}, empties=False
    )
    assert found == {"sam_spl": {"iou": "scored at the network's input resolution, masks resized"}}
    report = {
        name: {"differs": found.get(name, {}), "scores": dict.fromkeys(FIGURES, iou)}
        for name, iou in scored.items()
    }
    header, native, sam_spl, mshnet, *notes = _side_by_side(report)
    assert (native.count("*"), sam_spl.count("*"), mshnet.count("*")) == (0, 1, 0)
    assert sam_spl.split()[1] == "50.00*"
    assert notes == [
        "* scored by another rule than native, even where the printed digits agree:",
        "  sam_spl: IoU: scored at the network's input resolution, masks resized.",
    ]
    assert header.split()[:2] == ["protocol", "IoU"]
    for entry in report.values():
        entry["scores"]["fa"], entry["differs"] = 0.8, {"pd": "of another rule"}
    for line in _side_by_side(report)[1:4]:  # the widest figure beside a mark
        assert line.split()[-2:] == ["50.00*", "800000.00"]


def test_a_map_of_one_value_under_datransnets_protocol_is_predicted_whole(cases):
    """As p / max(p) > 0.5 has it; nothing is where all is 0. The protocol's note says so."""
    mask = _place((2, 2, 4, 4))
    for value, fa in ((0.3, 1.0), (1e-6, 1.0), (0.0, 0.0)):
        result = scores(_count([np.full(mask.shape, value)], [mask], ["datransnet"]), PROTOCOLS["datransnet"])
        assert (result.iou, result.fa) == (0, fa)
    assert "predicted whole" in PROTOCOLS["datransnet"].note


def test_ten_thousand_images_are_as_one_set_repeated_and_one_image_as_itself():
    """25 times the 400 crowded images: every count is 25 times theirs, every ratio the same."""
    preds, masks = (_bits("metrics_dense_cases.npz", key, 16) for key in ("pred", "target"))
    once, metric = _count(preds * 1.0, masks, ["native"]), Meter()
    for shard in range(25):
        metric.update(
            range(400 * shard, 400 * (shard + 1)), [{"own": pred * 1.0} for pred in preds], list(masks)
        )
    many = scores(metric.counts())
    assert (many.images, many.targets, many.detected) == (
        10000,
        25 * DENSE["targets"],
        25 * DENSE["detected"],
    )
    for key in ("iou", "niou", "f1", "pd", "fa"):
        assert getattr(many, key) == pytest.approx(getattr(scores(once), key), rel=1e-12)
    alone = scores(_count(preds[:1] * 1.0, masks[:1], ["native"]))
    assert alone.iou == alone.niou == (preds[0] & masks[0]).sum() / (preds[0] | masks[0]).sum()


def test_unknown_protocols_name_the_nearest():
    with pytest.raises(ConfigError, match="Nearest: mshnet"):
        protocols_named(["native", "msh_net"])
    with pytest.raises(ConfigError, match="at least one"):
        protocols_named([])


def test_a_users_own_protocol_is_named_by_where_it_stands(cases, tmp_path):
    declared = "from sam_spl.metrics import Protocol\n"
    declared += "MINE = Protocol('mine', resolution='96', empty=0.0)\n"
    declared += "OTHER = Protocol('mine')\nNATIVE = Protocol('native', by_area=True)\nTEXT = 'native'\n"
    file = tmp_path / "protocols_of_mine.py"
    file.write_text(declared)
    native, mine = protocols_named(["native", f"{file}:MINE", f"{file}:MINE"])
    assert (native, mine) == (PROTOCOLS["native"], Protocol("mine", resolution="96", empty=0.0))
    assert "mine" not in PROTOCOLS  # a result file that names it imports nothing
    metric = Meter([mine])
    metric.update(range(40), [{"96": prob} for prob in cases[0]], list(cases[1]))
    assert scores(metric.counts(), mine).niou == pytest.approx(EXPECTED["sam_spl"]["niou_empty_zero"])
    for names in ([f"{file}:MINE", f"{file}:OTHER"], [f"{file}:NATIVE"]):
        with pytest.raises(ConfigError, match=r"has the name '\w+' of another protocol"):
            protocols_named(names)
    with pytest.raises(
        ConfigError, match=r"^protocols: .* is not valid, give a sam_spl\.metrics\.Protocol\.$"
    ):
        protocols_named([f"{file}:TEXT"])


@pytest.mark.parametrize(
    "settings",
    [{"name": ""}, {"name": "a:b"}, {"resolution": "half"}, {"resolution": "0"}, {"resize": "best"}],
)
def test_a_protocol_that_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError, match="is not valid"):
        Protocol(**{"name": "mine", **settings})


def test_curves_equal_the_definition_at_every_threshold(cases, counts):
    """Against the counts of each threshold alone, and the level maps against the comparison itself."""
    probs, masks = cases
    for prob, mask in zip(probs[:6], masks[:6], strict=True):
        level = levels(prob)
        curve = curve_counts(prob, mask)
        for k in range(0, STEPS, 7):
            pred = prob > THRESHOLDS[k]
            np.testing.assert_array_equal(level > k, pred)
            at = _count([1.0 * pred], [mask], ["native"]).images()[0]
            expected = (
                at.intersection,
                at.predicted,
                at.detected,
                at.detected + at.false_alarms,
                at.false_alarm_pixels,
            )
            assert tuple(curve[k]) == expected
    np.testing.assert_array_equal(counts.curves[:, HALF, 0], counts.views[OWN][:, 1])


def test_thresholds_are_even_steps_of_the_logit():
    assert (len(THRESHOLDS), THRESHOLDS[0], THRESHOLDS[HALF]) == (STEPS, 0, 0.5)
    logits = np.log(THRESHOLDS[1:] / (1 - THRESHOLDS[1:]))
    np.testing.assert_allclose(logits, (np.arange(1, 200) - 100) / 10, atol=1e-9)


def test_levels_are_exact_on_and_beside_the_thresholds():
    for dtype in (np.float32, np.float64):
        on = THRESHOLDS.astype(dtype)
        random = np.random.default_rng(0).random(5000).astype(dtype)
        saturated = np.array([0, -0.0, 1, np.finfo(dtype).tiny, np.nextafter(dtype(1), dtype(0))], dtype)
        beside = (np.nextafter(on, dtype(1)), np.nextafter(on[1:], dtype(0)))
        for values in (on, *beside, random, random**20, 1 - random**20, saturated):
            expected = (values[:, None].astype(np.float64) > THRESHOLDS[None]).sum(1)
            np.testing.assert_array_equal(levels(values), expected)


def test_a_level_becomes_a_probability_of_that_level_again():
    every = np.arange(STEPS + 1, dtype=np.uint8)
    np.testing.assert_array_equal(levels(probabilities(every)), every)


def _curve_figures(prob: np.ndarray, mask: np.ndarray, **arguments) -> dict[str, float]:
    """Of a stack of maps and masks (images, H, W)."""
    sums = sum(curve_counts(p, m) for p, m in zip(prob, mask, strict=True))
    targets = sum(len(components(m)) for m in mask)
    return curve_figures(sums, targets, mask.sum(), mask.size, **arguments)["figures"]


def _scene(*, shift: int = 0) -> np.ndarray:
    """Two images: two targets 3 px apart, which merge when blurred, and one at the border."""
    return np.roll(np.stack([_place((4, 4, 3, 3), (4, 10, 3, 3)), _place((20, 0, 2, 4))]), shift, 1)


def _blurred(masks: np.ndarray) -> np.ndarray:
    """Right at 0.5; below it targets grow and merge, above it they shrink."""
    soft = np.stack([ndimage.gaussian_filter(1.0 * mask, 2) for mask in masks])
    return np.where(masks, 0.5 + soft / 2 + 1e-3, soft / 2)


PERFECT = {
    "binary": lambda masks: 1.0 * masks,
    "boolean to float32": lambda masks: masks.astype(np.float32),
    "saturated": lambda masks: 1 / (1 + np.exp(-np.where(masks, 40.0, -40.0))),
    "saturated float32": lambda masks: 1 / (1 + np.exp(-np.where(masks, 40, -40).astype(np.float32))),
    "soft": lambda masks: np.where(masks, 0.9, 0.1),
    "barely": lambda masks: np.where(masks, 0.51, 0.49),
    "blurred, merging at low thresholds": _blurred,
}
AREAS = ("auc_target", "auc_pixel", "ap_target", "ap_pixel")


@pytest.mark.parametrize("kind", PERFECT)
def test_a_perfect_prediction_has_every_area_1_and_no_false_alarm(kind):
    masks = _scene()
    prob = PERFECT[kind](masks)
    result = _curve_figures(prob, masks)
    for key in (*AREAS, "pd_at_fa"):
        assert result[key] == pytest.approx(1, abs=1e-12), key
    counts = _count(prob, masks)
    for protocol in PROTOCOLS.values():
        if protocol.relative and kind == "barely":
            continue  # of a maximum of 0.51, 0.49 is more than half
        found = scores(counts, protocol)
        assert (found.iou, found.f1, found.pd, found.fa) == (1, 1, 1, 0)
        assert found.niou in (1, None)


def test_an_empty_prediction_has_every_area_0_but_the_pixel_roc_area():
    masks = _scene()
    result = _curve_figures(np.zeros(masks.shape), masks)
    assert result == {"pd_at_fa": 0, "auc_target": 0, "auc_pixel": 0.5, "ap_target": 0, "ap_pixel": 0}
    counts = _count(np.zeros(masks.shape), masks)
    for protocol in PROTOCOLS.values():
        found = scores(counts, protocol)
        assert (found.iou, found.f1, found.pd, found.fa) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", PERFECT)
def test_a_shifted_prediction_is_far_from_1(kind):
    masks = _scene()
    prob = PERFECT[kind](_scene(shift=7))
    result = _curve_figures(prob, masks)
    assert all(result[key] < 0.9 for key in AREAS)
    assert (result["pd_at_fa"], result["auc_target"]) == (0, 0)
    counts = _count(prob, masks)
    for protocol in PROTOCOLS.values():
        found = scores(counts, protocol)
        assert (found.iou, found.pd) == (0, 0)
        assert found.fa > 1e-3


def test_without_a_target_areas_are_undefined():
    masks = np.zeros((2, 32, 32), bool)
    for prob in (np.zeros(masks.shape), np.full(masks.shape, 0.7)):
        assert all(np.isnan(value) for value in _curve_figures(prob, masks).values())
    counts = _count(np.zeros(masks.shape), masks, ["native"], detailed=True)
    details = summarise(counts, ["a", "b"], protocols_named(["native"]))["details"]
    assert details["curves"] == dict.fromkeys(["pd_at_fa", *AREAS])


def _definitions(
    points: list[tuple[int, int, int, int, int]], targets: int, labelled: int, pixels: int, budget: float
):
    """The areas in words; points: (hit, predicted, detected, predictions, false pixels) per threshold."""
    pd = [detected / targets for _, _, detected, _, _ in points]
    fa = [false / pixels for *_, false in points]
    edges = sorted({0, 100e-6, *(x for x in fa if x < 100e-6)})
    target_roc = 0.0
    for low, high in pairwise(edges):
        best = max((p for p, x in zip(pd, fa, strict=True) if x <= low), default=0)
        target_roc += best * (high - low) / 100e-6
    of_recall = []
    for wanted in range(1, targets + 1):
        precisions = [d / n for _, _, d, n, _ in points if d >= wanted]
        of_recall.append(max(precisions, default=0))
    falling = points[::-1]
    roc = [(0, 0), *(((n - hit) / (pixels - labelled), hit / labelled) for hit, n, *_ in falling), (1, 1)]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(roc))
    recall, ap = 0.0, 0.0
    for hit, n, *_ in falling:
        ap += (hit / labelled - recall) * (hit / n if n else 0)
        recall = hit / labelled
    return {
        "pd_at_fa": max((p for p, x in zip(pd, fa, strict=True) if x <= budget), default=0),
        "auc_target": target_roc,
        "auc_pixel": area,
        "ap_target": sum(of_recall) / targets,
        "ap_pixel": ap,
    }


@pytest.mark.parametrize("seed", range(4))
def test_areas_equal_an_independent_definition(seed):
    """Maps of large images, so that false alarms of a few pixels lie within and beyond the Fa that counts."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, 300, 300), bool)
    logits = rng.normal(-12, 0.5, masks.shape)
    for mask, of in zip(masks, logits, strict=True):
        for row in range(10, 290, 40):
            for column in range(10, 290, 70):
                kind = rng.random()
                mask[row : row + 3, column : column + 3] = kind < 0.7
                if kind > 0.2:  # some hit, some missed, some false, of all strengths
                    of[row : row + 3, column : column + 2] = rng.uniform(-5, 14 if kind < 0.7 else 9)
    prob = 1 / (1 + np.exp(-logits))
    points = []
    for threshold in THRESHOLDS:
        counted = [count_image(p > threshold, m) for p, m in zip(prob, masks, strict=True)]
        fields = [
            (c.intersection, c.predicted, c.detected, c.detected + c.false_alarms, c.false_alarm_pixels)
            for c in counted
        ]
        points.append(tuple(np.sum(fields, 0)))
    targets = sum(len(components(mask)) for mask in masks)
    result = _curve_figures(prob, masks, budget=3e-5)
    expected = _definitions(points, targets, int(masks.sum()), masks.size, 3e-5)
    assert 0.05 < expected["auc_target"] < 0.95
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, rel=1e-12), key


def test_a_network_that_is_sure_of_its_false_alarms_has_a_pd_within_the_budget():
    """Targets at 0.9999, false alarms up to 0.998: no even step of the probability tells them apart."""
    masks = _scene()
    prob = np.where(masks, 0.9999, 1e-7)
    prob[0, 25:28, 20:28] = 0.998
    result = _curve_figures(prob, masks, budget=1e-5)
    assert result["pd_at_fa"] == 1
    assert result["auc_target"] == pytest.approx(1)


def test_areas_under_curves_in_closed_form():
    """An inverted map, and one that tells nothing."""
    mask = np.zeros((100, 100), bool)
    mask[:, :50] = True
    ramp = np.tile((np.arange(100) + 0.5) / 100, (100, 1)).T
    inverted, nothing = (_curve_figures(prob[None], mask[None]) for prob in (0.95 - 0.9 * mask, ramp))
    assert inverted["auc_pixel"] == pytest.approx(0)
    assert nothing["auc_pixel"] == pytest.approx(0.5)
    assert nothing["ap_pixel"] == pytest.approx(0.5)


def test_pd_at_a_false_alarm_budget():
    """A target of probability 0.6 and a false alarm of 4 px at 0.3: within the budget only above 0.3."""
    mask = np.zeros((100, 100), bool)
    mask[10:12, 10:12] = True
    prob = 0.6 * mask
    prob[50:52, 50:52] = 0.3
    sums = curve_counts(prob, mask)
    for budget, expected in ((1e-5, 1.0), (4e-4, 1.0)):
        assert curve_figures(sums, 1, 4, 10000, budget=budget)["figures"]["pd_at_fa"] == expected
    prob[50:52, 50:52] = 0.7  # now the false alarm outlasts the target
    sums = curve_counts(prob, mask)
    assert curve_figures(sums, 1, 4, 10000, budget=1e-5)["figures"]["pd_at_fa"] == 0
    assert curve_figures(sums, 1, 4, 10000, budget=4e-4)["figures"]["pd_at_fa"] == 1
    assert np.isnan(curve_figures(curve_counts(prob, mask & False), 0, 0, 10000)["figures"]["pd_at_fa"])


def test_pd_by_size_adds_up_to_pd(counts):
    own = columns(PROTOCOLS["native"], counts.views)
    sums = {key: value.sum() for key, value in own.items()}
    by_size = pd_by_size(sums)
    assert list(by_size) == ["1 to 9", "10 to 25", "26 to 81", "82 and more"]
    targets = [sums[f"targets_{end}"] for end in ("to_9", "to_25", "to_81", "above_81")]
    detected = sum(pd * n for pd, n in zip(by_size.values(), targets, strict=True) if n)
    assert (sum(targets), detected) == (97, pytest.approx(56))


def test_intervals_hold_the_figures_and_undefined_ones_have_none(counts):
    own = columns(PROTOCOLS["native"], counts.views)
    result = scores(counts)
    for key, bounds in intervals(own, figures, resamples=200).items():
        assert bounds[0] <= getattr(result, key) <= bounds[1]
    empty = _count([np.zeros((8, 8))], [np.zeros((8, 8), bool)], ["native"])
    assert intervals(columns(PROTOCOLS["native"], empty.views), figures, resamples=10)["pd"] is None
