"""What figures show is what the network computed, where it lies in the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sam_spl.data.normalise import Normalise
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.datransnet_maps import central_differences
from sam_spl.models.gradformer import taps
from sam_spl.models.registry import build_model
from sam_spl.predict.predictor import Predictor
from sam_spl.predict.visualize import visualize
from sam_spl.runtime import World
from tests.conftest import TINY

CPU = World(0, 1, torch.device("cpu"))


class Pyramid(nn.Module):
    """Block means of its input at strides 4 and 16, and forms of them that layers may give."""

    in_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.AvgPool2d(4)
        self.coarse = nn.AvgPool2d(16)
        self.last = nn.Flatten(-2)  # (B, C, N): channels where tokens would be
        self.tokens = Tokens()
        self.clipped = nn.ReLU(inplace=True)
        self.both = Both()
        self.total = nn.AdaptiveAvgPool1d(1)
        self.unused = nn.Identity()

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
        fine = self.fine(image) - 0.5
        self.tokens(fine)
        self.both(fine)
        self.total(self.last(self.coarse(image)))
        return [self.clipped(image - 0.5)[..., :height, :width]]


class Tokens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mT


class Both(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        return {"of": [x.permute(0, 2, 3, 1).expand(-1, -1, -1, 5), x.mean((1, 2, 3))]}


def predictor_of(model: nn.Module, image_size: int | None = None, **more) -> Predictor:
    channels = model.in_channels
    return Predictor(
        model, Normalise((0.0,) * channels, (1.0,) * channels, channels), image_size, CPU, **more
    )


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def plates_of(model, image, image_size=None, **more):
    prediction, plates = visualize(predictor_of(model, image_size), image, **more)
    return prediction, {plate.name: plate for plate in plates}


def panels_of(plate):
    return {panel.title: panel for row in plate.rows for panel in row if panel is not None}


@pytest.fixture
def sam_spl_t():
    torch.manual_seed(0)
    return lively(build_model("sam_spl_t", **TINY))


@pytest.fixture
def datransnet():
    torch.manual_seed(0)
    return lively(build_model("datransnet", train_size=64))


def lively(model: nn.Module) -> nn.Module:
    """Statistics and scales of normalisation that are not those of a new network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return model.eval()


@pytest.mark.parametrize("name", ["sam_spl_t", "datransnet"])
def test_looking_changes_neither_the_answer_nor_the_network(name, request):
    model, image = request.getfixturevalue(name), image_of(50, 70)
    alone = predictor_of(model, 64)(image)
    seen, _ = plates_of(model, image, 64)
    np.testing.assert_array_equal(seen.prob, alone.prob)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_every_map_of_both_networks_is_finite_and_lies_over_the_whole_image(sam_spl_t, datransnet):
    for model, names in (
        (sam_spl_t, ["outputs", "encoder", "self_prompt", "calibration"]),
        (datransnet, ["outputs", "encoder", "gradformer", "attention", "decoder"]),
    ):
        for size, side in (((50, 70), 64), ((33, 70), None)):
            _, plates = plates_of(model, image_of(*size), side)
            assert list(plates) == names
            for panel in (one for plate in plates.values() for one in panels_of(plate).values()):
                assert np.isfinite(panel.values).all(), panel.title
                if panel.covers is not None:
                    assert panel.values.ndim == 2, panel.title
                    excess = np.subtract(panel.covers, size)
                    assert (excess >= 0).all(), panel.title
                    assert (excess < np.divide(panel.covers, panel.values.shape)).all(), panel.title


