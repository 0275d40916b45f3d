"""An exported file answers as its network does, at any batch and size, and says what a user needs."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sam_spl
from sam_spl.data.normalise import normalise_of
from sam_spl.errors import ConfigError, InputError
from sam_spl.metrics.target import components
from sam_spl.models.registry import build_model
from sam_spl.predict import export as export_module
from sam_spl.predict.engines import ENGINES, ExportedNetwork, load_exported
from sam_spl.predict.export import calibration_inputs, export, image_files
from sam_spl.weights.formats import sha256
from tests.conftest import ROOT, TINY, write_folder

ABOUT = {"model": "contrast", "arguments": {}, "mean": [0.4], "std": [0.2], "resize": "pillow"}


class Contrast(nn.Module):
    """Pixels brighter than their 5x5 surroundings, by a convolution of known weights."""

    in_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 5, padding=2)
        nn.init.constant_(self.conv.weight, -1 / 25)
        self.conv.weight.data[0, 0, 2, 2] += 1
        nn.init.constant_(self.conv.bias, -1.0)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
        return [8 * self.conv(image)[..., :height, :width], image]


class ZeroBorder(Contrast):
    """The same, with zeros around the normalised image."""

    zero_padding = True

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 32, 0, -height % 32))
        return [8 * self.conv(image)[..., :height, :width]]


@pytest.fixture(scope="module")
def installed():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.pt"
    torch.save(Contrast().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def exported(installed, weights):
    """A file that normalises, of a network that sees images at their own size."""
    found = export(Contrast().eval(), {**ABOUT, "image_size": None}, weights, weights.with_name("a.onnx"))
    assert found.difference < 1e-5
    assert not found.unequal
    assert found.detections > 0
    return weights.with_name("a.onnx")


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("size", [(1, 64, 96), (3, 32, 32), (2, 70, 45), (1, 1, 1)])
def test_a_file_answers_for_any_batch_and_size_in_every_engine(exported, engine, size):
    pytest.importorskip(engine)
    network, _ = load_exported(exported, engine)
    image = torch.rand(size[0], 1, *size[1:])
    with torch.inference_mode():
        (found,) = network(image)
        expected = Contrast()((image - 0.4) / 0.2)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_border_that_the_network_normalises_to_zero_goes_around_an_image():
    seen = []

    def answer(image):
        seen.append(image)
        return image[:, :1]

    border, image = (0.25, 0.5, 0.75), torch.rand(2, 3, 33, 64)
    (logits,) = ExportedNetwork(answer, 3, "none", "fp32", border)(image)
    torch.testing.assert_close(logits, image[:, :1], rtol=0, atol=0)
    around = torch.tensor(border)[:, None, None].expand(2, 3, 31, 64)
    torch.testing.assert_close(torch.from_numpy(seen[0]), torch.cat([image, around], 2), rtol=0, atol=0)
    ExportedNetwork(answer, 3, "none", "fp32")(image)
    assert (seen[1][:, :, 33:] == seen[1][:, :, 32:33]).all()


def test_a_file_says_what_it_needs_and_where_it_is_from(exported, weights):
    import onnx

    content = onnx.load(exported)
    assert [entry.key for entry in content.metadata_props] == ["sam_spl"]
    said = json.loads(content.metadata_props[0].value)
    assert (
        said.items()
        >= {
            **ABOUT,
            "image_size": None,
            "threshold": 0.5,
            "in_channels": 1,
            "multiple": 32,
            "precision": "fp32",
            "weights_sha256": sha256(weights),
            "toolkit": f"sam-spl {sam_spl.__version__}",
        }.items()
    )
    assert str(ROOT).encode() not in exported.read_bytes()  # nothing of the machine that wrote it


def test_a_loaded_description_tells_users_of_the_network_not_to_normalise(exported):
    network, description = load_exported(exported)
    assert (description["mean"], description["std"]) == ([0.0], [1.0])
    assert description["normalises"] == {"mean": [0.4], "std": [0.2]}
    assert network.in_channels == 1
    assert not list(network.parameters())


def test_the_threshold_of_calibrated_weights_goes_along(installed, weights, tmp_path):
    about = {**ABOUT, "image_size": 64, "threshold": 0.3}
    export(Contrast().eval(), about, weights, tmp_path / "a.onnx")
    assert load_exported(tmp_path / "a.onnx")[1]["threshold"] == 0.3


def test_a_file_with_other_answers_is_not_left(installed, weights, tmp_path, monkeypatch):
    convert = export_module.convert

    def wrong(model, normalise):
        other = Contrast().eval()
        other.conv.bias.data += 0.01
        return convert(other, normalise)

    monkeypatch.setattr(export_module, "convert", wrong)
    with pytest.raises(InputError, match=r"a\.onnx: not written, because its answers are not the network's"):
        export(Contrast().eval(), {**ABOUT, "image_size": 64}, weights, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


class TwoScales(Contrast):
    """The contrast at half the size too."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        coarse = F.interpolate(self.conv(F.avg_pool2d(image, 2)), scale_factor=2)
        return [super().forward(image)[0] + 0.5 * coarse]


