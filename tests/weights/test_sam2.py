"""SAM 2's trunk."""

from __future__ import annotations

import pytest
import torch

import sam_spl
from sam_spl.errors import InputError
from sam_spl.models.registry import build_model
from sam_spl.models.sam_spl_published import SAM_SPL
from sam_spl.weights.loading import load_model
from sam_spl.weights.published import to_published
from sam_spl.weights.sam2 import load_trunk
from tests.conftest import TINY


def _sam2_file(path, model, extra_blocks=0, starts_stage=True):
    """A SAM 2 checkpoint of the model's own trunk, with a neck and deeper blocks as the real ones have."""
    trunk = to_published(
        {f"encoder.trunk.{name}": value for name, value in model.encoder.trunk.state_dict().items()},
        SAM_SPL,
    )
    trunk = {name: torch.randn_like(value) for name, value in trunk.items()}
    depth = len(model.encoder.trunk.blocks)
    for block in range(depth, depth + extra_blocks):
        trunk[f"image_encoder.trunk.blocks.{block}.norm1.weight"] = torch.ones(8)
        if starts_stage and block == depth:
            trunk[f"image_encoder.trunk.blocks.{block}.proj.weight"] = torch.ones(16, 8)
    torch.save(
        {
            "model": {
                **trunk,
                "image_encoder.neck.convs.0.conv.weight": torch.zeros(1),
                "no_mem": torch.ones(1),
            }
        },
        path,
    )
    return trunk


def test_sam2_weights_fill_the_trunk_and_freeze_it(tmp_path, tiny):
    trunk = _sam2_file(tmp_path / "sam2.pt", tiny, extra_blocks=2)
    load_trunk(tiny, str(tmp_path / "sam2.pt"))
    loaded = to_published(
        {f"encoder.trunk.{n}": v for n, v in tiny.encoder.trunk.state_dict().items()}, SAM_SPL
    )
    assert all(torch.equal(loaded[name], trunk[name]) for name in loaded)
    assert not any(p.requires_grad for p in tiny.encoder.trunk.parameters())
    assert all(p.requires_grad for p in tiny.encoder.prompts.parameters())
    assert tiny.built_from["arguments"]["freeze_trunk"] is True


def test_sam2_weights_are_no_whole_network(tmp_path, tiny):
    _sam2_file(tmp_path / "sam2.pt", tiny)
    for load in (load_model, lambda file: sam_spl.load_weights(tiny, file)):
        with pytest.raises(InputError, match=r"the trunk only\. Train with model\.trunk_weights="):
            load(tmp_path / "sam2.pt")


def test_a_trunk_that_is_asked_to_train_trains_with_sam2_weights_too(tmp_path):
    model = build_model("sam_spl_t", **TINY, freeze_trunk=False)
    _sam2_file(tmp_path / "sam2.pt", model)
    load_trunk(model, str(tmp_path / "sam2.pt"))
    assert all(p.requires_grad for p in model.encoder.trunk.parameters())


def test_a_deeper_variants_trunk_is_refused_though_its_shapes_fit(tmp_path, tiny):
    _sam2_file(tmp_path / "deeper.pt", tiny, extra_blocks=1, starts_stage=False)
    with pytest.raises(InputError, match="another variant's: the model's last stage ends after block 4"):
        load_trunk(tiny, str(tmp_path / "deeper.pt"))


@pytest.mark.parametrize("change", ["missing", "misshapen"])
def test_an_incomplete_trunk_is_refused(tmp_path, tiny, change):
    name = "image_encoder.trunk.blocks.1.attn.qkv.weight"
    _sam2_file(tmp_path / "sam2.pt", tiny)
    content = torch.load(tmp_path / "sam2.pt", weights_only=True)
    if change == "missing":
        del content["model"][name]
    else:
        content["model"][name] = torch.zeros(2, 2)
    torch.save(content, tmp_path / "sam2.pt")
    with pytest.raises(InputError, match=rf"{change} +blocks\.1\.attn\.qkv\.weight"):
        load_trunk(tiny, str(tmp_path / "sam2.pt"))