def test_calibration_is_the_shift_of_section_iii_d(sam_spl_t):
    image = image_of(64, 64)
    _, plates = plates_of(sam_spl_t, image)
    x = predictor_of(sam_spl_t).normalise(image)[None]
    decoder = sam_spl_t.decoder
    with torch.no_grad():
        features = sam_spl_t.encoder(x)
        deeper = decoder.source(features)
        for up, feature, row in zip(decoder.ups, features[2::-1], plates["calibration"].rows, strict=True):
            skip = up.skip(feature)
            shift = up.calibrate_skip(deeper.mean((2, 3)))
            before, after = (one[0].square().mean(0).sqrt() for one in (skip, skip + shift[:, :, None, None]))
            expected = [feature[0].square().mean(0).sqrt(), before, after, after - before]
            for panel, values in zip(row[:4], expected, strict=True):
                np.testing.assert_allclose(panel.values, values, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(row[4].values[0], shift[0], rtol=1e-5)
            np.testing.assert_allclose(row[4].values[1], up.calibrate_up(skip.mean((2, 3)))[0], rtol=1e-5)
            assert row[1].shared == row[2].shared != ""
            deeper = up(deeper, feature)
    assert np.abs(row[3].values).max() > 1e-3  # there is a change to show


def test_the_token_reads_as_attention_does(sam_spl_t):
    image = image_of(64, 64)
    _, plates = plates_of(sam_spl_t, image)
    taken = {}
    attention = sam_spl_t.decoder.source.transformer.final_attention
    hook = attention.register_forward_hook(lambda _, inputs, __: taken.update(inputs=inputs))
    with torch.no_grad():
        sam_spl_t(predictor_of(sam_spl_t).normalise(image)[None])
        hook.remove()
        query, key, _ = taken["inputs"]
        q = attention.q_proj(query).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        k = attention.k_proj(key).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        places = torch.eye(key.shape[1]).expand(1, attention.num_heads, -1, -1)
        read = F.scaled_dot_product_attention(q, k, places)[0].mean(0)[0]  # of one-hot values: the weights
    shown = panels_of(plates["self_prompt"])["mask token reads, final"].values
    np.testing.assert_allclose(shown.ravel(), read, rtol=1e-5)
    assert shown.shape == (4, 4) and shown.sum() == pytest.approx(1, abs=1e-5)


def test_ablations_show_what_they_have(sam_spl_t):
    plain = lively(build_model("sam_spl_t", **TINY, use_sam_decoder=False, mutual_calibration=False))
    _, plates = plates_of(plain, image_of(64, 64))
    assert list(plates) == ["outputs", "encoder", "calibration"]
    skips = [[panel.title for panel in row] for row in plates["calibration"].rows]
    assert skips == [[f"encoder feature $e_{k}$", f"skip of $e_{k}$"] for k in (4, 3, 2, 1)]


def test_central_differences_are_what_taps_convolve():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, 9, 8), torch.randn(5, 24, 1, 1)
    for shift in (1, 3):
        padded = F.pad(x, (shift,) * 4, mode="reflect")
        expected = F.conv2d(padded, taps(weight), dilation=shift)
        torch.testing.assert_close(F.conv2d(central_differences(x, shift), weight), expected)


def test_attention_of_gradformers_is_a_matrix_of_queries_and_keys(datransnet):
    _, plates = plates_of(datransnet, image_of(64, 64))
    shapes = [[None if one is None else one.values.shape for one in row] for row in plates["attention"].rows]
    assert shapes == [[(8, 64)] * 2, [(16, 128)] * 2, [(16, 128)] * 2, [(32, 256), None]]
    for panel in panels_of(plates["attention"]).values():
        np.testing.assert_allclose(panel.values.sum(1), 1, rtol=1e-5)
        assert panel.covers is None


