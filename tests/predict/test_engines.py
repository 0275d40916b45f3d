"""Exported files in place of weights: testing and prediction give the same, and say what computed it."""

from __future__ import annotations

import csv
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sam_spl
from sam_spl.cli.main import execute
from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.reading import read_image
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.predict.config import ENGINES as NAMES
from sam_spl.predict.engines import ENGINES, load_exported
from sam_spl.predict.export import export
from sam_spl.predict.predictor import load_network, open_network
from sam_spl.results.compare import table
from sam_spl.runtime import World
from sam_spl.weights.formats import save_weights
from tests.conftest import test as run_test
from tests.conftest import write_folder

CONTRAST = """
import torch
from torch import nn

class Contrast(nn.Module):
    in_channels = 3

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 5, padding=2)
        nn.init.constant_(self.conv.weight, -1 / 75)
        self.conv.weight.data[0, :, 2, 2] += 1 / 3
        nn.init.constant_(self.conv.bias, -0.3)

    def forward(self, image):
        return [8 * self.conv(image)]
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder without lists: 12 images, some of which are training images by the hash of their names."""
    return write_folder(tmp_path_factory.mktemp("data") / "own", 12, (64, 64))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, images) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "contrast.py").write_text(CONTRAST)
    model = build_model(f"{folder}/contrast.py:Contrast")
    lists = open_dataset(DatasetConfig.named("custom", data_path=str(images))).training_lists
    about = {"mean": [0.4, 0.5, 0.45], "std": [0.2, 0.25, 0.3], "image_size": 96, "resize": "pillow"}
    about |= {"threshold": 0.4, "trained_on": {"dataset": "custom", "sets": lists}}
    return save_weights(folder / "w.safetensors", model.state_dict(), {**model.built_from, **about})


@pytest.fixture(scope="module")
def network(weights) -> str:
    return f"{weights.parent}/contrast.py:Contrast"


@pytest.fixture(scope="module")
def exported(weights, network) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    model, about = load_network(weights, network=network)
    export(model, about, weights, weights.with_name("w.onnx"))
    return weights.with_name("w.onnx")


