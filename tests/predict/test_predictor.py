"""A predictor gives one answer to one picture in any form: the one that testing scores."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

import sam_spl
from sam_spl.data.normalise import Normalise
from sam_spl.data.reading import as_image, read_image
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.predict.predictor import Predictor
from sam_spl.runtime import World
from sam_spl.weights.formats import save_weights
from tests.conftest import GOLDEN, TINY, fill, golden_state, test, write_folder, write_palette_png

GREY = np.random.default_rng(5).integers(0, 256, (40, 56), dtype=np.uint8)
COLOUR = np.random.default_rng(6).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def _file(folder: Path, name: str, image_size: int | None = None) -> Path:
    """Weights of a small network of one or three channels."""
    torch.manual_seed(1)
    model = build_model(name, **(TINY if name == "sam_spl_t" else {}))
    channels = model.in_channels
    described = {
        "mean": [0.45, 0.4, 0.35][:channels],
        "std": [0.2, 0.25, 0.3][:channels],
        "image_size": image_size,
    }
    return save_weights(
        folder / f"{name}-{image_size}.safetensors",
        model.state_dict(),
        {**model.built_from, **described, "resize": "pillow"},
    )


@pytest.fixture(scope="module", params=["sam_spl_t", "datransnet"])
def predict(request, tmp_path_factory):
    """Predictors of both networks, at the image's own size."""
    return sam_spl.load(_file(tmp_path_factory.mktemp("w"), request.param), device="cpu", precision="fp32")


def _written(path: Path, image: np.ndarray) -> Path:
    cv2.imwrite(str(path), image if image.ndim == 2 else image[..., ::-1])
    return path


def _forms(image: np.ndarray, folder: Path) -> dict[str, object]:
    """One picture in every form that is taken."""
    alpha = np.full((*image.shape[:2], 1), 9, image.dtype)
    rgb = np.dstack([image] * 3) if image.ndim == 2 else image
    forms = {
        "uint16": image.astype(np.uint16) * 257,
        "uint16, other byte order": (image.astype(np.uint16) * 257).astype(">u2"),
        "float32": (image / 255).astype(np.float32),
        "float64": image / 255,
        "RGB": rgb,
        "RGBA": np.concatenate([rgb, alpha], -1),
        "RGBA, floats": np.concatenate([rgb, alpha], -1) / 255.0,
        "PIL RGB": PIL.Image.fromarray(rgb),
        "PIL RGBA": PIL.Image.fromarray(np.concatenate([rgb, alpha], -1)),
        "path": _written(folder / "a.png", image),
        "path as text": str(_written(folder / "b.bmp", image)),
        "path, 16 bits": _written(folder / "c.png", image.astype(np.uint16) * 257),
        "path, alpha": _written(folder / "d.png", rgb),
        "a view": np.repeat(image, 2, axis=1)[:, ::2],
    }
    cv2.imwrite(str(folder / "d.png"), np.concatenate([rgb[..., ::-1], alpha], -1))
    if image.ndim == 2:
        palette = np.stack([np.arange(255, -1, -1, dtype=np.uint8)] * 3, -1)
        write_palette_png(folder / "e.png", 255 - image, palette)
        of_palette = PIL.Image.fromarray(255 - image)
        of_palette.putpalette(palette.tobytes())
        forms |= {
            "(H, W, 1)": image[..., None],
            "PIL L": PIL.Image.fromarray(image),
            "PIL LA": PIL.Image.merge("LA", [PIL.Image.fromarray(of) for of in (image, alpha[..., 0])]),
            "PIL P": of_palette,
            "PIL I;16": PIL.Image.fromarray(image.astype(np.uint16) * 257),
            "PIL I": PIL.Image.fromarray(image.astype(np.int32) * 257),
            "PIL F": PIL.Image.fromarray((image / 255).astype(np.float32)),
            "PIL P of a file": PIL.Image.open(folder / "e.png"),
            "palette file": folder / "e.png",
        }
    return forms


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_every_form_of_a_picture_has_the_same_probabilities(predict, image, tmp_path):
    expected = predict(image).prob
    assert (expected.dtype, expected.shape) == (np.float32, (40, 56))
    assert expected.std() > 1e-4  # it says something at all
    for name, form in _forms(image, tmp_path).items():
        np.testing.assert_allclose(predict(form).prob, expected, rtol=0, atol=2e-5, err_msg=name)
        if "float" not in name and name != "PIL F" and "16" not in name and name != "PIL I":
            np.testing.assert_array_equal(predict(form).prob, expected, err_msg=name)


