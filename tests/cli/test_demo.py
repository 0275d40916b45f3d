"""``sam-spl demo``: what the page shows, and the page itself in a real browser."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sam_spl.cli.demo import DemoConfig
from sam_spl.cli.main import execute
from sam_spl.data.normalise import Normalise
from sam_spl.demo.examples import write_examples
from sam_spl.demo.look import COLUMNS, MOST, Limits, look, shades, view
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.predict.detections import detect
from sam_spl.predict.frames import Source, read
from sam_spl.predict.predictor import Predictor
from sam_spl.runtime import World
from sam_spl.weights.formats import save_weights
from tests.cli.chromium import CHROMIUM, Tab, chromium
from tests.conftest import ROOT
from tests.predict.test_frames import png_header, video


class Bright(nn.Module):
    """A network without weights: logit 40 (value - 0.65), and how often it was asked."""

    in_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: Tensor) -> list[Tensor]:
        self.calls += 1
        return [40 * (image - 0.65)]


def bright(threshold: float = 0.5) -> Predictor:
    world = World(0, 1, torch.device("cpu"))
    return Predictor(Bright(), Normalise((0.0,), (1.0,), 1), None, world, threshold=threshold)


def spots(path: Path) -> Path:
    """A 16-bit image of two targets and its darkest and brightest values: probabilities 0.5987 and 0.9975."""
    image = np.full((60, 80), 10000, np.uint16)
    image[0, 0], image[59, 79] = 0, 50000
    image[10:13, 20:24], image[40:42, 50:55] = 33000, 40000  # 0.66 and 0.8 of full scale
    cv2.imwrite(str(path), image)
    return path


def seen(path: Path, **limits):
    network = bright()
    *_, last = look(network, path, Limits(**limits))
    assert network.model.calls == len(last.predictions)
    return last


def test_a_threshold_gives_the_detections_of_the_map_and_asks_no_network(tmp_path):
    prediction = seen(spots(tmp_path / "a.png")).predictions[0]
    for threshold, count in ((0.0, 1), (0.5, 3), (0.7, 2), (0.9999, 1), (1.0, 0)):
        shown = view(prediction, threshold)
        found = detect(prediction.prob, prediction.image, threshold=threshold)
        assert len(shown.rows) == len(found) == count
        assert f"{count} detection{'s' * (count != 1)} at threshold {threshold:g}" == shown.title
        for row, one in zip(shown.rows, found, strict=True):
            values = dict(zip(COLUMNS, row, strict=True))
            assert (values["id"], values["area"]) == (one.id, one.area)
            assert (values["left"], values["top"], values["width"], values["height"]) == one.box
            assert (values["row"], values["column"]) == pytest.approx(one.centroid, abs=0.005)
            assert (values["mean_prob"], values["peak_prob"]) == pytest.approx(
                (one.mean_prob, one.peak_prob), abs=5e-6
            )
            assert values["scr"] == (None if one.scr is None else pytest.approx(one.scr, abs=0.005))


def test_each_detection_is_outlined_and_the_map_is_a_picture_of_the_same_size(tmp_path):
    prediction = seen(spots(tmp_path / "a.png")).predictions[0]
    nothing, all_three = view(prediction, 1.0).overlay, view(prediction, 0.5).overlay
    assert nothing.shape == all_three.shape == shades(prediction).shape == (384, 512, 3)  # 6.4 times as large
    changed = (nothing != all_three).any(-1)
    for top, left, height, width in ((10, 20, 3, 4), (40, 50, 2, 5)):
        inside = np.s_[
            round(6.4 * top) : round(6.4 * (top + height)), round(6.4 * left) : round(6.4 * (left + width))
        ]
        around = np.s_[round(6.4 * top) - 24 : round(6.4 * (top + height)) + 24, round(6.4 * left) - 24 :]
        assert not changed[inside].any()
        assert changed[around].any()
    levels = shades(prediction)[..., 0]
    assert levels[150, 100] == 0
    assert levels[round(6.4 * 11), round(6.4 * 22)] == pytest.approx(255 / (1 + np.exp(-0.4)), abs=1)
    assert levels[round(6.4 * 41), round(6.4 * 52)] == pytest.approx(255 / (1 + np.exp(-6)), abs=1)


def test_of_very_many_detections_those_with_the_highest_peaks_are_shown(tmp_path):
    image = np.zeros((80, 80), np.uint8)
    image[::2, ::2] = 170 + np.arange(1600).reshape(40, 40) // 20  # 1600 pixels that do not touch
    cv2.imwrite(str(tmp_path / "a.png"), image)
    shown = view(seen(tmp_path / "a.png").predictions[0], 0.5)
    assert shown.title == f"{MOST} detections at threshold 0.5, those with the highest peaks of more"
    assert [row[0] for row in shown.rows] == list(range(1, MOST + 1))
    assert min(row[1] for row in shown.rows) == 2 * ((1600 - MOST) // 40)  # the brightest rows are the last


def test_a_video_is_predicted_as_far_as_it_can_be_kept(tmp_path):
    film = video(tmp_path / "film.mp4", 30)
    frames = [frame.image for frame in read(Source(film, "film.mp4", "film"))]
    whole = seen(film)
    assert str(whole) == "film.mp4: 96x64 pixels, values to [0, 1]: full; 30 frames"
    for prediction, frame in zip(whole.predictions, frames, strict=True):
        np.testing.assert_array_equal(prediction.prob, bright()(frame).prob)
        assert len(view(prediction, 0.5).rows) == 1
    # 96 x 64 = 6144 pixels a frame
    for limits, count in (({"frames": 7}, 7), ({"megapixels": 0.0200}, 3), ({"megapixels": 0.0062}, 1)):
        first = seen(film, **limits)
        assert len(first.predictions) == count
        assert str(first).endswith(
            f"; {count} frame{'s' * (count > 1)}; the file holds more, sam-spl predict takes all"
        )
    assert seen(film, frames=30).rest == ""


def test_frames_are_shown_as_they_come(tmp_path):
    network, lines = bright(), []
    for found in look(network, video(tmp_path / "film.mp4", 3), Limits()):
        lines.append(str(found).partition("; ")[2])
        assert network.model.calls == len(found.predictions)
    assert lines == [*(f"frame {k} of 3 is predicted" for k in (1, 2, 3)), "3 frames"]


def test_a_video_that_is_cut_short_keeps_what_was_read(tmp_path):
    film = video(tmp_path / "film.avi", 30)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    found = seen(film)
    assert 3 < len(found.predictions) < 20
    assert str(found).endswith(f"; {len(found.predictions)} frames; {found.rest}")
    assert "of 30 frames (cut short?)" in found.rest


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "bomb", "film", "folder"])
def test_what_cannot_be_read_is_said_in_one_line_that_names_the_file(kind, tmp_path):
    path, reason = {
        "missing": (tmp_path / "a.png", "cannot be read: No such file or directory"),
        "text": (tmp_path / "a.txt", "is not a readable image (damaged"),
        "empty": (tmp_path / "a.tif", "is empty"),
        "bomb": (
            tmp_path / "a.png",
            "states 60000x60000 pixels, above the limit of 50 million. --max_megapixels",
        ),
        "film": (tmp_path / "a.mp4", "is not a readable video"),
        "folder": (tmp_path / "a.png", "is not a regular file"),
    }[kind]
    if kind == "bomb":
        png_header(path, 60000, 60000)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "not an image")
    with pytest.raises(InputError) as error:
        seen(path)
    assert str(error.value).startswith(f"{path.name}: {reason}")
    assert "\n" not in str(error.value)


def test_the_examples_are_generated_files_of_each_kind(tmp_path):
    examples = write_examples(tmp_path)
    kept = [list(read(Source(one.file, one.file.name, one.file.stem))) for one in examples]
    assert [len(frames) for frames in kept] == [1, 1, 1, 24]
    assert [frames[0].image.shape for frames in kept] == [(256, 256)] * 4
    assert [frames[0].scale for frames in kept] == ["full", "full", "minmax", "full"]  # minmax: of 16 bits
    assert all(cv2.imread(str(one.picture)).shape == (256, 256, 3) for one in examples)
    apart = np.abs(kept[3][0].image[1:, 2:].astype(float) - kept[3][1].image[:-1, :-2]).mean()
    assert apart < 5 < np.abs(kept[3][0].image.astype(float) - kept[3][1].image).mean()  # the camera moves


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 0}, "port: 0 is not valid, give a number from 1 to 65535"),
        ({"threshold": 1.2}, "threshold: 1.2 is not valid, give a number from 0 to 1"),
        ({"range": "full scale"}, "range: full scale is not valid, choose one of"),
        ({"max_frames": 0}, "max_frames: 0 is not valid, give a whole number from 1"),
        ({"max_megapixels": 0.0}, "max_megapixels: 0.0 is not valid, must be above 0"),
    ],
)
def test_options_that_no_page_can_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        DemoConfig(**options)


def test_without_gradio_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "sam_spl.demo.page", raising=False)
    with pytest.raises(
        ConfigError, match=r'^demo: gradio is not installed. Run: pip install "sam-spl\[demo\]"$'
    ):
        execute(["demo", "--weights", "none.pt"])


# The page in a browser.

LINE = "document.querySelector('#line textarea').value"
TITLE = "document.querySelector('#rows .label').innerText"
UPLOAD = "#file input[type=file]"
EXAMPLES = "document.querySelectorAll('#examples button.thumbnail-item')"
_CONNECTIONS: list[tuple[str, str]] = []  # what this process did, and the host


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.bind") and isinstance(arguments[1], tuple):
        _CONNECTIONS.append((event, str(arguments[1][0])))
    elif event == "socket.getaddrinfo":
        _CONNECTIONS.append((event, str(arguments[0])))


@pytest.fixture(scope="module")
def open_page(tmp_path_factory):
    """A page with its predictor and examples, opened in a browser."""
    pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    sys.addaudithook(_hear)
    from sam_spl.demo import page

    predictor, profile = bright(), tmp_path_factory.mktemp("browser") / "profile"
    with page.temporary_folder() as folder:
        examples = write_examples(folder)
        made = page.build(predictor, "`Bright`", examples, Limits(frames=40))
        with page.served(made) as address, chromium(profile) as tab:
            yield predictor, examples, address, tab
    assert not folder.exists()


@pytest.fixture
def opened(open_page):
    """The page as it is when it was just opened."""
    predictor, examples, address, tab = open_page
    tab.call("Page.navigate", url="about:blank")
    tab.errors.clear()
    tab.call("Page.navigate", url=address)
    tab.wait(f"{EXAMPLES}.length == {len(examples)} && document.querySelector('#threshold input')")
    tab.wait(f"document.querySelector('{UPLOAD}')")
    predictor.model.calls = 0
    yield predictor, examples, tab
    assert tab.errors == []


def move(tab: Tab, name: str, value: float) -> None:
    tab.evaluate(
        f"(s => {{s.value = {value}; for (const e of ['input', 'change', 'pointerup'])"
        f" s.dispatchEvent(new Event(e, {{bubbles: true}}));}})"
        f"(document.querySelector('#{name} input[type=range]'))"
    )


def rows(tab: Tab) -> list[list[float | None]]:
    """The table as it is read."""
    cells = "[...row.querySelectorAll('[role=gridcell]')].map(cell => cell.innerText.trim())"
    shown = tab.evaluate(f"[...document.querySelectorAll('#rows [role=row]')].map(row => {cells})")
    return [[float(cell) if cell else None for cell in row] for row in shown if row]


def picture(tab: Tab, name: str) -> np.ndarray:
    """The pixels of a picture on the page, RGB."""
    data = tab.evaluate(
        f"fetch(document.querySelector('#{name} img').src).then(answer => answer.arrayBuffer())"
        ".then(data => btoa([...new Uint8Array(data)].map(byte => String.fromCharCode(byte)).join('')))"
    )
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def assert_shown(tab: Tab, prediction, threshold: float) -> None:
    """Overlay, map and rows are those of a frame at a threshold."""
    expected = view(prediction, threshold)
    assert len(expected.rows) < 10  # the table holds those in sight only
    tab.wait(f"{TITLE} == {json.dumps(expected.title)}")
    end = time.monotonic() + 30
    while (shown := rows(tab)) != expected.rows and time.monotonic() < end:
        time.sleep(0.05)
    assert shown == expected.rows
    np.testing.assert_array_equal(picture(tab, "overlay"), expected.overlay)
    np.testing.assert_array_equal(picture(tab, "prob"), shades(prediction))


def test_neither_page_nor_server_asks_another_host(opened):
    _, _, tab = opened
    tab.evaluate(f"{EXAMPLES}[0].click()")
    tab.wait("document.querySelector('#overlay img')")
    asked = {
        urlsplit(one).hostname for one in tab.requests if not one.startswith(("data:", "about:", "blob:"))
    }
    assert asked == {"127.0.0.1"}
    assert ("socket.bind", "127.0.0.1") in _CONNECTIONS
    assert {host for _, host in _CONNECTIONS} == {"127.0.0.1"}


def test_an_example_is_shown_and_the_threshold_moves_without_the_network(opened):
    predictor, examples, tab = opened
    tab.evaluate(f"{EXAMPLES}[0].click()")
    tab.wait("document.querySelector('#overlay img')")
    tab.wait(f"!{LINE}.includes('is predicted')")  # the line of a frame that came before the last word
    assert tab.evaluate(LINE) == f"{examples[0].file.name}: 256x256 pixels, values to [0, 1]: full"
    prediction = seen(examples[0].file).predictions[0]
    assert_shown(tab, prediction, 0.5)
    assert len(rows(tab)) == 2
    move(tab, "threshold", 0.9)
    assert_shown(tab, prediction, 0.9)
    assert len(rows(tab)) == 1
    assert predictor.model.calls == 1


def test_an_image_of_16_bits_is_uploaded(opened, tmp_path):
    predictor, _, tab = opened
    path = spots(tmp_path / "two <b>spots & 夜.tif")
    tab.upload(UPLOAD, path)
    tab.wait("document.querySelector('#overlay img')")
    prediction = seen(path).predictions[0]
    assert_shown(tab, prediction, 0.5)
    assert [row[4] for row in rows(tab)] == [10, 40, 59]
    move(tab, "threshold", 0.7)
    assert_shown(tab, prediction, 0.7)
    assert [row[4] for row in rows(tab)] == [40, 59]
    assert predictor.model.calls == 1


def test_the_frames_of_a_video_are_chosen_by_a_slider(opened):
    predictor, examples, tab = opened
    move(tab, "threshold", 0.99)
    tab.evaluate(f"{EXAMPLES}[3].click()")
    tab.wait(f"{LINE}.endsWith('; 24 frames')")
    frames = seen(examples[3].file).predictions
    assert_shown(tab, frames[0], 0.99)
    move(tab, "frame", 20)
    assert_shown(tab, frames[19], 0.99)
    assert not np.array_equal(frames[0].prob, frames[19].prob)
    move(tab, "threshold", 0.995)
    assert_shown(tab, frames[19], 0.995)
    assert predictor.model.calls == 24


def test_errors_are_one_line_and_nothing_of_the_file_before_stays(opened, tmp_path):
    _, _, tab = opened
    tab.evaluate(f"{EXAMPLES}[0].click()")
    tab.wait("document.querySelector('#overlay img')")
    tab.evaluate("document.querySelector('button[aria-label=Clear]').click()")
    tab.wait(f"{LINE}.startsWith('Drop an image')")
    for path, reason in (
        (
            png_header(tmp_path / "bomb.png", 60000, 60000),
            "states 60000x60000 pixels, above the limit of 50 million",
        ),
        (tmp_path / "notes.txt", "is not a readable image (damaged"),
    ):
        if not path.exists():
            path.write_text("notes")
        tab.wait(f"document.querySelector('{UPLOAD}')")
        tab.upload(UPLOAD, path)
        tab.wait(f"{LINE}.startsWith('{path.name}: {reason}')")
        assert tab.evaluate("document.querySelectorAll('#overlay img, #prob img').length") == 0
        assert rows(tab) == []
        tab.evaluate("document.querySelector('button[aria-label=Clear]').click()")
        tab.wait(f"{LINE}.startsWith('Drop an image')")


def test_a_port_that_is_taken_is_said(open_page):
    from sam_spl.demo.page import build, served

    predictor, _, address, _ = open_page
    port = urlsplit(address).port
    page = build(predictor, "", [], Limits())
    with (
        pytest.raises(InputError, match=f"^port: {port} is not free. Choose another with --port.$"),
        served(page, port),
    ):
        pass


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    model = build_model("datransnet")
    described = {"mean": [0.4], "std": [0.2], "image_size": None, "resize": "pillow"}
    file = tmp_path_factory.mktemp("weights") / "a.safetensors"
    return save_weights(file, model.state_dict(), {**model.built_from, **described})


def test_the_command_serves_the_page_until_it_is_interrupted(weights, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
    words = [sys.executable, "-m", "sam_spl", "demo", str(weights), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        address, _, rest = process.stdout.readline().partition(" ")
        assert rest == "shows the page on this computer. Ctrl-C ends it.\n"
        assert urlsplit(address).hostname == "127.0.0.1"
        with build_opener(ProxyHandler({})).open(address) as page:
            assert "Small targets in infrared images" in page.read().decode()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "\n", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