def _report(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def _test(images: Path, *words: object) -> None:
    shared = ["--dataset", "custom", "--data_path", images, "--device", "cpu", "report=0", "overlays=0"]
    run_test([*shared, "--protocols", "native", "sam_spl", "datransnet", *words])


def test_the_names_of_the_command_line_are_the_engines():
    assert list(NAMES) == ["auto", "torch", *ENGINES]


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_exported_file_is_tested_as_its_weights(weights, network, exported, images, engine, capsys):
    pytest.importorskip(engine)
    _test(images, "--weights", weights, "--model", network)
    (theirs,) = weights.parent.glob("test-w-own-*")
    capsys.readouterr()
    _test(images, "--weights", exported, "--engine", engine)
    said = capsys.readouterr().out
    assert f", {engine} fp32, network input 96" in said
    assert "one image in five is tested, by the hash of its name: these weights were trained on" in said

    (folder,) = weights.parent.glob(f"test-w.onnx-{engine}-own-test-96-*")
    expected, found = _report(theirs), _report(folder)
    assert 0 < found["scores"]["targets"] < 12
    assert found["scores"]["iou"] > 0.1
    assert found["dataset"] == expected["dataset"]
    assert found["images"] == expected["images"]
    for name in ("native", "sam_spl", "datransnet"):
        assert found["protocols"][name]["scores"] == expected["protocols"][name]["scores"]
    assert (found["precision"], found["device"]) == (f"{engine} fp32", "cpu")
    assert found["weights"]["normalises"]["std"] == [0.2, 0.25, 0.3]
    rows = table([expected, found])  # a row of its own under each protocol
    assert [rows.count(name) for name in ("float32", f"{engine} fp32")] == [3, 3]


def test_images_that_the_weights_were_trained_on_are_told_of(exported, images, tmp_path, capsys):
    _test(images, "--weights", exported, "split=all", f"output_dir={tmp_path / 'out'}")
    assert "these weights were trained on images that are among the tested ones" in capsys.readouterr().out


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_predictor_of_an_exported_file_predicts_as_of_its_weights(
    weights, network, exported, images, engine
):
    pytest.importorskip(engine)
    expected = sam_spl.load(weights, "cpu", "fp32", network=network)
    found = sam_spl.load(exported, "cpu", "fp32", engine=engine)
    assert found.threshold == expected.threshold == 0.4
    for file in sorted((images / "images").iterdir()):
        image = np.dstack([read_image(file)] * 3)
        image[..., 1] //= 2
        one, other = found(image), expected(image)
        np.testing.assert_allclose(one.prob, other.prob, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(one.mask, other.mask)
        assert one.mask.any()


def test_predicted_frames_are_those_of_the_weights_and_not_of_two_engines(
    weights, network, exported, images, tmp_path, capsys
):
    def rows(name: str, *words: str) -> list[list[str]]:
        flags = ["--save", "mask", "--precision", "fp32", "--device", "cpu"]
        execute(["predict", str(images / "images"), "-o", str(tmp_path / name), *words, *flags])
        with (tmp_path / name / "detections.csv").open(encoding="utf-8", newline="") as stream:
            return [
                [row[key] for key in ("frame", "row", "column", "area")] for row in csv.DictReader(stream)
            ]

    expected = rows("torch", "--weights", str(weights), "--model", network)
    assert len(expected) >= 12
    assert rows("onnx", "--weights", str(exported), "--engine", "onnxruntime") == expected
    assert "(cpu, onnxruntime fp32)" in capsys.readouterr().out
    pytest.importorskip("openvino")
    with pytest.raises(InputError, match=r"precision onnxruntime fp32 \(now openvino fp32\)"):
        rows("onnx", "--weights", str(exported), "--engine", "openvino")


def test_openvino_computes_in_bfloat16_where_that_is_asked_for(exported):
    pytest.importorskip("openvino")
    image = torch.rand(2, 3, 64, 64)
    exact = load_exported(exported, "openvino")[0](image)[0]
    network, _ = load_exported(exported, "openvino", precision="bf16")
    assert network.name == "openvino fp32 in bf16"
    torch.testing.assert_close(network(image)[0], exact, rtol=0.05, atol=0.1)
    chosen = World(0, 1, torch.device("cpu")).at("auto").precision_name  # of this processor
    name = load_exported(exported, "openvino", precision="auto")[0].name
    assert name == {"bfloat16": "openvino fp32 in bf16", "float32": "openvino fp32"}[chosen]


def test_the_first_engine_that_is_installed_is_taken(exported, monkeypatch):
    assert load_exported(exported, precision="auto")[0].name == "onnxruntime fp32"
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert load_exported(exported)[0].name == "openvino fp32"
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r'^engine: onnxruntime is not installed\. .* "sam-spl\[export\]"$'):
        load_exported(exported)


def test_an_exported_file_computes_on_the_cpu_and_says_so_elsewhere(exported, caplog):
    world = World(0, 1, torch.device("cuda", 0))
    with caplog.at_level(logging.WARNING, "sam_spl"):
        _, _, chosen = open_network(exported, world, precision="auto")
    assert (chosen.device.type, chosen.precision) == ("cpu", None)
    assert f"{exported}: exported files compute on the CPU, not on cuda:0" in caplog.text


def test_an_engine_that_is_not_for_a_file_is_refused_with_the_remedy(weights, network, exported, images):
    words = ["--weights", weights, "--model", network]
    with pytest.raises(ConfigError) as error:
        _test(images, *words, "--engine", "openvino")
    assert f"Run: sam-spl export {weights} --output {exported}, and give --weights {exported}" in str(
        error.value
    )
    with pytest.raises(ConfigError, match=r"engine: onnxruntime runs exported files, and .* is a weights"):
        sam_spl.load(weights, engine="onnxruntime", network=network)
    with pytest.raises(ConfigError, match=r"engine: torch runs weights files, and .* is an exported one"):
        _test(images, "--weights", exported, "--engine", "torch")
    with pytest.raises(ConfigError, match=r"^engine: onnx is not valid, choose one of auto, torch"):
        _test(images, "--weights", exported, "--engine", "onnx")
    with pytest.raises(ConfigError, match=r"^compile: the engine of an exported file compiles it"):
        _test(images, "--weights", exported, "--compile", "true")
    with pytest.raises(ConfigError, match=r"^precision: fp16 is not valid, onnxruntime computes"):
        sam_spl.load(exported, "cpu", "fp16", engine="onnxruntime")


@pytest.mark.parametrize("command", [["export", "-o", "b.onnx"], ["profile"], ["convert", "b.pt"]])
def test_what_needs_weights_asks_for_them(exported, command):
    with pytest.raises(InputError, match=r"w\.onnx: an exported file is for test and predict alone"):
        execute([command[0], str(exported), *command[1:]])
