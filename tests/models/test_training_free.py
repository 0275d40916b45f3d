"""Detectors without weights: closed forms, their decision, and commands that take their names."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from sam_spl import load
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.ipi import IPI
from sam_spl.models.registry import ModelConfig, build, build_model, is_trainable, model_names, network_class
from sam_spl.models.training_free import MPCM, MaxMedian, TopHat
from sam_spl.predict.engines import precision_name
from sam_spl.runtime import World
from sam_spl.weights.formats import save_weights
from sam_spl.weights.loading import load_model
from tests.conftest import execute, results_in, test, write_folder

NAMES = [name for name in model_names() if not is_trainable(network_class(name))]
SIDE = 96


def _pixel(height: float = 0.5, at: tuple[int, int] = (20, 27)) -> np.ndarray:
    image = np.full((SIDE, SIDE), 0.25, np.float32)
    image[at] += height
    return image


def _edge() -> np.ndarray:
    image = np.full((SIDE, SIDE), 0.25, np.float32)
    image[:, SIDE // 2 :] = 0.75
    return image


def _noise(shape: tuple[int, int] = (48, 60)) -> np.ndarray:
    rng = np.random.default_rng(3)
    return ndimage.gaussian_filter(rng.random(shape), 1.0).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_image_has_no_target_and_one_bright_pixel_is_the_one_target(name):
    network = build_model(name)
    (logits,) = network(
        torch.from_numpy(np.stack([np.full((SIDE, SIDE), 0.3, np.float32), _pixel()]))[:, None]
    )
    assert torch.equal(logits[0], torch.full((1, SIDE, SIDE), -network.k))
    found = (logits[1, 0] > 0).nonzero().tolist()
    if name == "mpcm":  # its patches are at least 3 pixels wide
        assert [20, 27] in found
        assert all(abs(y - 20) <= 4 and abs(x - 27) <= 4 for y, x in found)
    else:
        assert found == [[20, 27]]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ipi"])
def test_a_straight_edge_leaves_nothing(name):
    left = build_model(name).filtered(_edge())
    assert np.abs(np.maximum(left, 0)).max() < 1e-6


def test_the_logit_is_the_papers_threshold_in_units_of_the_maps_spread():
    network, image = TopHat(k=3.0), _noise()
    logits = network(torch.from_numpy(image)[None, None])[0][0, 0].numpy()
    saliency = network.filtered(image).astype(np.float64)
    np.testing.assert_array_equal(logits > 0, saliency > saliency.mean() + 3.0 * saliency.std())
    np.testing.assert_allclose((logits.mean(), logits.std()), (-3.0, 1.0), atol=1e-5)


def test_top_hat_is_the_image_above_its_new_opening():
    network, image = TopHat(inner=3, base=5, outer=7), _noise()
    margin = np.ones((7, 7), bool)
    margin[2:5, 2:5] = False
    dilated = ndimage.grey_dilation(image, footprint=margin, mode="constant", cval=-np.inf)
    opened = ndimage.grey_erosion(dilated, footprint=np.ones((5, 5), bool), mode="constant", cval=np.inf)
    np.testing.assert_array_equal(network.filtered(image), np.maximum(image - opened, 0))
    # What the inner square covers stays whole, and a pixel more in each direction does not.
    for side, left in ((3, 0.5), (7, 0.0)):
        square = np.full((SIDE, SIDE), 0.25, np.float32)
        square[10 : 10 + side, 10 : 10 + side] += 0.5
        np.testing.assert_allclose(network.filtered(square).max(), left, atol=1e-6)


def test_max_median_is_the_image_above_the_largest_of_four_medians():
    network, image = MaxMedian(size=5), _noise()
    lines = [np.eye(5), np.eye(5)[::-1], np.zeros((5, 5)), np.zeros((5, 5))]
    lines[2][2], lines[3][:, 2] = 1, 1
    medians = [ndimage.median_filter(image, footprint=line.astype(bool), mode="nearest") for line in lines]
    np.testing.assert_array_equal(network.filtered(image), np.maximum(image - np.max(medians, 0), 0))


def test_mpcm_is_the_least_product_of_opposite_differences_at_the_best_scale():
    at, height = (20, 27), 0.5
    left = MPCM(scales=(3, 5)).filtered(_pixel(height, at))
    assert math.isclose(left[at], (height / 9) ** 2, rel_tol=1e-4)
    assert math.isclose(left[at[0] + 2, at[1]], (height / 25) ** 2, rel_tol=1e-4)  # of the 5 x 5 patch
    np.testing.assert_allclose(MPCM().filtered(1 - _noise()), MPCM().filtered(_noise()), atol=1e-7)

    image, side = _noise(), 3  # by its definition, at one scale and an inner pixel
    mean = ndimage.uniform_filter(image.astype(np.float64), side)
    y, x = 24, 30
    d = {(i, j): mean[y, x] - mean[y + side * i, x + side * j] for i in (-1, 0, 1) for j in (-1, 0, 1)}
    least = min(d[i, j] * d[-i, -j] for i, j in d if (i, j) != (0, 0))
    assert math.isclose(MPCM(scales=(side,)).filtered(image)[y, x], least, rel_tol=1e-3)


def test_ipi_takes_bright_points_out_of_a_background_of_low_rank():
    y, x = np.mgrid[:90, :110] / 100
    background = (0.3 + 0.2 * np.sin(3 * x) * np.cos(2 * y)).astype(np.float32)  # of rank 2
    image = background.copy()
    image[[30, 31, 70], [40, 40, 90]] += 0.4
    left = IPI().filtered(image)
    assert left.shape == image.shape
    others = np.delete(left.ravel(), np.ravel_multi_index(([30, 31, 70], [40, 40, 90]), image.shape))
    assert left[[30, 31, 70], [40, 40, 90]].min() > 0.3
    assert others.max() < 0.02
    assert IPI(patch=90, step=1).filtered(image[:40, :40]).shape == (40, 40)  # one patch


def test_ipi_ends_where_each_part_is_what_its_norm_leaves_of_the_rest():
    """At the minimum: B = D - T less mu in singular values, and T = D - B less lambda mu in entries."""
    rng = np.random.default_rng(0)
    data = rng.random((30, 4)) @ rng.random((4, 20)) + 2.0 * (rng.random((30, 20)) < 0.03)
    sparse = IPI(tolerance=1e-12, steps=5000)._sparse_part(data)
    mu, weight = 0.05 * np.linalg.svd(data)[1][3], 1 / 30**0.5
    left, singular, right = np.linalg.svd(data - sparse, full_matrices=False)
    low = left * np.maximum(singular - mu, 0) @ right
    rest = data - low
    np.testing.assert_allclose(sparse, np.sign(rest) * np.maximum(np.abs(rest) - weight * mu, 0), atol=1e-6)
    assert 0 < (sparse != 0).mean() < 0.5


def test_ipi_takes_the_median_of_the_patches_that_hold_a_pixel():
    class Given(IPI):
        def _sparse_part(self, data):
            return rng.random(data.shape)

    rng, (height, width), patch, step = np.random.default_rng(1), (34, 41), 12, 5
    left = Given(patch=patch, step=step).filtered(np.zeros((height, width), np.float32))
    starts = [sorted({*range(0, side - patch, step), side - patch}) for side in (height, width)]
    places = [(top, at) for top in starts[0] for at in starts[1]]
    shown = np.random.default_rng(1).random((patch * patch, len(places)))
    maps = np.full((len(places), height, width), np.nan)
    for k, (top, at) in enumerate(places):
        maps[k, top : top + patch, at : at + patch] = shown[:, k].reshape(patch, patch)
    np.testing.assert_allclose(left, np.nanmedian(maps, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("tophat", {"outer": 15}, "inner <= base <= outer"),
        ("tophat", {"inner": 4}, "model.inner: 4 is not valid, give an odd number"),
        ("max_median", {"size": 1}, "model.size: 1 is not valid"),
        ("mpcm", {"scales": []}, "model.scales"),
        ("ipi", {"step": 0}, "model.step: 0"),
        ("ipi", {"tolerance": 0.0}, "model.tolerance"),
        ("mpcm", {"k": -1.0}, "model.k: -1.0 is not valid"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, **arguments)


def test_a_name_stands_for_a_weights_file_and_its_test_is_a_result_like_any(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "mine", size=(96, 80), lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    words = ["--dataset", "custom", "--data_path", folder, "device=cpu", "report=0", "overlays=0"]
    test(["--model", "tophat", *words])
    report = results_in(tmp_path / "checkpoints")
    assert report["weights"]["model"] == "tophat"
    assert report["weights"]["trainable"] is False
    assert report["weights"]["arguments"] == ModelConfig.named("tophat").arguments
    assert (report["scores"]["detected"], report["scores"]["images"]) == (2, 2)
    capsys.readouterr()
    test(["weights=[tophat,max_median]", *words])
    assert "\nmax_median" in capsys.readouterr().out.partition("IoU %")[2]  # one table of both
    execute(["compare", "checkpoints", "--paired"])
    assert "max_median minus tophat on 2 images" in capsys.readouterr().out

    prediction = load("tophat", "cpu")(folder / "images" / "im_4.png")
    assert len(prediction.detections) == 1
    with pytest.raises(InputError, match="datransnet is a network, whose weights are trained"):
        load("datransnet")


def test_a_file_that_states_its_threshold_can_be_made_of_it(tmp_path):
    model, description = load_model("mpcm")
    file = tmp_path / "mpcm.safetensors"
    save_weights(file, model.state_dict(), {**description, "threshold": 0.9})
    again, stated = load_model(file)
    assert stated == {**description, "threshold": 0.9}
    image = torch.from_numpy(_noise())[None, None]
    assert torch.equal(model(image)[0], again(image)[0])


def test_there_is_nothing_to_train():
    with pytest.raises(ConfigError, match=r"mpcm has nothing to train\. Test it at once: sam-spl test"):
        build(ModelConfig.named("mpcm"))


def test_they_compute_in_float32_whatever_networks_do():
    world = World(0, 1, torch.device("cpu"), torch.bfloat16)
    assert precision_name(build_model("datransnet"), world) == world.precision_name == "bfloat16"
    assert precision_name(build_model("mpcm"), world) == "float32"
