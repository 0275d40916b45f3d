from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.models.hieradet_sam2 import HieraDet
from torch import nn

from sam_spl.errors import ConfigError
from sam_spl.models.hiera import Hiera, pad_with
from sam_spl.models.registry import build_model, model_file
from tests.conftest import TINY


@pytest.mark.parametrize("size", [(32, 32), (33, 95), (50, 64), (129, 40)])
def test_any_size_goes_in_and_comes_out_as_if_padded_by_repeating_the_edge(size):
    model = build_model("sam_spl_t", **TINY).eval()
    image = torch.randn(2, 3, *size)
    height, width = (-(-side // 32) * 32 for side in size)
    padded = F.pad(image, (0, width - size[1], 0, height - size[0]), mode="replicate")
    with torch.no_grad():
        for logits, reference in zip(model(image), model(padded), strict=True):
            assert logits.shape == (2, 1, *size)
            torch.testing.assert_close(logits, reference[..., : size[0], : size[1]])


@pytest.mark.parametrize(
    ("switches", "absent"),
    [
        ({"block": "vgg"}, "channel_attention"),
        ({"block": "dense"}, "channel_attention"),
        ({"use_sam_decoder": False}, "transformer"),
        ({"mutual_calibration": False}, "calibrate"),
        ({"stages": [1, 2, 2, 2], "window_spec": [4, 2, 3, 2], "use_sam_decoder": False}, "transformer"),
    ],
)
def test_ablation_switches_train_without_the_part_that_they_remove(switches, absent):
    model = build_model("sam_spl_t", **{**TINY, **switches})
    assert not [name for name, _ in model.named_parameters() if absent in name]
    logits = model(torch.randn(2, 3, 64, 64))
    sum(x.mean() for x in logits).backward()
    assert [tuple(x.shape) for x in logits] == [(2, 1, 64, 64)] * 3
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_the_frozen_trunk_stays_as_it_is_and_passes_gradients_to_the_prompts():
    model = build_model("sam_spl_t", **TINY, freeze_trunk=True).train()
    before = {name: value.clone() for name, value in model.encoder.trunk.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(x.square().mean() for x in model(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    after = model.encoder.trunk.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is not None and p.grad.any() for p in model.encoder.prompts[0][0].parameters())


@pytest.mark.parametrize("name", ["sam_spl_t", "sam_spl_s", "sam_spl_b"])
def test_the_trunk_equals_timms_though_it_projects_before_padding(name):
    config = model_file(name)["arguments"]
    keys = ("embed_dim", "num_heads", "stages", "window_spec", "global_att_blocks")
    arguments = {key: config[key] for key in keys}
    ours = Hiera(**arguments, pos_size=config["pos_size"]).eval().double()
    timm = HieraDet(
        **arguments,
        global_pos_size=tuple(config["pos_size"]),
        q_pool=len(config["stages"]) - 1,
        num_classes=0,
    )
    timm.double().load_state_dict({**timm.state_dict(), **ours.state_dict()})
    # A bias makes the padded positions matter.
    for block_a, block_b in zip(ours.blocks, timm.blocks, strict=True):
        bias = torch.randn_like(block_a.attn.qkv.bias)
        block_a.attn.qkv.bias.data.copy_(bias)
        block_b.attn.qkv.bias.data.copy_(bias)
    image = torch.randn(1, 3, 160, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = timm.eval().forward_intermediates(image, output_fmt="NHWC", intermediates_only=True)
        for a, b in zip(ours(image), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_position_window_that_does_not_divide_the_grid_is_cut_at_its_edge():
    trunk = Hiera(
        embed_dim=16, num_heads=1, stages=(1,), window_spec=(6,), global_att_blocks=(), pos_size=(1, 1)
    )
    nn.init.zeros_(trunk.patch_embed.proj.weight)
    nn.init.zeros_(trunk.patch_embed.proj.bias)
    tokens = trunk.embed(torch.zeros(1, 3, 32, 64))  # a grid of 8 x 16
    assert tokens.shape == (1, 8, 16, 16)
    window = (trunk.pos_embed_window + trunk.pos_embed).permute(0, 2, 3, 1)
    torch.testing.assert_close(tokens[:, 6:8, 12:16], window[:, :2, :4])


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (3, 0), (0, 2), (3, 2)])
def test_padding_windows_changes_no_bit_of_a_token_in_half_precision(rows, columns):
    tokens = torch.randn(2, 5, 4, 8, generator=torch.manual_seed(0)).bfloat16()
    bias = 100 + torch.randn(
        8, generator=torch.manual_seed(1)
    )  # adding and taking it away would round the tokens
    padded = pad_with(tokens, bias, rows, columns)
    assert padded.shape == (2, 5 + rows, 4 + columns, 8)
    assert torch.equal(padded[:, :5, :4], tokens)
    outside = torch.ones(5 + rows, 4 + columns, dtype=torch.bool)
    outside[:5, :4] = False
    assert (padded[:, outside] == bias.bfloat16()).all()


def test_head_bias_is_the_start_value_of_every_head():
    model = build_model("sam_spl_t", **TINY, head_bias=-4.0)
    assert [head.bias.item() for head in model.decoder.heads] == [-4.0] * 3


def test_initialisation_follows_the_recipe():
    torch.manual_seed(0)
    model = build_model("sam_spl_t")
    conv = model.encoder.guides[1].conv1.weight  # fan_in 192 * 9
    assert conv.std().item() == pytest.approx((2 / (192 * 9)) ** 0.5, rel=0.02)
    linear = model.decoder.source.transformer.layers[0].mlp[0].weight  # fan_in 256
    assert linear.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    scales = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=2e-3)
    assert scales.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.encoder.trunk.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sam_spl_x", {}, "Nearest: sam_spl_"),
        ("sam_spl_t", {"blok": "res"}, "Nearest: block"),
        ("sam_spl_t", {"block": "resnet"}, "not one of res, vgg, dense"),
        ("sam_spl_t", {"stages": [1, 2]}, "3 or 4 stages"),
        ("sam_spl_t", {"stages": 3}, r"model\.stages: 3 is not of the kind tuple\[int, \.\.\.\]"),
        ("sam_spl_t", {"pos_size": [7]}, r"model\.pos_size"),
        ("sam_spl_t", {"embed_dim": "abc"}, r"model\.embed_dim: 'abc' is not of the kind int"),
        ("sam_spl_t", {"embed_dim": True}, r"model\.embed_dim: True"),
        ("sam_spl_t", {"num_heads": 7}, "multiple of num_heads"),
        ("datransnet", {"head_bias": "low"}, r"model\.head_bias: 'low' is not of the kind float \| None"),
    ],
)
def test_unknown_names_and_arguments_say_what_there_is(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, **arguments)


def test_a_fault_inside_a_network_is_no_users_error(monkeypatch):
    def broken(self, *args, **kwargs):
        raise TypeError("a fault of ours")

    monkeypatch.setattr("sam_spl.models.sam_spl.Decoder.__init__", broken)
    with pytest.raises(TypeError, match="a fault of ours"):
        build_model("sam_spl_t", **TINY)
