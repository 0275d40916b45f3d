"""UIU-Net against the numbers of the published implementation, its parts and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sam_spl.engine.config import OptimizerConfig
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.models.uiunet import UIUNet
from sam_spl.models.uiunet_published import UIUNET
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model, load_strict
from sam_spl.weights.published import from_published, to_published
from tests.conftest import GOLDEN, fill, golden_state
from tests.models.golden_training import published_steps

STAGES = [*"123456", "5d", "4d", "3d", "2d", "1d"]


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return golden_state("uiunet")


@pytest.fixture(scope="module")
def grey(published) -> dict[str, torch.Tensor]:
    """As BasicIRSTD's files have it: one channel."""
    first = "stage1.rebnconvin.conv_s1.weight"
    return {**published, first: published[first][:, :1].clone()}


@pytest.fixture
def golden(published) -> UIUNet:
    model = build_model("uiunet")
    load_strict(model, from_published(published, UIUNET), "golden")
    return model


@pytest.mark.parametrize(("case", "prefix", "size"), [("a", "", (128, 128)), ("odd", "odd_", (75, 101))])
def test_maps_and_stages_equal_the_published_ones(golden, device, case, prefix, size):
    expected = {name: torch.from_numpy(x) for name, x in np.load(GOLDEN / "uiunet_a.npz").items()}
    image = torch.from_numpy(fill.image(f"uiunet/{case}", (1, 3, *size))).to(device)
    golden.to(device).eval()
    with torch.no_grad():
        single = golden.maps_of(image)
        given = {}
        for name, module in golden.stages.items():
            module.register_forward_hook(lambda _, __, x, name=name: given.update({f"stage{name}": x}))
        for level, module in golden.fusions.items():
            module.register_forward_hook(
                lambda _, __, x, level=level: given.update(
                    {f"fuse{level}.{k}": one for k, one in enumerate(x.chunk(2, dim=1))}
                )
            )
        double = golden.double().maps_of(image.double())
    for k, (x, y) in enumerate(zip(single, double, strict=True)):
        # In float32 a CPU is 2e-4 off, where logits reach 120.
        atol = {"cpu": 5e-4, "cuda": 2e-3}[device]
        name = f"{prefix}d{k}"
        torch.testing.assert_close(x[..., ::4, ::4].cpu().double(), expected[name], atol=atol, rtol=0)
        torch.testing.assert_close(y[..., ::4, ::4].cpu(), expected[name], atol=1e-12, rtol=1e-9)
    prob = double[0].sigmoid()[..., ::4, ::4].cpu()
    torch.testing.assert_close(prob, expected[f"{prefix}prob"], atol=1e-13, rtol=1e-9)
    assert {f"{stage}_stats" for stage in given} == {name for name in expected if name.endswith("_stats")}
    for stage, x in given.items() if case == "a" else ():
        stats = torch.stack([x.mean(), x.std(), x.norm()]).cpu()
        torch.testing.assert_close(stats, expected[f"{stage}_stats"], atol=1e-12, rtol=1e-9)
        corner = x[:1, :8, :4, :4].cpu()
        torch.testing.assert_close(corner, expected[f"{stage}_corner"], atol=1e-12, rtol=1e-9)


def _zero_in_truth(name: str) -> bool:
    """Biases of convolutions before a BatchNorm: all but those of the heads."""
    head = name.startswith(("side", "outconv"))
    before = ("conv_s1.bias", "feature_high.0.bias", "topdown.1.bias", "topdown.4.bias")
    return not head and name.endswith((*before, "bottomup.0.bias", "post.0.bias"))


def test_the_first_step_of_training_equals_the_published_one(golden, device):
    """From the third step on this network is chaotic (tests/golden/README.md)."""
    expected = json.loads((GOLDEN / "uiunet_train.json").read_text())
    config = OptimizerConfig(name="adam", lr=1e-3, weight_decay=0)
    steps = published_steps(
        golden, "uiunet", (4, 64), device=device, loss=SegmentationLoss(bce=1), optimizer=config
    )
    loss, gradients, norms = next(steps)
    assert loss == pytest.approx(expected["losses"][0], rel=1e-11)
    assert set(gradients) == set(expected["grad_norms_first_step"])
    for name, norm in expected["grad_norms_first_step"].items():
        tolerance = {"abs": 1e-11} if _zero_in_truth(name) else {"rel": 1e-8}
        assert gradients[name] == pytest.approx(norm, **tolerance), name
    for name, norm in expected["param_norms_after_1"].items():
        if not _zero_in_truth(name):
            assert norms[name] == pytest.approx(norm, rel=1e-7), name
    for name, norm in expected["buffer_norms_after_1"].items():
        assert norms[name] == pytest.approx(norm, rel=1e-9), name
    for name, count in golden.state_dict().items():
        if name.endswith("num_batches_tracked"):
            twice = name.startswith("fusions.") and ".out." in name
            assert count == 1 + twice, name

    loss, _, _ = next(steps)
    assert loss == pytest.approx(expected["losses"][1], rel=1e-7)


