"""The report in a real browser, where there is one; pictures for papers; scores without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import nn

from sam_spl.cli import commands
from sam_spl.cli.errors import run
from sam_spl.data.dataset import EvaluationSet
from sam_spl.data.normalise import Normalise
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.engine.evaluator import evaluate
from sam_spl.errors import ConfigError, InputError
from sam_spl.metrics import PROTOCOLS, protocols_named, scores
from sam_spl.metrics.curves import HALF, STEPS, THRESHOLDS, levels
from sam_spl.metrics.figures import FIGURES, MAIN
from sam_spl.metrics.meter import ProtocolMetric
from sam_spl.predict.maps import probability
from sam_spl.predict.predictor import Predictor
from sam_spl.report import page as report_module
from sam_spl.report.figures import write_figures
from sam_spl.report.page import Sample, live_figures, write_report
from sam_spl.results.rules import EMPTY
from sam_spl.results.summary import summarise, worst
from sam_spl.runtime import World
from tests.conftest import ROOT, TINY_OVERRIDES, write_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = [f"image_{k}" for k in range(7)] + ["a</script><!--<script>'\"&"]


@pytest.fixture(scope="module")
def predicted() -> tuple[list[Sample], list[np.ndarray]]:
    """Generated scenes with predictions that miss, hit and invent targets."""
    source, rng = SyntheticSource(len(NAMES), 96, seed=2, areas=(6, 40)), np.random.default_rng(0)
    samples, probs = [], []
    for k, name in enumerate(NAMES):
        image, mask = source.load(k)
        prob = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1) * rng.uniform(0.3, 1.5)
        for _ in range(2):
            y, x = rng.integers(0, 90, 2)
            prob[y : y + 3, x : x + 3] = rng.uniform(0.2, 1)
        prob = np.clip(prob, 0, 1)
        samples.append(Sample(name, image, mask, levels(prob)))
        probs.append(prob)
    return samples, probs


def _counts(samples, probs, names=("native", "sam_spl")):
    metric = ProtocolMetric(protocols_named(names), detailed=True)
    metric.update(
        range(len(probs)),
        [dict.fromkeys(metric.resolutions, prob) for prob in probs],
        [s.mask for s in samples],
    )
    return metric.counts()


@pytest.fixture(scope="module")
def page(predicted, tmp_path_factory) -> tuple[Path, dict]:
    samples, probs = predicted
    counts = _counts(samples, probs)
    result = summarise(counts, NAMES, protocols_named(["native", "sam_spl"]), bootstrap=50)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path, result, counts, title="a network on a set", about=[("model", "m")], order=worst(counts),
        sample=samples.__getitem__,
    )  # fmt: skip
    return path, result


def test_the_live_figures_are_those_of_each_threshold(predicted):
    samples, probs = predicted
    live = live_figures(_counts(samples, probs))
    for k in (0, 40, 100, 173):
        at = scores(_counts(samples, [1.0 * (prob > THRESHOLDS[k]) for prob in probs], ["native"]))
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
    counts = _counts(samples, probs)
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
    acted.write_text(path.read_text() + f"<script>addEventListener('load', () => {{ {script} }});</script>")
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
    at = scores(_counts(samples, [1.0 * (prob > threshold) for prob in probs], ["native"]))
    assert _live(dom) == {figure.key: figure.text(getattr(at, figure.key)) for figure in MAIN}
    assert _live(dom) != _live(_browse(page[0])[0])
    statuses = dict(re.findall(r"<h3>(image_\d)<span>\d targets?, (\d+ missed, \d+ false)", dom))
    for k in range(7):
        image = _counts(samples[k : k + 1], [1.0 * (probs[k] > threshold)], ["native"]).images()[0]
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
    counts = _counts([sample], [np.full(image.shape[:2], 0.2)], ["native"])
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
    images = _counts(samples, probs, ["native"]).images()
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


def test_pictures_for_papers(predicted, page, tmp_path):
    files = write_figures(tmp_path, page[1]["details"], predicted[0][:2])
    assert {path.name for path in files} == {
        f"{name}.{form}" for name in ("roc", "pr", "grid", "surfaces") for form in ("png", "pdf")
    }
    for path in files:
        if path.suffix == ".pdf":
            assert path.read_bytes()[:5] == b"%PDF-"
        else:
            assert cv2.imread(str(path)).std() > 5  # something is drawn


def _score(*words) -> None:
    spec = util.spec_from_file_location("score", ROOT / "scripts" / "score.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.score([str(word) for word in words])


@pytest.fixture(scope="module")
def tested(tmp_path_factory) -> tuple[Path, Path]:
    """A network tested on a folder, its predictions saved: the folder, and what testing wrote."""
    root = tmp_path_factory.mktemp("scored")
    data = write_folder(root / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    small = ["dataset.image_size=64", "trainer.epochs=1", "trainer.batch_size=4"]
    flags = ["dataset=custom", "--data_path", str(data), "device=cpu"]
    commands.train([*TINY_OVERRIDES, *small, *flags, "--save_dir", str(root / "run")])
    words = [
        "--weights",
        str(root / "run"),
        "protocols=[native,sam_spl,datransnet]",
        "save_predictions=npy",
        "figures=1",
    ]
    commands.test([*flags, *words, "--save_dir", str(root / "out")])
    return data, root / "out"


def test_testing_writes_report_figures_and_predictions(tested):
    names = {path.name for path in tested[1].iterdir()}
    assert names == {"results.json", "images.csv", "report.html", "figures", "overlays", "predictions"}
    assert sorted(path.name for path in (tested[1] / "predictions").iterdir()) == ["im_4.npy", "im_5.npy"]
    report = json.loads((tested[1] / "results.json").read_text())
    assert list(report["protocols"]) == ["native", "sam_spl", "datransnet"]
    assert set(report["protocols"]["sam_spl"]) >= {
        "threshold",
        "resolution",
        "matching",
        "empty",
        "false_alarms",
    }
    assert len(report["images"]) == 2
    assert {"name", "intersection", "union", "targets", "detected", "false_alarm_pixels"} <= set(
        report["images"][0]
    )
    assert {"sha256", "model"} <= set(report["weights"])
    assert {"sam_spl", "torch", "opencv"} <= set(report["versions"])


def test_a_network_whose_answers_are_not_finite_is_named(tested, tmp_path, capsys):
    data, out = tested
    state = torch.load(out.parent / "run" / "best.pt", weights_only=True)
    for head in range(3):
        state["model"][f"decoder.heads.{head}.weight"].fill_(3e38)  # finite, as a file's weights need to be
    torch.save(state, tmp_path / "large.pt")
    words = [
        "dataset=custom",
        "--data_path",
        str(data),
        "device=cpu",
        "--weights",
        str(tmp_path / "large.pt"),
    ]
    with pytest.raises(SystemExit) as end:
        run(commands.test, [*words, "--save_dir", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "the network's answer to im_4 is not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["npy", "mat", "png"])
def test_scoring_files_gives_what_testing_gave(tested, tmp_path, form):
    data, out = tested
    saved = {path.stem: np.load(path) for path in (out / "predictions").iterdir()}
    (tmp_path / "maps").mkdir()
    for name, prob in saved.items():
        if form == "npy":
            np.save(tmp_path / "maps" / f"{name}.npy", prob)
        elif form == "mat":
            savemat(tmp_path / "maps" / f"{name}_pred.mat", {"T": prob})
        else:  # eight bits: probabilities are rounded, but to the same side of one half
            cv2.imwrite(str(tmp_path / "maps" / f"{name}.png"), np.where(prob > 0.5, 255, 0).astype(np.uint8))
    words = ["--predictions", tmp_path / "maps", "--masks", data / "masks", "--list", data / "test.txt"]
    _score(*words, "--output", tmp_path / "out", "--protocols", *PROTOCOLS)
    ours = json.loads((out / "results.json").read_text())
    theirs = json.loads((tmp_path / "out" / "results.json").read_text())
    assert theirs["scores"] == ours["scores"]
    assert theirs["images"] == ours["images"]
    if form != "png":
        for key in ("hiou", "curves", "pd_by_size"):
            assert theirs["details"][key] == ours["details"][key]
        assert theirs["protocols"]["datransnet"]["scores"] == ours["protocols"]["datransnet"]["scores"]


def test_images_of_one_group_are_one_unit_of_chance(tested, tmp_path, capsys):
    """Two images of one sequence: counts are as before, intervals are none, and results say the groups."""
    data, out = tested
    flags = ["dataset=custom", "--data_path", data, "device=cpu", "report=0", "overlays=0"]
    words = [*flags, "--weights", out.parent / "run", "--group", "^(im)_", "--save_dir", tmp_path / "ours"]
    commands.test([str(word) for word in words])
    assert "intervals over 1 group(s) of 2 images" in capsys.readouterr().out
    words = ["--predictions", out / "predictions", "--masks", data / "masks", "--list", data / "test.txt"]
    _score(*words, "--group", "^im", "--output", tmp_path / "theirs")
    blind, ours, theirs = (
        json.loads((folder / "results.json").read_text())
        for folder in (out, tmp_path / "ours", tmp_path / "theirs")
    )
    assert ours["images"] == theirs["images"] == [{**row, "group": "im"} for row in blind["images"]]
    assert ours["scores"] == theirs["scores"] == blind["scores"]
    assert set(ours["intervals"].values()) == set(theirs["intervals"].values()) == {None}
    with pytest.raises(ConfigError, match=r"--group: '\(' is no regular expression"):
        _score(*words, "--group", "(")


def test_maps_of_another_size_are_interpolated_as_testing_does(predicted, tmp_path):
    samples, probs = predicted
    for folder in ("maps", "masks"):
        (tmp_path / folder).mkdir()
    for k, (sample, prob) in enumerate(zip(samples, probs, strict=True)):
        np.save(tmp_path / "maps" / f"{k}.npy", np.clip(prob, 1e-4, 1 - 1e-4))
        cv2.imwrite(str(tmp_path / "masks" / f"{k}.png"), sample.mask.astype(np.uint8) * 255)
    words = ["--predictions", tmp_path / "maps", "--masks", tmp_path / "masks", "--output", tmp_path / "out"]
    _score(*words, "--protocols", "native", "mshnet", "--bootstrap", 0)
    logits = [torch.from_numpy(np.clip(prob, 1e-4, 1 - 1e-4)).logit()[None] for prob in probs]
    metric = ProtocolMetric(protocols_named(["mshnet"]))
    metric.update(range(8), [{"256": probability(x, (256, 256))} for x in logits], [s.mask for s in samples])
    expected = scores(metric.counts(), PROTOCOLS["mshnet"])
    result = json.loads((tmp_path / "out" / "results.json").read_text())["protocols"]["mshnet"]["scores"]
    for key in ("iou", "niou", "f1", "pd", "fa"):
        assert result[key] == pytest.approx(getattr(expected, key), abs=1e-4)


def _other_size(folder: Path) -> None:
    np.save(folder / "im_4.npy", np.zeros((9, 9), np.float32))


def _not_finite(folder: Path) -> None:
    prob = np.load(folder / "im_4.npy")
    prob[0, 0] = np.nan
    np.save(folder / "im_4.npy", prob)


def _infinite(folder: Path) -> None:
    prob = np.load(folder / "im_4.npy")
    prob[0, 0], prob[0, 1] = np.inf, -np.inf
    np.save(folder / "im_4.npy", prob)


def _too_large(folder: Path) -> None:
    np.save(folder / "im_5.npy", 255 * np.load(folder / "im_5.npy") + 2)


def _fewer(folder: Path) -> None:
    (folder / "im_5.npy").unlink()


def _unknown(folder: Path) -> None:
    np.save(folder / "what.npy", np.zeros((48, 40)))


def _broken(folder: Path) -> None:
    (folder / "im_4.npy").write_bytes(b"no array")


@pytest.mark.parametrize(
    ("damage", "named", "message"),
    [
        (_other_size, True, r"im_4\.npy is 9x9, its mask .*im_4\.png 40x48"),
        (_not_finite, True, r"im_4\.npy holds 1 value\(s\) that are not finite"),
        (_too_large, True, r"im_5\.npy holds values from .* but probabilities are in \[0, 1\]"),
        (_fewer, True, "lacks 1 of the 2 predictions .* first im_5"),
        (_unknown, False, "1 of 3 predictions have no mask in .* first what"),
        (_broken, True, r"cannot read .*im_4\.npy"),
        (lambda folder: None, False, "4 of 6 masks have no prediction, first im_0"),
    ],
)
def test_what_can_be_wrong_with_predictions_is_one_line_and_nothing_is_written(
    tested, tmp_path, capsys, damage, named, message
):
    data, out = tested
    shutil.copytree(out / "predictions", tmp_path / "maps")
    damage(tmp_path / "maps")
    words = ["--predictions", tmp_path / "maps", "--masks", data / "masks", "--output", tmp_path / "out"]
    with pytest.raises(SystemExit) as end:
        run(lambda argv: _score(*argv), [*words, *(["--list", data / "test.txt"] if named else [])])
    error = capsys.readouterr().err
    assert end.value.code == 1
    assert error.strip().count("\n") == 0
    assert re.search(message, error)
    assert not (tmp_path / "out").exists()


def test_infinite_logits_are_named_and_large_ones_are_not(tested, tmp_path, capsys):
    data, out = tested
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in (out / "predictions").iterdir():
        np.save(maps / path.name, np.where(np.load(path) > 0.5, 1e4, -1e4))
    words = ["--predictions", maps, "--masks", data / "masks", "--list", data / "test.txt", "--logits"]
    _score(*words, "--output", tmp_path / "large")
    ours = json.loads((out / "results.json").read_text())
    assert json.loads((tmp_path / "large" / "results.json").read_text())["scores"] == ours["scores"]
    _infinite(maps)
    with pytest.raises(InputError, match=r"im_4\.npy holds 2 value\(s\) that are not finite"):
        _score(*words, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Sure(nn.Module):
    """Answers with its image, and one value of its own in the second one it sees."""

    in_channels = 1

    def __init__(self, value: float, after: int) -> None:
        super().__init__()
        self.value, self.left = value, after

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        logits = image.clone()
        if not self.left:
            logits[..., 3, 5] = self.value
        self.left -= 1
        return [logits]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_an_answer_that_is_not_finite_stops_the_evaluation_and_names_the_image(value):
    source, world = SyntheticSource(3, 32, seed=0), World(0, 1, torch.device("cpu"), None)
    images = EvaluationSet(source, 32, Normalise((0.0,), (1.0,)))
    with pytest.raises(InputError, match=f"answer to {source.name(1)} is not finite"):
        evaluate(_Sure(value, after=1), images, world)
    evaluate(_Sure(1e30, after=1), images, world)
    with pytest.raises(InputError, match="answer to the image is not finite"):
        Predictor(_Sure(value, after=0), images.normalise, 32, world)(source.load(0)[0])