def test_half_precision_and_integers_are_near(installed, weights, tmp_path):
    write_folder(tmp_path / "set")
    files = image_files(tmp_path / "set" / "images", "int8")
    about = {**ABOUT, "image_size": 64}
    for precision, most in (("fp16", 0.02), ("int8", 0.5)):
        path = tmp_path / f"{precision}.onnx"
        found = export(TwoScales().eval(), about, weights, path, precision=precision, calibration=files)
        assert 0 < found.difference < most
        assert not found.unequal
        assert load_exported(path)[1]["precision"] == precision


def test_convolutions_at_the_inputs_size_are_no_integers(installed, weights, tmp_path):
    import onnx

    files = image_files(write_folder(tmp_path / "set") / "images", "int8")
    about, path = {**ABOUT, "image_size": 64}, tmp_path / "a.onnx"
    export(TwoScales().eval(), about, weights, path, precision="int8", calibration=files)
    nodes = onnx.load(path).graph.node
    made_by = {node.output[0]: node.op_type for node in nodes}
    of_input = [made_by[node.input[0]] for node in nodes if node.op_type == "Conv"]
    assert sorted(of_input) == ["DequantizeLinear", "Pad"]  # the halved image, and the whole one


class Sums(Contrast):
    """Beside that, a part whose sums half precision does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Large()

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        logits, image = super().forward(image)
        return [logits + self.part(image)]


class Large(nn.Module):
    keeps_float32 = True

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (1e6 * image.square().sum((1, 2, 3), keepdim=True)).sqrt() / 1e6


def test_what_needs_single_precision_keeps_it_between_its_nodes(installed, weights, tmp_path):
    about = {**ABOUT, "image_size": 64}
    found = export(Sums().eval(), about, weights, tmp_path / "a.onnx", precision="fp16")
    assert 0 < found.difference < 0.02


class Coarse(Contrast):
    """Ends as SAM-SPL does, in a resampling, which half precision leaves in single."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        coarse = F.avg_pool2d(super().forward(image)[0], 2)
        return [F.interpolate(coarse, scale_factor=2, mode="bilinear")]


def test_half_precision_may_end_in_single_precision(installed, weights, tmp_path):
    about = {**ABOUT, "image_size": 64}
    found = export(Coarse().eval(), about, weights, tmp_path / "a.onnx", precision="fp16")
    assert 0 < found.difference < 0.02


def test_calibration_sees_images_as_the_network_does(tmp_path):
    files = image_files(write_folder(tmp_path / "set") / "images", "int8")
    first = cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED) / 255  # (48, 40)
    of_own_size, *rest = calibration_inputs(files, 3, {"image_size": None, "resize": "pillow"})
    assert len(rest) == 5
    expected = np.pad(first, ((0, 16), (0, 24)), mode="edge")
    np.testing.assert_allclose(of_own_size["image"], np.stack([expected] * 3)[None], atol=1e-6)
    squeezed = next(calibration_inputs(files, 1, {"image_size": 64, "resize": "pillow"}))
    assert squeezed["image"].shape == (1, 1, 64, 64)


def test_a_folder_without_images_is_told_of(tmp_path):
    with pytest.raises(InputError, match=r"^int8: no image files in "):
        image_files(tmp_path, "int8")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package_the_extra_is_named(package, weights, tmp_path, monkeypatch):
    for present in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, present, None if present == package else sys)
    with pytest.raises(
        ConfigError, match=rf'^export: {package} is not installed\. Run: pip install "sam-spl'
    ):
        export(Contrast(), {**ABOUT, "image_size": 64}, weights, tmp_path / "a.onnx")


@pytest.mark.parametrize(("engine", "extra"), [("onnxruntime", "export"), ("openvino", "openvino")])
def test_without_an_engine_its_extra_is_named(engine, extra, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(
        ConfigError, match=rf'{engine} is not installed\. Run: pip install "sam-spl\[{extra}\]"$'
    ):
        load_exported(weights, engine)


def test_what_no_engine_can_use_is_refused_in_one_line(exported, weights, tmp_path):
    import onnx

    other = onnx.load(exported)
    other.metadata_props[0].value = "{"
    onnx.save(other, tmp_path / "broken.onnx")
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:-200])
    for arguments, kind, message in (
        ((tmp_path / "none.onnx",), InputError, "no file "),
        ((weights,), InputError, "cannot be read as an ONNX file"),
        ((tmp_path / "cut.onnx",), InputError, "cannot be read as an ONNX file"),
        ((tmp_path / "other.onnx",), InputError, "was not written by sam-spl export"),
        ((tmp_path / "broken.onnx",), InputError, "its description is not JSON"),
        ((exported, "onnx"), ConfigError, "engine: 'onnx' is unknown. Nearest: onnxruntime"),
    ):
        with pytest.raises(kind, match=message) as error:
            load_exported(*arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="precision: bf16 is not valid, onnxruntime computes an exported"):
        load_exported(exported, precision="bf16")