@pytest.mark.parametrize(("channels", "total", "cost"), [(3, 50_541_461, 54.30e9), (1, 50_540_309, 54.22e9)])
def test_names_shapes_and_counts_are_the_published_ones(channels, total, cost):
    manifest = json.loads((GOLDEN / "uiunet_manifest.json").read_text())
    manifest["stage1.rebnconvin.conv_s1.weight"][0][1] = channels
    with torch.device("meta"):
        model = build_model("uiunet", in_channels=channels)
    ours = {
        name: [list(x.shape), str(x.dtype).removeprefix("torch.")]
        for name, x in to_published(model.state_dict(), UIUNET).items()
    }
    assert ours == manifest
    assert sum(p.numel() for p in model.parameters()) == total
    assert model.in_channels == channels
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, channels, 256, 256, device="meta"))
    assert counter.get_total_flops() / 2 == pytest.approx(cost, rel=1e-4)


def test_any_size_is_padded_with_zeros_to_multiples_of_32_which_changes_the_answer(golden):
    image = torch.randn(1, 3, 33, 70)
    with torch.no_grad():
        own = golden.eval().maps_of(image)
        whole = golden.maps_of(F.pad(image, (0, 26, 0, 31)))
        for x, y in zip(golden(image), whole, strict=True):
            torch.testing.assert_close(x, y[..., :33, :70], rtol=0, atol=0)
    assert (own[0] - whole[0][..., :33, :70]).abs().max() > 1e-2


def test_a_single_image_is_refused_in_training_alone(golden):
    image = torch.randn(1, 3, 32, 32)
    with pytest.raises(InputError, match=r"needs two images at least.*two or more"):
        golden.train()(image)
    with torch.no_grad():
        golden.eval()(image)


def test_head_bias_is_where_every_map_starts():
    torch.manual_seed(0)
    model = build_model("uiunet", head_bias=-4.0)
    for side in model.sides:
        torch.nn.init.zeros_(side.weight)
    with torch.no_grad():
        for x in model.eval()(torch.randn(1, 3, 32, 32)):
            torch.testing.assert_close(x, torch.full_like(x, -4.0))


def test_images_have_one_channel_or_three():
    with pytest.raises(ConfigError, match=r"model\.in_channels: 2 is neither 1 nor 3"):
        build_model("uiunet", in_channels=2)


def test_the_authors_files_are_read_and_written_bit_exact(published, tmp_path):
    torch.save(published, tmp_path / "a.pth")
    _, description = load_model(tmp_path / "a.pth")
    assert description["arguments"] == {"in_channels": 3, "head_bias": None}
    assert (description["mean"], description["std"]) == ([0.485], [0.229])
    assert (description["image_size"], description["resize"]) == (320, "opencv")
    back = _back(tmp_path / "a.pth", description, tmp_path)
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], published[name]) for name in back)


def test_basicirstds_files_are_read_and_written_bit_exact(grey, tmp_path):
    named = {f"model.{name}": value for name, value in grey.items()}
    torch.save({"epoch": 400, "state_dict": named, "total_loss": [0.5, 0.1]}, tmp_path / "a.pth.tar")
    model, description = load_model(tmp_path / "a.pth.tar")
    assert description["arguments"] == {"in_channels": 1, "head_bias": None}
    assert (description["image_size"], model.in_channels) == (None, 1)
    assert "mean" not in description  # of each data set
    back = _back(tmp_path / "a.pth.tar", description, tmp_path)["state_dict"]
    assert back.keys() == named.keys()
    assert all(torch.equal(back[name], named[name]) for name in named)


def _back(file, description, folder):
    """The content of a published file after a round trip through one of ours."""
    save_weights(folder / "ours.safetensors", read_weights(file).state, description)
    state = read_weights(folder / "ours.safetensors").state
    save_weights(folder / "back.pth", state, description, names="published")
    return torch.load(folder / "back.pth", weights_only=True)
