"""Results side by side: what may be compared, what counts once, what is said of chance."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import ndimage

from sam_spl.errors import ConfigError, InputError
from sam_spl.metrics import PROTOCOLS, Counter, protocols_named
from sam_spl.results.compare import table
from sam_spl.results.files import find_results
from sam_spl.results.paired import paired, two_sides
from sam_spl.results.runs import distinct
from sam_spl.results.summary import summarise

SIDE = 32


def _scenes(images: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        ndimage.binary_dilation(rng.random((SIDE, SIDE)) < 0.004 * (k % 3), iterations=1)
        for k in range(images)
    ]


def result(
    run: str, seed: int, noise: float, *, protocols: Sequence[str] = ("native",), images=9, side=SIDE, **more
):
    """What testing writes of a network that is wrong in a share ``noise`` of pixels."""
    rng, masks = np.random.default_rng(seed), _scenes(images)
    of = protocols_named(protocols)
    counter = Counter(of)
    rows = []
    for k, mask in enumerate(masks):
        prob = np.clip((mask ^ (rng.random(mask.shape) < noise)) * 0.8 + 0.1 * rng.random(mask.shape), 0, 1)
        maps = {"input": np.kron(prob, np.ones((side // SIDE, side // SIDE)))}
        rows.append(counter.row(k, {r: maps.get(r, prob) for r in counter.resolutions}, mask))
    report = summarise(counter.unpack(np.array(rows)), [f"im_{k}" for k in range(images)], of, **more)
    return report | {
        "weights": {
            "file": f"/x/{run}/best.pt",
            "sha256": run,
            "model": "net",
            "settings": run.split("-")[0],
        },
        "dataset": {"name": "SIRST", "lists": "50_50", "split": "test", "fingerprint": "f"},
        "image_size": side,
        "precision": "float32",
    }


@pytest.mark.parametrize("name", ["native", "sam_spl", "datransnet"])
def test_the_paired_test_measures_the_difference_of_the_table(name):
    """Under every protocol, correctly empty images and relative thresholds too."""
    reports = [
        result(run, k, noise, protocols=[name]) for k, (run, noise) in enumerate((("a", 0.002), ("b", 0.02)))
    ]
    text = paired([reports[0]], [reports[1]], resamples=50)
    lines = {line.split()[0]: float(line.split()[2]) for line in text.splitlines() if "p =" in line}
    a, b = (report["scores"] for report in reports)
    scales = {
        "IoU": ("iou", 100),
        "nIoU": ("niou", 100),
        "F1": ("f1", 100),
        "Pd": ("pd", 100),
        "Fa": ("fa", 1e6),
    }
    expected = {
        title: scale * (a[key] - b[key]) for title, (key, scale) in scales.items() if a[key] is not None
    }
    assert lines == pytest.approx(expected, abs=0.006)
    assert text.endswith("this is about these two weights only, not about training again.")


def test_results_say_the_size_and_the_content_of_masks():
    rows = result("a", 0, 0.01)["images"]
    assert {(row["height"], row["width"]) for row in rows} == {(SIDE, SIDE)}
    contents = {mask.tobytes() for mask in _scenes(9)}
    assert len({row["mask"] for row in rows}) == len(contents) > 3
    assert [row["mask"] for row in result("b", 1, 0.1)["images"]] == [row["mask"] for row in rows]


def _other_names(report):
    for row in report["images"]:
        row["name"] = row["name"].replace("im", "frame")


def _other_size(report):
    report["images"][3]["height"] = 64


def _other_mask(report):
    report["images"][3]["mask"] = "00000000"


def _other_group(report):
    report["images"][3]["group"] = "g"


def _earlier(report):
    for row in report["images"]:
        del row["mask"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_names, r"of different images \(18 in one only, first frame_0\)"),
        (_other_size, r"differ in the sizes of images \(1 of 9 images, first im_3\)"),
        (_other_mask, r"differ in the content of masks \(1 of 9 images, first im_3\)"),
        (_other_group, r"differ in groups"),
        (_earlier, r"Test it again"),
    ],
)
def test_a_paired_comparison_of_unlike_results_is_refused(change, message):
    a, b = result("a", 0, 0.01), result("b", 1, 0.02)
    assert "IoU" in paired([a], [b], resamples=100)
    changed = copy.deepcopy(b)
    change(changed)
    with pytest.raises(InputError, match=message):
        paired([a], [changed], resamples=100)


def test_other_rules_are_refused():
    a = result("a", 0, 0.01)
    with pytest.raises(InputError, match=r"different rules \(empty: .*has nIoU 1; .*has nIoU 0\)"):
        paired([a], [result("b", 1, 0.02, empty="zero")])
    assert "IoU" in paired([a], [result("b", 1, 0.02, empty="one")], resamples=100)  # what native does anyway
    with pytest.raises(InputError, match=r"b was not scored under native. Test it with protocols=\[native\]"):
        paired([a], [result("b", 1, 0.02, protocols=["mshnet"])])
    small, large = (
        result(name, 1, 0.02, protocols=["sam_spl"], side=side) for name, side in (("a", 32), ("b", 64))
    )
    with pytest.raises(InputError, match="differ in the resolution that masks are scored at"):
        paired([small], [large])


def test_runs_that_differ_in_their_seed_are_one_method():
    """Three seeds against two: sides are found by settings, or named; the difference is that of means."""
    a = [result(f"a-{seed}", seed, 0.01) for seed in (1, 2, 3)]
    b = [result(f"b-{seed}", seed, 0.03) for seed in (4, 5)]
    assert two_sides([a[0], b[0], a[1], b[1], a[2]]) == (a, b)
    text = paired(a, b, resamples=1000)
    assert text == paired(*two_sides([*a, *b]), resamples=1000)
    assert "A: 3 runs, a-1, a-2, a-3\nB: 2 runs, b-4, b-5" in text
    iou = next(line for line in text.splitlines() if line.startswith("IoU")).split()
    means = [np.mean([100 * report["scores"]["iou"] for report in side]) for side in (a, b)]
    assert [float(iou[2]), float(iou[3]), float(iou[4])] == pytest.approx(
        [*means, means[0] - means[1]], abs=0.006
    )
    fa = next(line for line in text.splitlines() if line.startswith("Fa"))
    assert fa.split()[-2:] == ["1.00", "-"]  # fewer false alarms are better
    with pytest.raises(ConfigError, match="5 results of 3 settings; it takes two results, or runs of two"):
        two_sides([*a, b[0], result("c", 6, 0.1)])
    with pytest.raises(ConfigError, match="a-1, b-4 are of 2 settings"):
        paired([a[0], b[0]], [b[1]])
    with pytest.raises(ConfigError, match="a-1 is on both sides"):
        paired(a, [a[0]])
    assert "B: 1 run, b-4; its training is taken to vary as the other's does" in paired(
        a, b[:1], resamples=1000
    )


def test_runs_that_agree_by_chance_tell_no_number_of_runs():
    one = result("a-1", 1, 0.01)
    two = copy.deepcopy(one)
    two["weights"] |= {"file": "/x/a-2/best.pt", "sha256": "a-2"}
    text = paired([one, two], [result("b-3", 3, 0.03)], resamples=1000)
    rows = [line for line in text.splitlines() if "%" in line.split()[1:2]]
    assert len(rows) == 4
    assert {row.split()[-1] for row in rows} == {"-"}


def test_sides_that_were_run_in_different_ways_say_so():
    """At one resolution of masks, each method may have its own input size and precision."""
    a, b = result("a", 0, 0.01), result("b", 1, 0.02)
    assert "differ" not in paired([a], [b], resamples=100)
    line = "the sides differ in input (32 against 512) and precision (float32 against bfloat16)"
    other = copy.deepcopy(b) | {"image_size": 512, "precision": "bfloat16"}
    assert paired([a], [other], resamples=100).startswith(line)
    del b["precision"]  # as of saved predictions
    assert paired([a], [b], resamples=100).startswith(
        "the sides differ in precision (float32 against not stated):"
    )
    runs = [result(f"a-{seed}", seed, 0.01) for seed in (1, 2)]
    assert paired(runs, [other], resamples=1000).startswith(line)


def _write(folder, report):
    (folder / "results.json").write_text(json.dumps(report))
    return folder


_GONE = object()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", _GONE, "images is missing"),
        ("images", {}, "images is not a list"),
        ("images.0", 3, r"images\[0\].name is missing or not text"),
        ("images.0.name", _GONE, r"images\[0\].name is missing or not text"),
        ("images.2.detected", _GONE, r"images\[2\].detected is not a whole number"),
        ("images.2.detected", -1, r"images\[2\].detected is not a whole number"),
        ("images.2.detected", 50, r"images\[2\].detected is 50, targets \d+"),
        ("images.2.labelled", "9", r"images\[2\].labelled is not a whole number"),
        ("images.2.predicted", 1e9, r"images\[2\].predicted is 1000000000.0, pixels 1024"),
        ("images.2.intersection", 1000, r"images\[2\].intersection is 1000, union \d+"),
        ("images.2.false_alarms", 0.5, r"images\[2\].false_alarms is not a whole number"),
        ("images.2.pixels", float("inf"), r"images\[2\].pixels is not a whole number"),
        ("images.2.iou", 2.5, r"images\[2\].iou is not a number from 0 to 1"),
        ("images.2.iou", float("nan"), r"images\[2\].iou is not a number from 0 to 1"),
        ("images.2.iou", "abc", r"images\[2\].iou is not a number from 0 to 1"),
        ("images.2.iou", _GONE, r"images\[2\].iou is not a number from 0 to 1"),
        ("images.2.iou", 0.125, r"images\[2\].iou is 0.125, intersection / union 0."),
        ("images.2.iou", None, r"images add up to another niou than scores"),
        ("images.2.pixels", 1025, r"images add up to another fa than scores"),
        ("images.2.name", "im_1", r"images\[2\].name: im_1 is there twice"),
        ("images.2.group", ["g"], r"images\[2\].group is not text"),
        ("images.8", _GONE, r"images add up to another iou than scores"),
        (
            "protocols.mshnet.images.2.detected",
            -1,
            r"protocols.mshnet.images\[2\].detected is not a whole number",
        ),
        ("protocols.mshnet.images", "x", "protocols.mshnet.images is not a list"),
        ("protocols", {}, "protocol names 'native', which is not in protocols"),
        ("protocols", [], "protocols is not a table"),
        ("protocols.native", None, "protocols.native.scores is missing"),
        ("protocols.native.scores", _GONE, "protocols.native.scores is missing"),
        ("protocols.native.scores.iou", _GONE, "protocols.native.scores.iou is missing"),
        ("protocols.native.scores.iou", "0.5", "protocols.native.scores.iou is not a number"),
        ("protocols.native.scores.iou", 0.5, "images add up to another iou than scores"),
        ("protocols.native.scores.detected", 0, "images add up to another detected than scores"),
        ("protocols.native.empty", 1, "protocols.native.empty is not text"),
        ("protocol", _GONE, "protocol is missing"),
        ("protocol", "nope", "protocol names 'nope', which is not in protocols"),
        ("dataset", "SIRST", "dataset is not a table"),
        ("dataset.name", _GONE, "dataset.name is missing"),
        ("dataset.lists", _GONE, "dataset.lists is missing"),
        ("dataset.split", 3, "dataset.split is not text"),
        ("weights", None, "weights is missing"),
        ("weights.file", _GONE, "weights.file is missing"),
        ("weights.trained_on", "x", "weights.trained_on is not a table"),
    ],
)
def test_a_result_file_that_was_changed_is_refused_with_file_and_key(key, value, message, tmp_path):
    report = result("a", 0, 0.01, protocols=["native", "mshnet"])
    folder = _write(tmp_path, report)
    assert json.dumps(find_results([folder])[0]) == json.dumps(report | {"folder": str(tmp_path)})
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    at = report
    for part in path:
        at = at[part]
    if value is _GONE:
        del at[last]
    else:
        at[last] = value
    with pytest.raises(InputError, match=rf"^{tmp_path}/results.json: {message}.* Test again\.$"):
        find_results([_write(tmp_path, report)])


@pytest.mark.parametrize("empty", [None, "one", "zero", "skip"])
def test_what_testing_writes_under_any_protocol_is_accepted(empty, tmp_path):
    """Also correctly empty images, nIoU not reported, images that a relative threshold leaves out."""
    for noise in (0.0, 0.02):
        report = result("a", 0, noise, protocols=list(PROTOCOLS), empty=empty)
        assert [row["name"] for row in find_results([_write(tmp_path, report)])[0]["images"]][:1] == ["im_0"]


def test_files_of_earlier_versions_are_still_shown(tmp_path):
    """They say less of each image, and nothing of images under further protocols."""
    report = result("a", 0, 0.01, protocols=["native", "mshnet"])
    report["images"] = [{"name": row["name"]} for row in report["images"]]
    del report["protocols"]["mshnet"]["images"]
    (read,) = find_results([_write(tmp_path, report)])
    assert "mshnet" in table([read])
    with pytest.raises(InputError, match="Test it again"):
        paired([read], [result("b", 1, 0.01)])


def test_a_mean_of_runs_has_an_interval_over_runs_and_images():
    runs = [result(f"a-{seed}", seed, noise) for seed, noise in ((1, 0.01), (2, 0.02), (3, 0.03))]
    mean = next(line for line in table(runs).splitlines() if "mean of 3" in line)
    value = np.mean([100 * run["scores"]["iou"] for run in runs])
    bounds = [float(word.strip("[],")) for word in mean.split()[6:9]]
    assert bounds[0] == pytest.approx(value, abs=0.006)
    assert bounds[1] < value < bounds[2]
    assert "in brackets: 95 % intervals over runs and images" in table(runs).splitlines()[0]
    assert "mean of" not in table([*runs[:1], result("b-1", 4, 0.01)])


def test_a_run_given_twice_counts_once():
    runs = [result(f"a-{seed}", seed, 0.02) for seed in (1, 2)]
    twice = copy.deepcopy(runs[0])
    twice["weights"] |= {"file": "/copy/of/it/last.pt"}
    again = copy.deepcopy(runs[1])
    again["weights"] |= {"file": "/y/a-2/best.safetensors", "sha256": "another file of the same weights"}
    kept, notes = distinct([*runs, twice, again])
    assert kept == runs
    assert notes == [
        "counted once: /copy/of/it/last.pt repeats /x/a-1/best.pt on SIRST",
        "counted once: /y/a-2/best.safetensors repeats /x/a-2/best.pt on SIRST",
    ]
    assert "mean of 2" in table([*runs, twice, again])
    at_other_precision = copy.deepcopy(runs[0]) | {"precision": "bfloat16"}
    assert distinct([runs[0], at_other_precision]) == ([runs[0], at_other_precision], [])


@pytest.mark.parametrize(
    ("change", "column", "values"),
    [
        (lambda report: report.update(precision="bfloat16"), "precision", ("float32", "bfloat16")),
        (lambda report: report.update(image_size=512), "input", ("32", "512")),
        (lambda report: report["dataset"].update(split="train"), "split", ("test", "train")),
        (lambda report: report["dataset"].update(lists="idx_427"), "lists", ("50_50", "idx_427")),
        (
            lambda report: report["protocols"]["native"].update(empty="nIoU not reported"),
            "correctly empty image",
            ("has nIoU 1", "nIoU not reported"),
        ),
    ],
)
def test_rows_show_what_differs_in_how_they_were_made(change, column, values):
    a, b = result("a", 0, 0.01), result("b", 1, 0.02)
    common = table([a, b]).splitlines()[0]
    assert f"{column} {values[0]}" in common
    change(b)
    text = table([a, b])
    header, *rows = text.splitlines()[1:]
    start = header.index(column)
    for row, value in zip(rows, values, strict=True):
        assert row[start:].startswith(value)
    assert f"{column} {values[0]}" not in text.splitlines()[0]


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_rows_of_one_protocol_stand_together_under_its_name(form):
    """Two runs of one setting under two protocols: each section ends with the mean of its own rows."""
    runs = [result(f"a-{seed}", seed, 0.02, protocols=["native", "mshnet"]) for seed in (1, 2)]
    lines = table(runs, form).splitlines()
    native, mshnet = (next(k for k, line in enumerate(lines) if f"protocol {name}" in line) for name in
                      ("native", "mshnet"))  # fmt: skip
    sections = lines[native:mshnet], lines[mshnet:]
    for name, section in zip(("native", "mshnet"), sections, strict=True):
        for run in runs:
            iou = f"{100 * run['protocols'][name]['scores']['iou']:.2f}"
            assert any(iou in line for line in section)
        assert sum("mean of 2" in line for line in section) == 1
    assert "protocol" not in lines[native - 1]
    alone = table([result("a-1", 1, 0.02)], form)
    assert "protocol native" in alone.splitlines()[0]


def test_as_csv_each_row_says_its_protocol_and_all_digits():
    run = result("a-1", 1, 0.02, protocols=["native", "mshnet"])
    rows = list(csv.DictReader(io.StringIO(table([run], "csv"))))
    assert [row["protocol"] for row in rows] == ["native", "mshnet"]
    assert [float(row["iou"]) for row in rows] == [
        run["protocols"][name]["scores"]["iou"] for name in ("native", "mshnet")
    ]