@pytest.mark.parametrize(("network", "area"), [(Contrast, 6), (ZeroBorder, 9)])
def test_the_example_finds_the_targets_of_the_toolkit(network, area, installed, weights, tmp_path):
    images = write_folder(tmp_path / "set") / "images"
    corner = np.full((48, 40), 40, np.uint8)
    corner[-3:, -3:] = 220  # a target that the border decides
    cv2.imwrite(str(images / "corner.png"), corner)
    files = sorted(images.iterdir())
    exported = tmp_path / "a.onnx"
    export(network().eval(), {**ABOUT, "image_size": None}, weights, exported)
    done = subprocess.run(
        [sys.executable, ROOT / "examples/onnx_detect.py", exported, *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    expected = []
    for file in files:
        image = torch.from_numpy(cv2.imread(str(file), cv2.IMREAD_UNCHANGED))[None, None] / 255
        with torch.inference_mode():
            prob = network()((image - 0.4) / 0.2)[0].sigmoid()[0, 0].numpy()
        found = components(prob > 0.5)
        assert file.stem != "corner" or found.areas.tolist() == [area]
        expected += [
            f"{file}: row {y:.1f} column {x:.1f} area {area}"
            for (x, y), area in zip(found.centroids, found.areas, strict=True)
        ]
    assert len(expected) >= 6
    assert sorted(line.rpartition(" peak")[0] for line in done.stdout.splitlines()) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        # Windows of 3 tokens of 16 pixels: none is added at 96 pixels, two at 64, one at 32.
        ("sam_spl_t", {**TINY, "stages": [1, 2, 3], "window_spec": [4, 2, 3]}),
        ("datransnet", {}),
        ("sctransnet", {}),
    ],
)
def test_the_networks_answer_as_exported(installed, tmp_path, monkeypatch, name, arguments):
    torch.manual_seed(0)
    model = build_model(name, **arguments).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)  # some start as zero, and hide what comes before
    torch.save(model.state_dict(), tmp_path / "w.pt")
    about = {**model.built_from, "mean": [0.4], "std": [0.2], "image_size": 96, "resize": "pillow"}
    graph = export_module.convert(model, normalise_of(about, model.in_channels))  # once: it takes longest
    monkeypatch.setattr(export_module, "convert", lambda *_: copy.deepcopy(graph))
    found = export(model, about, tmp_path / "w.pt", tmp_path / "a.onnx")
    assert found.difference < 1e-4
    network, _ = load_exported(tmp_path / "a.onnx")
    for size in ((2, 96, 96), (3, 64, 32), (1, 96, 200)):
        image = torch.rand(size[0], model.in_channels, *size[1:])
        with torch.inference_mode():
            expected = model((image - 0.4) / 0.2)[0]
        assert expected.std() > 1e-3
        torch.testing.assert_close(network(image)[0], expected, rtol=1e-3, atol=1e-3)

    whole = (tmp_path / "a.onnx").stat().st_size
    files = image_files(write_folder(tmp_path / "set") / "images", "int8")
    wide = [part for part in model.modules() if getattr(part, "keeps_float32", False)]
    kept = sum(p.numel() for part in wide for p in part.parameters())
    kept /= sum(p.numel() for p in model.parameters())
    images = [torch.from_numpy(x["image"]) for x in calibration_inputs(files, model.in_channels, about)]
    # Of the logits, which random weights make as large as they please, and with them differences of
    # probabilities.
    for precision, share, most in (("fp16", 0.6 + kept / 2, 0.03), ("int8", 0.8, 0.3)):
        export(model, about, tmp_path / "w.pt", tmp_path / "b.onnx", precision=precision, calibration=files)
        network, _ = load_exported(tmp_path / "b.onnx")
        with torch.inference_mode():
            found = torch.cat([network(image)[0] for image in images])
            expected = torch.cat([model((image - 0.4) / 0.2)[0] for image in images])
        error = (found - expected).square().mean().sqrt() / expected.std()
        print(name, precision, error, (tmp_path / "b.onnx").stat().st_size / whole)
        assert 0 < error < most
        assert (tmp_path / "b.onnx").stat().st_size < share * whole
