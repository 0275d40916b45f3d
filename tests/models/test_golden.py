"""SAM-SPL against the numbers of the published implementation (tests/golden/README.md)."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from sam_spl.engine.config import OptimizerConfig
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.models.registry import build_model
from sam_spl.models.sam_spl_published import SAM_SPL
from sam_spl.weights.loading import load_strict
from sam_spl.weights.published import from_published, to_published
from tests.conftest import GOLDEN, fill, golden_state
from tests.models.golden_training import assert_trains_as_published


def _golden_model(variant: str, **arguments) -> torch.nn.Module:
    model = build_model(f"sam_spl_{variant}", **arguments)
    load_strict(model, from_published(golden_state(f"sam_spl_{variant}"), SAM_SPL), "golden")
    return model


@pytest.mark.parametrize(("variant", "batch"), [("t", 2), ("s", 1)])
def test_outputs_and_features_equal_the_published_ones(variant, batch, device):
    golden = np.load(GOLDEN / f"sam_spl_{variant}_a.npz")
    image = torch.from_numpy(fill.image(f"sam_spl_{variant}/a", (batch, 3, 256, 256))).to(device)
    model = _golden_model(variant).to(device).eval()

    with torch.no_grad():
        single = model(image)
        model.double()
        double = model(image.double())
        features = [feature.cpu() for feature in model.encoder(image.double())]

    # In float32 a CPU is 1e-5 off, and CUDA may choose convolutions that round more (Winograd). TF32 would be
    # 7e-3 off: measured on a CPU with the factors of every product rounded to 10 bits.
    atol = {"cpu": 1e-4, "cuda": 5e-4}[device]
    for index in range(3):
        expected = torch.from_numpy(golden[f"mask{index}"])
        torch.testing.assert_close(single[index][..., ::4, ::4].cpu().double(), expected, atol=atol, rtol=0)
        torch.testing.assert_close(double[index][..., ::4, ::4].cpu(), expected, atol=1e-12, rtol=1e-9)
    for level, feature in enumerate(features):  # enc0 is the paper's e1
        stats = torch.stack([feature.mean(), feature.std(), feature.norm()])
        corner = torch.from_numpy(golden[f"enc{level}_corner"])
        torch.testing.assert_close(feature[:1, :8, :4, :4], corner, atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(
            stats, torch.from_numpy(golden[f"enc{level}_stats"]), atol=1e-12, rtol=1e-9
        )


def test_training_equals_the_published_one(device):
    assert_trains_as_published(
        _golden_model("t", freeze_trunk=True),
        "sam_spl_t",
        device=device,
        loss=SegmentationLoss(bce=1.0),
        optimizer=OptimizerConfig(name="adan", lr=1e-3, weight_decay=1e-2),
        unused=("image_encoder.trunk.promote_genertor.patchEmded",),
    )


@pytest.mark.parametrize(
    ("variant", "total", "trunk", "unused"),
    [
        ("t", 25_510_303, 18_210_912, 14_208),
        ("s", 70_705_497, 54_675_936, 14_208),
        ("l", 172_657_033, 160_834_464, 21_312),
    ],
)
def test_names_shapes_and_counts_are_the_published_ones(variant, total, trunk, unused):
    manifest = json.loads((GOLDEN / f"sam_spl_{variant}_manifest.json").read_text())
    with torch.device("meta"):
        model = build_model(f"sam_spl_{variant}")
    ours = {name: list(value.shape) for name, value in to_published(model.state_dict(), SAM_SPL).items()}
    theirs = {name: shape for name, (shape, _) in manifest.items()}

    assert {name: shape for name, shape in theirs.items() if "patchEmded" not in name} == ours
    left_out = sum(math.prod(shape) for name, shape in theirs.items() if "patchEmded" in name)
    assert left_out == unused
    assert sum(p.numel() for p in model.parameters()) == total - unused
    encoder = model.encoder
    with_prompts = sum(p.numel() for part in (encoder.trunk, encoder.prompts) for p in part.parameters())
    assert with_prompts == trunk - unused