def test_cells_lie_over_the_pixels_that_they_were_made_of():
    image = image_of(50, 70)
    _, plates = plates_of(Pyramid(), image, layers=["fine", "tokens", "both", "coarse"])
    panels = panels_of(plates["layers"])
    assert list(panels) == ["fine", "tokens", "both[of][0]", "coarse"]
    padded = np.pad(image / 255, ((0, 14), (0, 26)), mode="edge")  # to 64 x 96
    blocks = padded.reshape(16, 4, 24, 4).mean((1, 3))
    expected = np.abs(blocks - blocks.mean())[:13, :18]  # rows and columns of padding alone are left out
    for name in ("fine", "tokens", "both[of][0]"):
        np.testing.assert_allclose(panels[name].values, expected, atol=1e-6)
        assert panels[name].covers == (52, 72)
    assert (panels["coarse"].values.shape, panels["coarse"].covers) == ((4, 5), (64, 80))


def test_an_image_that_is_squeezed_is_covered_at_its_own_scale():
    _, plates = plates_of(Pyramid(), image_of(50, 70), 64, layers=["fine"])
    assert panels_of(plates["layers"])["fine"].covers == (50, 70)
    _, plates = plates_of(Pyramid(), image_of(20, 30), layers=["fine"])  # padded to the 32 that networks take
    fine = panels_of(plates["layers"])["fine"]
    assert fine.covers == (32, 32) and plates["layers"].size == (20, 30)


def test_a_network_without_maps_shows_its_parts():
    _, plates = plates_of(nn_of(Pyramid()), image_of(64, 64))
    names = ["fine", "coarse", "tokens", "clipped", "both[of][0]"]  # those of its parts that give maps
    assert list(panels_of(plates["layers"])) == [f"inner.{name}" for name in names]


def nn_of(inner: nn.Module) -> nn.Module:
    class Wraps(nn.Module):
        in_channels = 1

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image):
            return self.inner(image)

    return Wraps()


def test_maps_are_of_the_moment_even_where_the_next_layer_works_in_place():
    class InPlace(nn.Module):
        in_channels = 1

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.AvgPool2d(1)
            self.then = nn.ReLU(inplace=True)

        def forward(self, image):
            return [self.then(self.first(image - 0.5))]

    image = image_of(64, 64)
    _, plates = plates_of(InPlace(), image, layers=["first"])
    values = image / 255 - 0.5
    np.testing.assert_allclose(
        panels_of(plates["layers"])["first"].values, np.abs(values - values.mean()), atol=1e-6
    )


def test_outputs_are_image_truth_probability_and_every_head(sam_spl_t):
    image, mask = image_of(64, 64), np.zeros((64, 64), bool)
    mask[3:5, 7:9] = True
    prediction, plates = plates_of(sam_spl_t, image, mask=mask)
    first, heads = plates["outputs"].rows
    np.testing.assert_array_equal(first[1].values, mask)
    np.testing.assert_array_equal(first[2].values, prediction.prob)
    with torch.no_grad():
        logits = sam_spl_t(predictor_of(sam_spl_t).normalise(image)[None])
    for panel, one in zip(heads, reversed(logits), strict=True):
        np.testing.assert_allclose(panel.values, one[0, 0].sigmoid(), atol=1e-6)


def test_what_cannot_be_shown_is_said():
    image = image_of(64, 64)
    with pytest.raises(ConfigError, match=r"^layers: the network has no 'fin'\. Nearest: fine"):
        plates_of(Pyramid(), image, layers=["fin"])
    with pytest.raises(InputError, match=r"^layers: last gives no map over the image \(\(1, 1, 16\)\)"):
        plates_of(Pyramid(), image, layers=["last"])
    with pytest.raises(InputError, match=r"^layers: unused gives no map over the image \(it is not called\)"):
        plates_of(Pyramid(), image, layers=["unused"])
    with pytest.raises(InputError, match=r"^mask: has 64x32 pixels, the image 64x64"):
        plates_of(Pyramid(), image, mask=np.zeros((32, 64), bool))
    with pytest.raises(InputError, match=r"^image: is predicted in several passes"):
        plates_of(Pyramid(), image_of(64, 160), 64)
    model = Pyramid()
    with pytest.raises(InputError):
        visualize(predictor_of(model, tile=32), image)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
