"""The report: one file that holds all it needs, and in a real browser, where there is one, works."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sam_spl.metrics import protocols_named, scores
from sam_spl.metrics.curves import HALF, STEPS, THRESHOLDS, levels
from sam_spl.metrics.figures import FIGURES, MAIN
from sam_spl.report import page as report_module
from sam_spl.report.page import Sample, live_figures, write_report
from sam_spl.results.rules import EMPTY
from sam_spl.results.summary import summarise, worst
from tests.report.conftest import NAMES, counts_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(predicted, tmp_path_factory) -> tuple[Path, dict]:
    samples, probs = predicted
    counts = counts_of(samples, probs)
    result = summarise(counts, NAMES, protocols_named(["native", "sam_spl"]), bootstrap=50)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path, result, counts, title="a network on a set", about=[("model", "m")], order=worst(counts),
        sample=samples.__getitem__,
    )  # fmt: skip
    return path, result


def test_the_live_figures_are_those_of_each_threshold(predicted):
    samples, probs = predicted
    live = live_figures(counts_of(samples, probs))
    for k in (0, 40, 100, 173):
        at = scores(counts_of(samples, [1.0 * (prob > THRESHOLDS[k]) for prob in probs], ["native"]))
        for key, values in live.items():
            assert values[k] == pytest.approx(getattr(at, key), rel=1e-12), (key, k)


def test_the_report_holds_all_it_needs(page):
    text = page[0].read_text()
    rest = re.sub(r"data:image/[\w+/;,=]*", "", text)
    assert set(re.findall(r"https?://[\w.]+/", rest)) <= {"http://www.w3.org/"}
    assert text.count("</script>") == 2  # no image's name ends the data
    assert not re.search(r"<link|src=\"http|@import", text)


def test_a_gallery_that_would_be_too_large_is_cut(predicted, page, tmp_path, monkeypatch):
    samples, probs = predicted
    monkeypatch.setattr(report_module, "_MOST_BYTES", 30_000)
    counts = counts_of(samples, probs)
    write_report(
        tmp_path / "r.html",
        page[1],
        counts,
        title="",
        about=[],
        order=worst(counts),
        sample=samples.__getitem__,
    )
    data = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "r.html").read_text(), re.DOTALL)[1])
    assert 1 <= len(data["images"]) < len(samples)
    assert f"{len(data['images'])} of {len(samples)} images" in data["shown"]


def _browse(path: Path, script: str = "") -> tuple[str, str]:
    """The page after a script has acted on it, and what the console said."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    acted = path.with_name("acted.html")
    added = f"addEventListener('load', () => {{ {script} }});"
    digest = base64.b64encode(hashlib.sha256(added.encode()).digest()).decode()
    text = path.read_text().replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    acted.write_text(f"{text}<script>{added}</script>")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=8000",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", acted.as_uri()], capture_output=True, text=True, timeout=120
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def _live(dom: str) -> dict[str, str]:
    return dict(re.findall(r'<b id="live-(\w+)">([^<]*)</b>', dom))


def _move(value: int) -> str:
    return (
        f"const s = document.getElementById('threshold'); s.value = {value};"
        "s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change'));"
    )


def test_in_a_browser_the_default_figures_are_those_of_the_result_file(page):
    dom, console = _browse(page[0], "for (const card of cards.values()) paint(card);")
    assert console == ""
    first = page[1]["scores"]
    assert _live(dom) == {figure.key: figure.text(first[figure.key]) for figure in MAIN}
    assert dom.count('class="card"') == len(NAMES)
    assert len(re.findall("<td", dom)) == 2 * 6  # two protocols, five figures each
    targets, false = page[1]["scores"]["targets"], page[1]["scores"]["false_alarms"]
    assert len(re.findall("<canvas", dom)) == 3 * len(NAMES) + 2 * (
        targets + false
    )  # a zoom, plain and overlaid


def test_in_a_browser_the_slider_scores_again(page, predicted):
    samples, probs = predicted
    dom, console = _browse(page[0], _move(111))
    assert console == ""
    threshold = THRESHOLDS[111]
    assert '<b id="at">0.750</b>' in dom
    at = scores(counts_of(samples, [1.0 * (prob > threshold) for prob in probs], ["native"]))
    assert _live(dom) == {figure.key: figure.text(getattr(at, figure.key)) for figure in MAIN}
    assert _live(dom) != _live(_browse(page[0])[0])
    statuses = dict(re.findall(r"<h3>(image_\d)<span>\d targets?, (\d+ missed, \d+ false)", dom))
    for k in range(7):
        image = counts_of(samples[k : k + 1], [1.0 * (probs[k] > threshold)], ["native"]).images()[0]
        assert statuses[NAMES[k]] == f"{image.targets - image.detected} missed, {image.false_alarms} false"


