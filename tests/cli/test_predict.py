"""``sam-spl predict`` as a user runs it, with a network that finds what is brighter than 0.7."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

import sam_spl
from sam_spl.cli.grammar import configure, parse
from sam_spl.cli.main import command as command_named
from sam_spl.cli.main import execute
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.predict import job
from sam_spl.weights.formats import read_weights, save_weights
from tests.conftest import ROOT
from tests.engine.test_distributed import TORCHRUN
from tests.predict.test_frames import png_header, video

BRIGHT = """
import os, time, torch

class Bright(torch.nn.Module):
    in_channels = 1

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(40.0))

    def forward(self, image):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return [self.scale * (image - 0.7)]
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> list[str]:
    """The flags that name the network and its weights."""
    folder = tmp_path_factory.mktemp("bright")
    (folder / "bright.py").write_text(BRIGHT)
    model = build_model(f"{folder}/bright.py:Bright")
    described = {"mean": [0.0], "std": [1.0], "image_size": None, "resize": "pillow", "threshold": 0.4}
    file = save_weights(folder / "w.safetensors", model.state_dict(), {**model.built_from, **described})
    return ["--weights", str(file), "--model", f"{folder}/bright.py:Bright", "--device=cpu", "precision=fp32"]


def image(k: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """Noise with a target of 9 pixels at row 11 + k, column 21 + 2 k."""
    pixels = np.random.default_rng(k).integers(20, 60, size, dtype=np.uint8)
    pixels[10 + k : 13 + k, 20 + 2 * k : 23 + 2 * k] = 240
    return pixels


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Seven images in two folders, one of 16 bits, a stack and a video."""
    folder = tmp_path / "in"
    (folder / "b [1]").mkdir(parents=True)
    for k in range(5):
        cv2.imwrite(str(folder / f"f{k + 8}.png"), image(k))
    cv2.imwrite(str(folder / "b [1]" / "ночь 夜.png"), image(5))
    cv2.imwrite(str(folder / "deep.tif"), image(0).astype(np.uint16) * 20 + 7000)
    pages = [PIL.Image.fromarray(image(k)) for k in range(3)]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    video(folder / "v.mp4", 10)
    return folder


def predict(network: list[str], *words: object) -> None:
    execute(["predict", *map(str, words), *network])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "detections.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def results(folder: Path) -> dict[str, bytes]:
    """Everything that is written but the record of how it was."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(("parts", "pred"))}


def lines(folder: Path) -> list[dict]:
    parts = sorted((folder / "parts").glob("*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines() if line]


def test_images_stacks_and_videos_become_masks_overlays_and_tables(network, frames, tmp_path, capsys):
    out = tmp_path / "out"
    predict(network, frames, "-o", out, "--save", "mask", "overlay", "prob", "npy", "--track")
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "20 frames, 20 detections, 0 skipped"
    assert "20 predicted now: " in said.out
    assert "values to [0, 1]: full (19), minmax (1)" in said.out
    assert f"masks, overlays, prob, detections.csv, detections.json are in {out}" in said.out

    found = {row["frame"]: row for row in rows(out)}
    order = [*(f"f{k}" for k in range(8, 13)), *(f"stack/{k:06d}" for k in range(3))]
    assert list(found) == ["deep", *order, *(f"v/{k:06d}" for k in range(10)), "b [1]/ночь 夜"]
    for k, name in enumerate(order[:5]):
        row = found[name]
        assert [row[key] for key in ("row", "column", "area", "width", "track")] == [
            f"{11.0 + k}", f"{21.0 + 2 * k}", "9", "3", "1",
        ]  # fmt: skip
    assert {row["track"] for row in found.values()} == {"1"}  # of its sequence
    predictor = sam_spl.load(network[1], "cpu", "fp32", network=network[3])
    for name in ("f8", "b [1]/ночь 夜"):
        expected = predictor(frames / f"{name}.png")
        assert expected.threshold == 0.4  # the file's own
        mask = cv2.imread(str(out / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, 255 * expected.mask)
        np.testing.assert_array_equal(np.load(out / "prob" / f"{name}.npy"), expected.prob)
        assert (out / "overlays" / f"{name}.png").exists()
        assert found[name]["scr"] == str(round(expected.detections[0].scr, 5))
    capture = cv2.VideoCapture(str(out / "overlays/v.mp4"))
    assert [capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)] == [12.5, 10]
    coco = json.loads((out / "detections.json").read_text())
    assert [one["frame"] for one in coco["images"]] == list(found)
    assert all(one["image_id"] == one["id"] and one["track_id"] == 1 for one in coco["annotations"])


def test_a_second_run_predicts_what_is_new_and_nothing_else(network, frames, tmp_path, capsys):
    out = frames / "out"  # inside the input, and no input
    predict(network, frames, "-o", out, "--save", "mask")
    first, before = results(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert "\n20 predicted now: " in capsys.readouterr().out
    predict(network, frames, "-o", out, "--save", "mask")
    assert "predicted now" not in capsys.readouterr().out
    assert results(out) == first
    cv2.imwrite(str(frames / "f9.jpg"), image(1))
    cv2.imwrite(str(frames / "f10.png"), image(9))
    predict(network, frames, "-o", out, "--save", "mask")
    assert "\n2 predicted now: " in capsys.readouterr().out
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed == {"f10.png"}
    found = {row["frame"]: row["row"] for row in rows(out)}
    assert (found["f10"], found["f9.jpg"], found["f9"], len(found)) == ("20.0", "12.0", "12.0", 21)


def test_two_processes_write_what_one_writes(network, frames, tmp_path, command):
    for name, start in (("one", [sys.executable]), ("two", [*TORCHRUN, "--nproc_per_node=2"])):
        done = command(*start, "-m", "sam_spl", "predict", frames, "-o", tmp_path / name, *network)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("20 frames, 20 detections, 0 skipped") == 1
    assert results(tmp_path / "one") == results(tmp_path / "two")
    parts = [path.read_text().count('"frame"') for path in sorted((tmp_path / "two/parts").iterdir())]
    assert len(parts) == 2 and min(parts) > 0 and sum(parts) == 20


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_a_run_that_is_stopped_goes_on_where_it_was(how, network, tmp_path, capsys):
    """In the middle of a video: what comes out is what an uninterrupted run gives, overlay and tracks too.

    One that is ended, or interrupted, writes the tables of what it has done.
    """
    video(tmp_path / "v.avi", 30)
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict(network, tmp_path / "v.avi", "-o", whole, "--track")
    words = ["predict", tmp_path / "v.avi", "-o", out, "--track", *network]
    slow = subprocess.Popen(
        [sys.executable, "-m", "sam_spl", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLOW": "0.3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    part, limit = out / "parts/0.jsonl", time.monotonic() + 600
    while not (part.exists() and part.read_text().count("\n") >= 5):
        assert slow.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    slow.send_signal(how)
    said = slow.communicate()[1]
    before = len(lines(out))
    assert 5 <= before < 30
    assert not (out / "overlays/v.mp4").exists()
    if how == signal.SIGTERM:
        assert slow.returncode == 130
        told = f"interrupted: the tables hold the {before} frames that are done, the same command goes on"
        assert told in said
        assert rows(out) == rows(whole)[:before]
        assert not list((out / "overlays").iterdir())  # half a video is none
    else:
        assert not (out / "detections.csv").exists()
    capsys.readouterr()
    predict(network, tmp_path / "v.avi", "-o", out, "--track")
    assert capsys.readouterr().out.startswith(f"{before} frames predicted before, going on\n")
    assert [line["index"] for line in lines(out) if "index" in line] == list(range(30))  # none twice
    assert [line["run"] for line in lines(out)].count(1) == before
    assert results(out) == results(whole)


def test_memory_does_not_grow_with_the_length_of_a_video(network, tmp_path):
    import tracemalloc

    peaks = []
    for count in (40, 40, 400):  # the first imports
        video(tmp_path / "v.avi", count)
        tracemalloc.start()
        predict(network, tmp_path / "v.avi", "-o", tmp_path / "out", "--overwrite", "--save", "overlay")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 100_000  # 360 frames more are 2.2 MB as pixels


def test_what_cannot_be_read_is_named_counted_and_skipped(network, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "good.png"), image(0))
    (folder / "empty.png").touch()
    (folder / "bad.jpg").write_bytes(b"nothing of an image")
    png_header(folder / "bomb.png", 60000, 60000)
    os.mkfifo(folder / "pipe.png")
    pages = [PIL.Image.fromarray(image(k)) for k in range(3)]
    pages[0].save(folder / "moving.gif", save_all=True, append_images=pages[1:])
    path = video(folder / "cut.avi", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    predict(network, folder, "-o", tmp_path / "out")
    said = capsys.readouterr()
    for name, why in {
        "empty.png": "is empty",
        "bad.jpg": "is not a readable image (damaged, or of an unknown kind)",
        "bomb.png": "states 60000x60000 pixels, above the limit of 150 million",
        "pipe.png": "is not a regular file",
        "moving.gif": "is animated (3 frames)",
        "cut.avi": "ends after ",
    }.items():
        (line,) = (line for line in said.err.splitlines() if f"skipped: {folder / name}: " in line)
        assert why in line
    assert "frames are kept" in said.err
    frames, _, skipped = said.out.splitlines()[0].split(", ")
    assert skipped == "6 skipped"
    assert 20 < int(frames.split()[0]) < 41
    assert len(json.loads((tmp_path / "out/predict.json").read_text())["skipped"]) == 6


def test_names_with_line_feeds_and_escapes_are_said_in_one_line(network, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/good\n=1.png"), image(0))
    (tmp_path / "in/new\nline \x1b[31m.png").touch()
    predict(network, tmp_path / "in", "-o", tmp_path / "out")
    assert "in/new\\nline \\x1b[31m.png: is empty\n" in capsys.readouterr().err
    assert (tmp_path / "out/masks/good_=1.png").exists()
    with (tmp_path / "out/detections.csv").open() as stream:
        assert len(stream.readlines()) == 2
    with pytest.raises(InputError, match=r"^output: .*\\udcff is not UTF-8"):
        predict(network, tmp_path / "in", "-o", f"{tmp_path}/\udcff")


def test_frames_that_the_promise_of_the_threshold_is_not_for_are_said(network, tmp_path, capsys):
    weights = read_weights(network[1])
    settings = {"range": "full", "image_size": None, "tile": None, "tta": False, "precision": "float32"}
    described = weights.description | {"calibration": {"threshold": 0.4, "settings": settings}}
    file = save_weights(tmp_path / "c.safetensors", weights.state, described)
    asked = ["-o", tmp_path / "out", "--overwrite", "--save", "mask"]
    network = ["--weights", str(file), *network[2:]]
    cv2.imwrite(str(tmp_path / "a.png"), image(0))
    cv2.imwrite(str(tmp_path / "deep.png"), image(0).astype(np.uint16) * 20 + 7000)

    def said(*words: object) -> str:
        predict(network, *words, *asked)
        return capsys.readouterr().out

    assert "calibrated with other settings" not in said(tmp_path / "a.png")
    assert "note: " not in said(tmp_path / "deep.png", "--range", "full")
    assert "settings: range minmax (there full). Its promise" in said(tmp_path / "deep.png")
    assert "settings: tta true (there false), tile 64 (there none)." in " ".join(
        said(tmp_path / "a.png", "--tta", "--tile", "64").split()
    )
    assert "note: " not in said(tmp_path / "a.png", "--tta", "--threshold", "0.3")  # no promise at all


def test_nothing_done_is_an_error_and_leaves_nothing(network, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/empty.png").touch()
    with pytest.raises(InputError, match="no frame could be predicted: 1 skipped") as error:
        predict(network, tmp_path / "in", "-o", tmp_path / "out")
    assert error.value.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_names_on_the_command_line_are_taken_as_they_are(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a, b.png", "[1].png", "~x.png", "c=d.png"):
        cv2.imwrite(name, image(0))
        predict(network, f"./{name}" if "=" in name else name, "-o", "out")
    assert {row["frame"] for row in rows(tmp_path / "out")} == {"a, b", "[1]", "~x", "c=d"}
    masks = sorted(path.name for path in (tmp_path / "out/masks").iterdir())
    assert masks == ["[1].png", "a, b.png", "c=d.png", "~x.png"]


def test_flags_have_both_spellings():
    words = [
        "a.png",
        "b",
        "--weights=w",
        "-o",
        "out",
        "--min-area",
        "3",
        "--batch-size",
        "2",
        "--top",
        "5",
        "--tta",
    ]
    config = configure(parse(words, command_named("predict")), command_named("predict"))
    assert (config.input, config.output) == (["a.png", "b"], "out")
    assert (config.min_area, config.batch_size, config.top, config.tta) == (3, 2, 5, True)
    words = ["a.png", "weights=w", "output=out", "min_area=3", "save=[mask]", "tile=512", "image_size=none"]
    config = configure(parse(words, command_named("predict")), command_named("predict"))
    assert (config.input, config.min_area, config.save, config.tile) == (["a.png"], 3, ["mask"], "512")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("range=wide", "range: wide is not valid, choose one of auto, full, minmax, percentile"),
        ("save=[mask,jpg]", "save: jpg is not valid, choose one of mask, overlay, prob, npy"),
        ("threshold=1.5", "threshold: 1.5 is not valid"),
        ("min_area=0", "min_area: 0 is not valid"),
        ("top=0", "top: 0 is not valid"),
        ("tile=8", "tile: 8 is not valid, give auto, none or a number of pixels from 32"),
        ("image_size=big", "image_size: big is not valid"),
        ("max_megapixels=0", "max_megapixels: 0.0 is not valid"),
        ("precision=int8", "precision: int8 is not valid"),
    ],
)
def test_values_that_cannot_be_are_refused(word, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        configure(
            parse(["a.png", "weights=w", "output=o", word], command_named("predict")),
            command_named("predict"),
        )


def test_the_network_is_compiled_for_the_size_that_it_sees(network, frames, tmp_path, monkeypatch, capsys):
    """``compiled`` itself: tests/predict/test_compiled.py."""
    asked = []

    def spy(model, shape, world, *, wanted, images):
        asked.append((shape, wanted, images))
        return model

    monkeypatch.setattr(job, "compiled", spy)
    predict(network, frames, "--output", tmp_path / "a", "--image-size", "64")
    predict(network, frames, "--output", tmp_path / "b")  # each frame at its own size
    stated = cv2.VideoCapture(str(frames / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)
    assert asked == [((1, 1, 64, 64), "auto", 8 + stated)]  # six images, a stack, "deep", and the video
    with pytest.raises(ConfigError, match=r"^compile: frames of many sizes"):
        predict(network, frames, "--output", tmp_path / "c", "--compile", "true")
