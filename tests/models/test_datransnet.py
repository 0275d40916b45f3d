"""DATransNet against the numbers of the published implementation, and its parts against their definitions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam_spl.engine.config import OptimizerConfig
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.engine.optim import learning_rate
from sam_spl.errors import InputError
from sam_spl.models.datransnet import GradFormer, differences
from sam_spl.models.datransnet_published import DATRANSNET
from sam_spl.models.registry import build_model
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model, load_strict
from sam_spl.weights.published import from_published, to_published
from tests.conftest import GOLDEN, fill
from tests.models.golden_training import assert_trains_as_published


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    manifest = json.loads((GOLDEN / "datransnet_manifest.json").read_text())
    return {
        name: torch.from_numpy(np.asarray(fill.parameter(name, tuple(shape))))
        for name, (shape, _) in manifest.items()
    }


@pytest.fixture
def golden(published) -> torch.nn.Module:
    model = build_model("datransnet")
    load_strict(model, from_published(published, DATRANSNET), "golden")
    return model


def test_probabilities_equal_the_published_ones(golden, device):
    expected = torch.from_numpy(np.load(GOLDEN / "datransnet_a.npz")["prob"])
    image = torch.from_numpy(fill.image("datransnet/a", (2, 1, 256, 256))).to(device)
    with torch.no_grad():
        single = golden.to(device).eval()(image)[0].sigmoid().cpu()
        double = golden.double()(image.double())[0].sigmoid().cpu()
    # With TF32 the probabilities would be 3e-2 off.
    atol = {"cpu": 2e-4, "cuda": 1e-3}[device]
    torch.testing.assert_close(single[..., ::4, ::4].double(), expected, atol=atol, rtol=0)
    torch.testing.assert_close(double[..., ::4, ::4], expected, atol=1e-13, rtol=1e-9)


def test_training_equals_the_published_one(golden, device):
    assert_trains_as_published(
        golden,
        "datransnet",
        device=device,
        loss=SegmentationLoss(bce=0, iou=1, iou_over="batch"),
        optimizer=OptimizerConfig(name="adam", lr=5e-4, weight_decay=0),
        unused=("encoder5.", "decoder5."),
    )


def test_names_and_counts_are_the_published_ones(published):
    model = build_model("datransnet")
    ours = to_published(model.state_dict(), DATRANSNET)
    assert set(published) - set(ours) == {
        name for name in published if name.startswith(("encoder5.", "decoder5."))
    }
    assert set(ours) <= set(published)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(v.numel() for name, v in published.items() if not name.endswith(buffers)) == 2_930_729


@pytest.mark.parametrize("shift", [1, 3])
def test_differences_equal_their_definition(shift):
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    weight = torch.randn(5, 24, 1, 1, dtype=torch.float64)
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    neighbours = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    maps = [
        padded[..., shift + dy * shift : shift + dy * shift + 9, shift + dx * shift : shift + dx * shift + 11]
        - x
        for dy, dx in neighbours
    ]
    expected = F.conv2d(torch.cat(maps, dim=1), weight)
    torch.testing.assert_close(differences(x, weight, shift), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shift", [1, 3])
def test_differences_do_not_see_a_constant_however_the_taps_are_rounded(shift):
    """With taps rounded to 8 bits, whose sum is no longer zero, a constant of 100 must not come through."""
    weight = torch.randn(5, 24, 1, 1, generator=torch.manual_seed(0)).bfloat16()
    x = (2 * torch.randn(2, 3, 16, 16, generator=torch.manual_seed(1))).round().bfloat16() / 2
    assert not differences(torch.full_like(x, 100.0), weight, shift).any()
    expected = differences(x.double(), weight.double(), shift).float()
    high = differences(x + 64, weight, shift).float()  # sums that bfloat16 holds exactly
    assert (high - expected).abs().max() < 0.03 * expected.std()


def test_attention_memory_is_linear_in_the_number_of_pixels():
    part = GradFormer(16, 16, (1, 3), scale=256.0).eval()
    largest = []
    for size in (32, 64):
        sizes: list[int] = []

        def note(x, sizes=sizes):
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            part(torch.randn(1, 16, size, size))
        largest.append(max(sizes))
    assert largest[1] <= 4.5 * largest[0]


@pytest.mark.parametrize("size", [(32, 32), (45, 70)])
def test_any_size_in_and_out(size):
    model = build_model("datransnet").eval()
    with torch.no_grad():
        (logits,) = model(torch.rand(1, 1, *size))
    assert logits.shape == (1, 1, *size)


def test_the_training_size_matters_and_is_kept():
    torch.manual_seed(0)
    a = build_model("datransnet", train_size=256).eval()
    b = build_model("datransnet", train_size=512).eval()
    b.load_state_dict(a.state_dict())
    torch.nn.init.ones_(a.gfem.non_local.back[1].weight)
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert not torch.equal(a(image)[0], b(image)[0])
    assert b.built_from["arguments"]["train_size"] == 512


def test_published_files_are_read_and_written_bit_exact(published, tmp_path):
    named = {f"model.{name}": value for name, value in published.items()}
    torch.save({"epoch": 3, "state_dict": named, "total_loss": 0.1}, tmp_path / "a.pth.tar")
    with pytest.raises(InputError, match="train_size=256"):
        load_model(tmp_path / "a.pth.tar")
    _, description = load_model(tmp_path / "a.pth.tar", train_size=512)
    assert description["arguments"] == {"train_size": 512, "head_bias": None}
    assert (description["mean"], description["image_size"]) == ([0.0], None)

    save_weights(tmp_path / "b.safetensors", read_weights(tmp_path / "a.pth.tar").state, description)
    assert load_model(tmp_path / "b.safetensors")[1] == description
    save_weights(
        tmp_path / "c.pth.tar", read_weights(tmp_path / "b.safetensors").state, {}, names="published"
    )
    back = torch.load(tmp_path / "c.pth.tar", weights_only=True)["state_dict"]
    assert back.keys() == named.keys()
    assert all(torch.equal(back[name], named[name]) for name in named)

    save_weights(tmp_path / "d.pth.tar", build_model("datransnet").state_dict(), {}, names="published")
    assert torch.load(tmp_path / "d.pth.tar", weights_only=True)["state_dict"].keys() == named.keys()


def test_multistep_equals_pytorchs():
    config = OptimizerConfig(lr=5e-4, schedule="multistep", milestones=[4, 7])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 7])
    for epoch in range(10):
        assert math.isclose(learning_rate(epoch, 10, config), optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        schedule.step()