def test_the_networks_input_is_its_formula():
    """The scale of floats is 1: they were divided by 255."""
    for image, channels in ((GREY, 1), (GREY, 3), (COLOUR, 1), (COLOUR, 3)):
        mean, std = ((0.45, 0.4, 0.35), (0.2, 0.25, 0.3)) if channels == 3 else ((0.45,), (0.2,))
        x = np.dstack([image] * 3) / 255 if image.ndim == 2 else image / 255
        x = x if channels == 3 else x.mean(-1, keepdims=True)
        expected = torch.from_numpy((x - mean) / std).permute(2, 0, 1).float()
        normalise = Normalise(mean, std, channels)
        alpha = np.dstack([image, image, image, np.full_like(image, 9)]) if image.ndim == 2 else None
        for form in (image, image.astype(np.uint16) * 257, image / 255, alpha):
            if form is not None:
                torch.testing.assert_close(normalise(form), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA"])
def test_pil_images_of_grey_rgb_and_palettes_are_taken(mode):
    source = PIL.Image.fromarray(COLOUR)
    image = (source.convert("P") if mode == "PA" else source).convert(mode)
    shown = np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    np.testing.assert_array_equal(as_image(image), shown)


@pytest.mark.parametrize("mode", ["RGBX", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa"])
def test_pil_images_of_other_colour_spaces_are_refused_with_the_remedy(mode):
    image, known = PIL.Image.new(mode, (8, 6)), "LA" if mode == "La" else "RGB"
    with pytest.raises(InputError, match=rf'^image: PIL mode {mode} .* Give image\.convert\("{known}"\)\.$'):
        as_image(image)
    assert as_image(image.convert(known)).shape[:2] == (6, 8)


def test_images_of_one_bit_and_sixteen_are_as_their_files_read(tmp_path):
    bits, deep = GREY > 127, GREY.astype(np.uint16) * 200
    for name, image in (("1", PIL.Image.fromarray(bits)), ("I;16", PIL.Image.fromarray(deep))):
        assert image.mode == name
        image.save(tmp_path / "x.png")
        np.testing.assert_array_equal(as_image(image), read_image(tmp_path / "x.png"))
        np.testing.assert_array_equal(
            as_image(PIL.Image.open(tmp_path / "x.png")), read_image(tmp_path / "x.png")
        )
    np.testing.assert_array_equal(as_image(PIL.Image.fromarray(bits)), 255 * bits)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GREY.astype(np.float32), r"floats from 0 to 255 are not in \[0, 1\]\. Divide them"),
        (GREY / 255 - 0.1, r"floats from -0\.1 to 0\.9 are not in"),
        (np.full((9, 9), np.nan), "floats from nan to nan"),
        (np.where(GREY > 200, np.inf, 0.5), "to inf are not in"),
        (GREY.astype(np.int64), "int64 have no known scale. Give uint8"),
        (GREY.astype(np.int16), "int16"),
        (GREY.astype(np.uint32), "uint32"),
        (GREY > 127, "values of type bool have no known scale"),
        (GREY.astype(complex), "complex128"),
        (GREY[0], r"shape \(56,\) is not an image"),
        (GREY[None], r"shape \(1, 40, 56\) is not an image"),
        (np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\)"),
        (np.zeros((0, 8), np.uint8), r"shape \(0, 8\)"),
        (None, r"shape \(\) is not an image"),
        (PIL.Image.fromarray(GREY.astype(np.int32) - 1), "mode I with values from -1 to 254"),
        ("nowhere.png", "cannot read nowhere.png"),
        (Path(__file__), "is not a readable image"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(predict, image, message):
    with pytest.raises(InputError, match=message) as error:
        predict(image)
    assert "\n" not in str(error.value)
    if isinstance(image, np.ndarray) and image.ndim == 2 and image.size:
        with pytest.raises(InputError, match=message):
            Normalise()(image)


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_network_for_squeezed_images_gives_one_answer_as_well(image, tmp_path):
    """Up to the grey level that 8 bits round a resized image to."""
    predict = sam_spl.load(_file(tmp_path, "sam_spl_t", 64), device="cpu", precision="fp32")
    expected = predict(image).prob
    for name, form in _forms(image, tmp_path).items():
        np.testing.assert_allclose(predict(form).prob, expected, rtol=0, atol=0.02, err_msg=name)


def test_a_frame_that_is_shrunk_is_told_of_once_for_each_size(tmp_path, caplog):
    file = _file(tmp_path, "datransnet", 32)
    predict = sam_spl.load(file, device="cpu", precision="fp32", tile=None)
    frames = {
        size: np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8) for size in ((96, 64), (32, 20))
    }
    wide = np.zeros((32, 64), np.uint8)
    for image in (*frames.values(), *frames.values(), wide):
        assert predict(image).prob.shape == image.shape
    assert caplog.messages == [
        "64x96 is shrunk to 32x32: a 3x3 target becomes 1.5 x 1.0 pixels. Load with tile=32 for tiles "
        "at the frame's own scale, or with image_size=None for the frame's own size",
        "64x32 is shrunk to 32x32: a 3x3 target becomes 1.5 x 3.0 pixels. Load with tile=32 for tiles "
        "at the frame's own scale, or with image_size=None for the frame's own size",
    ]
    caplog.clear()
    own = sam_spl.load(file, device="cpu", precision="fp32", image_size=None)
    at_its_size = sam_spl.load(file, device="cpu", precision="fp32", image_size=96)
    frame = np.ascontiguousarray(np.resize(frames[96, 64], (96, 96)))
    np.testing.assert_array_equal(own(frame).prob, at_its_size(frame).prob)
    assert np.abs(own(frame).prob - predict(frame).prob).max() > 1e-4
    assert len(caplog.messages) == 1  # of predict alone


def test_the_numbers_of_the_docstring(tmp_path, caplog):
    predict = sam_spl.load(_file(tmp_path, "datransnet", 256), device="cpu", precision="fp32")
    predict._tell_of_shrinking(1080, 1920)
    assert caplog.messages[0].startswith(
        "1920x1080 is shrunk to 256x256: a 3x3 target becomes 0.4 x 0.7 pixels."
    )


@pytest.mark.parametrize("size", [0, -5, 64.5, "x", True, np.True_, np.int64(0)])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(ConfigError, match=r"image_size: .* is not valid"):
        sam_spl.load(_file(tmp_path, "datransnet"), image_size=size)


def test_a_size_may_be_numpys(tmp_path):
    size = sam_spl.load(_file(tmp_path, "datransnet"), device="cpu", image_size=np.int64(64)).image_size
    assert (size, type(size)) == (64, int)


@pytest.mark.parametrize("words", [["weights="], ["weights=[]"], ["--weights", ""], ["--weights", "[]"]])
def test_testing_without_the_name_of_a_file_says_that_one_is_needed(words):
    with pytest.raises(ConfigError, match=r"^weights: a value is required, as --weights VALUE"):
        test(["dataset=synthetic", "device=cpu", *words])


def _published(folder: Path, name: str) -> Path:
    if name == "sam_spl":
        torch.save(golden_state("sam_spl_t"), folder / "p.pth")
        return folder / "p.pth"
    manifest = json.loads((GOLDEN / "datransnet_manifest.json").read_text())
    state = {
        n: torch.from_numpy(np.asarray(fill.parameter(n, tuple(shape)))) for n, (shape, _) in manifest.items()
    }
    torch.save({"state_dict": {f"model.{n}": value for n, value in state.items()}}, folder / "p.pth.tar")
    return folder / "p.pth.tar"


@pytest.mark.parametrize(("name", "train_size"), [("sam_spl", None), ("datransnet", 512)])
def test_published_weights_give_the_same_by_python_and_by_testing(tmp_path, name, train_size, caplog):
    """Of the set's normalisation and the train size given, neither of which the file states."""
    file = _published(tmp_path, name)
    root = write_folder(tmp_path / "NUDT-SIRST", size=(96, 80), lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    flags = ["--dataset", "NUDT-SIRST", "--data_path", str(root), "--weights", str(file), "--device", "cpu"]
    words = ["save_predictions=npy", "bootstrap=0", "report=0", f"output_dir={tmp_path / 'out'}"]
    test([*flags, *words, *([f"train_size={train_size}"] if train_size else [])])
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    stated = {key: result["weights"][key] for key in ("mean", "std", "image_size")}
    if name == "sam_spl":
        assert stated == {"mean": [0.422781] * 3, "std": [0.129501] * 3, "image_size": 256}
        (said,) = (line for line in caplog.messages if "does not state" in line)
        assert "taken as for NUDT-SIRST: mean [0.422781, 0.422781, 0.422781]" in said
    else:
        assert stated == {"mean": [0.0], "std": [1.0], "image_size": None}
        assert result["weights"]["arguments"]["train_size"] == 512
        assert not [line for line in caplog.messages if "does not state" in line]

    given = {"dataset": "nudt", "train_size": train_size}
    predict = sam_spl.load(file, device="cpu", precision="fp32", **given)
    for image in ("im_4", "im_5"):
        saved = np.load(tmp_path / "out" / "predictions" / f"{image}.npy")
        np.testing.assert_allclose(predict(root / "images" / f"{image}.png").prob, saved, rtol=0, atol=1e-6)

    if name == "sam_spl":  # another normalisation is another answer
        caplog.clear()
        imagenet = sam_spl.load(file, device="cpu", precision="fp32")
        (said,) = caplog.messages
        assert (
            "taken as for a set without its own (dataset= names another): mean [0.485, 0.456, 0.406]" in said
        )
        assert (
            np.abs(
                imagenet(root / "images" / "im_4.png").prob - np.load(tmp_path / "out/predictions/im_4.npy")
            ).max()
            > 0.01
        )


@pytest.mark.parametrize(
    ("name", "trained", "words", "size"),
    [
        ("datransnet", None, ["--image_size", "64"], 64),
        ("sam_spl_t", 64, ["native_size=true"], None),
        ("sam_spl_t", None, [], None),
    ],
)
def test_a_size_given_to_testing_or_to_a_predictor_is_the_same(tmp_path, name, trained, words, size):
    file = _file(tmp_path, name, trained)
    root = write_folder(tmp_path / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    flags = [
        "--dataset",
        "custom",
        "--data_path",
        str(root),
        "--weights",
        str(file),
        "--device",
        "cpu",
        *words,
    ]
    test([*flags, "save_predictions=npy", "bootstrap=0", "report=0", f"output_dir={tmp_path / 'out'}"])
    assert json.loads((tmp_path / "out" / "results.json").read_text())["image_size"] == size
    predict = sam_spl.load(file, device="cpu", precision="fp32", image_size=size)
    for image in ("im_4", "im_5"):
        saved = np.load(tmp_path / "out" / "predictions" / f"{image}.npy")
        np.testing.assert_allclose(predict(root / "images" / f"{image}.png").prob, saved, rtol=0, atol=1e-6)


def test_the_named_sets_size_is_taken_too(tmp_path):
    file = _published(tmp_path, "sam_spl")
    assert sam_spl.load(file, device="cpu", dataset="IRSTD-1k").image_size == 512
    assert sam_spl.load(file, device="cpu", dataset="IRSTD-1k", image_size=None).image_size is None
    with pytest.raises(ConfigError, match=r"'NUDT-SIRTS' is unknown\. Nearest: NUDT-SIRST"):
        sam_spl.load(file, device="cpu", dataset="NUDT-SIRTS")


def test_what_a_file_states_is_its_own_whatever_set_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    file = _file(tmp_path, "sam_spl_t", 64)
    a, b = (sam_spl.load(file, device="cpu", precision="fp32", dataset=name) for name in (None, "IRSTD-1k"))
    np.testing.assert_array_equal(a(COLOUR).prob, b(COLOUR).prob)
    assert (b.image_size, b.normalise.mean) == (64, (0.45, 0.4, 0.35))
    assert not caplog.messages


class _Brightness(nn.Module):
    """The sign of the distance to mid-grey, and a slope along the columns; remembers what it saw."""

    in_channels = 1

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.slope, self.seen = slope, []

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.seen.append(tuple(image.shape))
        return [8 * image - 4 + self.slope * torch.arange(image.shape[-1], dtype=torch.float32)]


def _of(model: nn.Module, image_size: int | None = None, **options: object) -> Predictor:
    world = World(0, 1, torch.device("cpu"))
    return Predictor(model, Normalise((0.0,), (1.0,), 1), image_size, world, **options)


def test_a_prediction_holds_the_map_the_mask_and_the_detections():
    frame = np.full((20, 30), 20, np.uint8)
    frame[3:5, 4:7], frame[12, 29], frame[19, 0] = 200, 255, 180
    result = _of(_Brightness(), min_area=1, top=2)(frame)
    np.testing.assert_allclose(result.prob, 1 / (1 + np.exp(4 - 8.0 * frame / 255)), atol=1e-6)
    np.testing.assert_array_equal(result.image, frame)
    assert [(one.centroid, one.area) for one in result.detections] == [((3.5, 5.0), 6), ((12.0, 29.0), 1)]
    np.testing.assert_array_equal(np.argwhere(result.mask)[-1], (12, 29))
    assert result.mask.sum() == 7
    assert result.detections is result.detections  # computed once

    other = replace(result, threshold=float(result.prob[3, 4]), top=None)
    assert [one.box for one in other.detections] == [(29, 12, 1, 1)]
    assert other.mask.sum() == 1
    assert replace(result, min_area=2).mask.sum() == 6
    assert replace(result, threshold=1.0).detections == []


def test_the_threshold_is_the_files_unless_one_is_given(tmp_path):
    model = build_model("datransnet")
    described = {"mean": [0.0], "std": [1.0], "image_size": None, "resize": "pillow"}
    plain, stated = (
        save_weights(
            tmp_path / f"{name}.safetensors", model.state_dict(), {**model.built_from, **described, **more}
        )
        for name, more in (("plain", {}), ("stated", {"threshold": 0.375}))
    )
    assert sam_spl.load(plain, device="cpu").threshold == 0.5
    assert sam_spl.load(stated, device="cpu").threshold == 0.375
    assert sam_spl.load(stated, device="cpu", threshold=0.25)(GREY).threshold == 0.25
    assert sam_spl.load(stated, device="cpu", threshold=0).threshold == 0.0


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("threshold", [-0.1, 1.5, float("nan"), "0.5", True]),
        ("min_area", [0, 1.5, "x", None, True]),
        ("top", [0, -1, 2.0]),
        ("tile", [31, 0, 64.0, "large", True]),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(option, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{option}: .* is not valid, give a [^\n]*\.$"):
            _of(_Brightness(), **{option: value})


def test_images_of_one_size_are_predicted_together_in_their_order():
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((40, 50), (50, 40), (40, 50), (9, 200))]
    for image_size, seen in (
        (None, [(2, 1, 40, 50), (1, 1, 50, 40), (1, 1, 32, 200)]),
        (64, [(1, 1, 64, 64)] * 4 + [(3, 1, 64, 64)]),  # the last frame in four tiles
    ):
        model = _Brightness(slope=0.01)
        predict = _of(model, image_size)
        results = predict.batch(frames)
        assert model.seen == seen
        for frame, result in zip(frames, results, strict=True):
            np.testing.assert_array_equal(result.image, frame)
            np.testing.assert_allclose(result.prob, predict(frame).prob, rtol=0, atol=1e-6)
    assert predict.batch([]) == []


def test_a_batch_of_the_networks_is_their_single_images(predict, tmp_path):
    images = [GREY, COLOUR, 255 - GREY, str(_written(tmp_path / "x.png", GREY[:33]))]
    for image, result in zip(images, predict.batch(images), strict=True):
        np.testing.assert_allclose(result.prob, predict(image).prob, rtol=0, atol=1e-5)


def test_an_answer_that_is_not_finite_names_the_image_of_a_batch():
    class Root(nn.Module):
        in_channels = 1

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            return [(image - 0.1).sqrt()]

    frames = [np.full((40, 40), value, np.uint8) for value in (200, 100, 0)]
    with pytest.raises(InputError, match="answer to image 3 is not finite"):
        _of(Root()).batch(frames)
    with pytest.raises(InputError, match="answer to the image is not finite"):
        _of(Root(), tile=32)(frames[2])


def test_symmetries_are_averaged_as_probabilities():
    """The slope of the logits is seen by each symmetry along another direction."""
    frame = np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8)
    model = _Brightness(slope=0.1)
    prob = _of(model, tta=True)(frame).prob
    assert sorted(model.seen) == [(1, 1, 40, 56)] * 4 + [(1, 1, 56, 40)] * 4
    rows, columns = np.mgrid[:40, :56]
    slopes = [columns, 55 - columns, rows, 39 - rows]
    plain = 8.0 * frame / 255 - 4
    expected = np.mean([1 / (1 + np.exp(-plain - 0.1 * slope)) for slope in slopes], axis=0)
    np.testing.assert_allclose(prob, expected, atol=1e-6)


def _symmetries(image: np.ndarray) -> list[np.ndarray]:
    """All eight: a turn of an array or of its transpose."""
    return [np.rot90(of, turns) for of in (image, np.swapaxes(image, 0, 1)) for turns in range(4)]


def test_averaged_over_symmetries_a_turned_image_has_the_turned_map(predict):
    averaged = Predictor(predict.model, predict.normalise, None, predict.world, tta=True)
    image = COLOUR[:33]
    expected = averaged(image).prob
    for turned, of in zip(_symmetries(image), _symmetries(expected), strict=True):
        np.testing.assert_allclose(averaged(turned).prob, of, rtol=0, atol=1e-5)
    turned = predict(np.rot90(image)).prob
    assert np.abs(turned - np.rot90(predict(image).prob)).max() > 1e-4  # the network alone is not so


@pytest.mark.parametrize("image_size", [None, 32])
def test_a_turned_frame_has_the_turned_map_in_tiles_too(image_size):
    """Tiles start at other places in a turned frame, and this network answers by the place in a tile."""
    image = np.random.default_rng(1).random((70, 101)).astype(np.float32)
    model = _Brightness(slope=0.1)
    averaged = _of(model, image_size, tile=32, tta=True)
    expected = averaged(image).prob
    assert len(model.seen) == 8 * 12
    for turned, of in zip(_symmetries(image), _symmetries(expected), strict=True):
        np.testing.assert_allclose(averaged(turned).prob, of, rtol=0, atol=1e-5)


def test_a_frame_that_is_squeezed_unequally_is_flipped_only():
    rng, model = np.random.default_rng(4), _Brightness(slope=0.1)
    frame = rng.random((40, 56)).astype(np.float32)
    predict = _of(model, 64, tta=True)
    prob = predict(frame).prob
    assert len(model.seen) == 4
    for flipped, expected in (
        (frame[::-1], prob[::-1]),
        (frame[:, ::-1], prob[:, ::-1]),
        (frame[::-1, ::-1], prob[::-1, ::-1]),
    ):
        np.testing.assert_allclose(predict(flipped).prob, expected, atol=1e-5)
    model.seen.clear()
    predict.batch([frame, frame[:40, :40]])
    # The four flips of both together, and the four turns of the square one.
    assert sorted(model.seen) == [(1, 1, 64, 64)] * 4 + [(2, 1, 64, 64)] * 4


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (31, 31), (5, 40, 3), (33, 2), (32, 32)])
def test_frames_of_any_shape_have_maps_of_their_shape(predict, shape, tta):
    image = np.random.default_rng(9).integers(0, 256, shape, dtype=np.uint8)
    for image_size, tile in ((None, "auto"), (None, 32), (64, "auto"), (64, 64), (32, 32)):
        of = Predictor(
            predict.model, predict.normalise, image_size, predict.world, threshold=0, tile=tile, tta=tta
        )
        result = of(image)
        assert (result.prob.shape, result.prob.dtype) == (shape[:2], np.float32)
        assert ((result.prob > 0) & (result.prob < 1)).all()
        (whole,) = result.detections  # every probability is above 0
        assert (whole.area, whole.box) == (result.prob.size, (0, 0, shape[1], shape[0]))
        assert result.mask.all() and whole.scr is None
        nothing = replace(result, threshold=1.0)
        assert nothing.detections == [] and not nothing.mask.any()


def test_a_small_frame_is_seen_as_the_networks_pad_it(predict):
    """As testing, which pads nothing, scores it."""
    for shape in ((7, 9), (20, 50)):
        image = GREY[: shape[0], : shape[1]]
        with torch.inference_mode():
            (logits, *_) = predict.model(predict.normalise(image)[None])
        np.testing.assert_allclose(predict(image).prob, logits[0, 0].sigmoid(), rtol=0, atol=1e-6)