@pytest.mark.parametrize(
    ("step", "shown"), [(0, "0"), (1, "0.000050"), (100, "0.500"), (198, "0.999945"), (199, "0.999950")]
)
def test_in_a_browser_thresholds_have_digits_enough_near_0_and_1(page, step, shown):
    dom, console = _browse(page[0], _move(step))
    assert console == ""
    assert f'<b id="at">{shown}</b>' in dom


def test_in_a_browser_figures_of_a_curve_are_named_so(page):
    dom, _ = _browse(page[0])
    areas = page[1]["details"]["curves"]
    pd_at_fa, area = FIGURES["pd_at_fa"], FIGURES["auc_target"]
    assert (
        f"<dt>Pd at Fa &lt;= 10e-6</dt><dd>{pd_at_fa.text(areas['pd_at_fa'])} % ({pd_at_fa.note})</dd>" in dom
    )
    assert f"<dt>{area.title}</dt><dd>{area.text(areas['auc_target'])} ({area.note})</dd>" in dom


@pytest.mark.parametrize(("rule", "iou"), [("one", 1.0), ("zero", 0.0), ("skip", None)])
def test_the_gallery_scores_empty_images_by_the_rule_asked_for(predicted, tmp_path, rule, iou):
    """An image without target: at 0.5 nothing is predicted, at 0 everything is."""
    image = predicted[0][0].image
    sample = Sample("a", image, np.zeros(image.shape[:2], bool), levels(np.full(image.shape[:2], 0.2)))
    counts = counts_of([sample], [np.full(image.shape[:2], 0.2)], ["native"])
    result = summarise(counts, ["a"], protocols_named(["native"]), empty=rule)
    path = tmp_path / "r.html"
    write_report(
        path, result, counts, title="", about=[], order=[0], sample=lambda position: sample, empty=EMPTY[rule]
    )  # fmt: skip
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])
    ious = data["images"][0]["iou"]
    assert (len(ious), ious[0], ious[HALF]) == (STEPS, 0, iou)
    assert data["live"]["niou"][HALF] == iou
    assert data["protocols"]["native"]["scores"]["niou"] == iou


@pytest.mark.parametrize("kind", ["missed", "false", "right"])
def test_in_a_browser_the_gallery_is_filtered_and_sorted(page, predicted, kind):
    samples, probs = predicted
    images = counts_of(samples, probs, ["native"]).images()
    fits = {
        "missed": [i.targets > i.detected for i in images],
        "false": [i.false_alarms > 0 for i in images],
        "right": [i.targets == i.detected and not i.false_alarms for i in images],
    }[kind]
    script = f"for (const [id, v] of [['filter', '{kind}'], ['sort', 'name']]) {{"
    script += "const s = document.getElementById(id); s.value = v; s.dispatchEvent(new Event('change')); }"
    dom, console = _browse(page[0], script)
    assert console == ""
    assert f'<b id="count">{sum(fits)} of {len(NAMES)}</b>' in dom
    shown = re.findall(r'<div class="card">\s*<h3>(image_\d)', dom)
    assert shown == [name for name, fit in zip(NAMES[:7], fits[:7], strict=True) if fit]


def test_the_page_runs_nothing_but_its_own_script(page, tmp_path):
    """Neither what an image is named, nor a script or a handler that somebody puts into the file."""
    done = "document.title = 'run'"
    text = page[0].read_text()
    planted = f'<script>{done}</script><img src=x onerror="{done}"><svg onload="{done}"></svg>'
    (tmp_path / "planted.html").write_text(text.replace('<div id="gallery">', f'{planted}<div id="gallery">'))
    dom, said = _browse(tmp_path / "planted.html")
    assert "<title>a network on a set</title>" in dom  # and its own script has run
    assert said.count("Content Security Policy") >= 2


def test_an_image_may_be_named_like_a_tag(predicted, page, tmp_path):
    samples, probs = predicted
    name = "<img src=x onerror=document.title='run'></script><b id=bold>"
    counts = counts_of(samples, probs)
    write_report(
        tmp_path / "named.html",
        page[1],
        counts,
        title=name,
        about=[(name, name)],
        order=worst(counts),
        sample=lambda k: samples[k]._replace(name=name),
    )
    text = (tmp_path / "named.html").read_text()
    assert name not in text and text.count("</script>") == 2
    dom, said = _browse(
        tmp_path / "named.html", "document.body.dataset.bold = !!document.getElementById('bold')"
    )
    assert "&lt;img src=x onerror=" in dom and 'data-bold="false"' in dom and not said
