"""DATransNet against the numbers of the published implementation, and its parts against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sam_spl.engine.config import OptimizerConfig
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.engine.optim import learning_rate
from sam_spl.errors import InputError
from sam_spl.models.datransnet_published import DATRANSNET
from sam_spl.models.registry import build_model
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model, load_strict
from sam_spl.weights.published import from_published, to_published
from tests.conftest import GOLDEN, fill, golden_state
from tests.models.golden_training import assert_trains_as_published


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return golden_state("datransnet")


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
