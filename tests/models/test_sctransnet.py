"""SCTransNet against the numbers of the published implementation, its parts and its files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sam_spl.data.known import IMAGENET_MEAN, dataset_file
from sam_spl.engine.config import OptimizerConfig
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.engine.optim import learning_rate
from sam_spl.models.registry import build_model
from sam_spl.models.sctransnet import SCTransNet, attend
from sam_spl.models.sctransnet_published import SCTRANSNET
from sam_spl.predict.predictor import load_network
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model, load_strict
from sam_spl.weights.published import from_published, to_published
from tests.conftest import GOLDEN, config_of, fill, golden_state
from tests.models.golden_training import published_steps

MAPS = ("out", "d0", "gt2", "gt3", "gt4", "gt5")
#: Published names of the stages whose outputs the golden file has -> ours.
STAGES = {"inc": "stem"} | {f"down_encoder{k + 1}": f"encoders.{k}" for k in range(4)}
STAGES |= {f"up_decoder{k + 1}": f"decoders.{k}" for k in range(4)}
UNUSED = ("position_embeddings", "_attn1", "_attn2", "_attn3", "_attn4")


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return golden_state("sctransnet")


@pytest.fixture
def golden(published) -> SCTransNet:
    model = build_model("sctransnet")
    load_strict(model, from_published(published, SCTRANSNET), "golden")
    return model


def test_maps_and_stages_equal_the_published_ones(golden, device):
    expected = {name: torch.from_numpy(x) for name, x in np.load(GOLDEN / "sctransnet_a.npz").items()}
    image = torch.from_numpy(fill.image("sctransnet/a", (1, 1, 128, 128))).to(device)
    golden.to(device).eval()
    with torch.no_grad():
        single = golden(image)
        given = {}
        for stage, ours in STAGES.items():
            golden.get_submodule(ours).register_forward_hook(
                lambda _, __, x, stage=stage: given.update({stage: x})
            )
        golden.transformer.register_forward_hook(
            lambda _, args, back: given.update(
                {f"mtc.{k}": r + x for k, (r, x) in enumerate(zip(back, args[0], strict=True))}
            )
        )
        double = golden.double()(image.double())
    for name, x, y in zip(MAPS, single, double, strict=True):
        # In float32 a CPU is 5e-5 off.
        atol = {"cpu": 5e-4, "cuda": 2e-3}[device]
        torch.testing.assert_close(x[..., ::4, ::4].cpu().double(), expected[name], atol=atol, rtol=0)
        torch.testing.assert_close(y[..., ::4, ::4].cpu(), expected[name], atol=1e-12, rtol=1e-9)
    prob = double[0].sigmoid()[..., ::4, ::4].cpu()
    torch.testing.assert_close(prob, expected["prob"], atol=1e-13, rtol=1e-9)
    assert {f"{stage}_stats" for stage in given} == {name for name in expected if name.endswith("_stats")}
    for stage, x in given.items():
        stats = torch.stack([x.mean(), x.std(), x.norm()]).cpu()
        torch.testing.assert_close(stats, expected[f"{stage}_stats"], atol=1e-12, rtol=1e-9)
        corner = x[:1, :8, :4, :4].cpu()
        torch.testing.assert_close(corner, expected[f"{stage}_corner"], atol=1e-12, rtol=1e-9)


def _zero_in_truth(name: str) -> bool:
    """Biases before a BatchNorm, and what reaches one through enlargement and convolution alone."""
    if name.startswith("mtc.encoder.encoder_norm"):
        return name.endswith("body.bias")
    before = (".conv1.bias", ".conv2.bias", ".shortcut.0.bias", ".conv.bias")
    return name.endswith(before)


def test_training_equals_the_published_one(golden, device):
    expected = json.loads((GOLDEN / "sctransnet_train.json").read_text())
    losses = []
    config = OptimizerConfig(name="adam", lr=1e-3, weight_decay=0)
    steps = published_steps(
        golden, "sctransnet", (2, 64), device=device, loss=SegmentationLoss(bce=1), optimizer=config
    )
    for step, (loss, gradients, norms) in enumerate(steps, 1):
        losses.append(loss)
        if step == 1:
            for name, norm in expected["grad_norms_first_step"].items():
                tolerance = {"abs": 1e-12} if _zero_in_truth(name) else {"rel": 1e-8}
                assert gradients[name] == pytest.approx(norm, **tolerance), name
            assert set(expected["without_gradient"]) == {
                name for name in expected["param_norms_after_1"] if name.endswith(UNUSED)
            }
            assert set(gradients) == set(expected["grad_norms_first_step"])
        for key in ("param_norms", "buffer_norms"):
            for name, norm in expected.get(f"{key}_after_{step}", {}).items():
                if not (_zero_in_truth(name) or name.endswith(UNUSED)):
                    assert norms[name] == pytest.approx(norm, rel=1e-8), name
    assert losses == pytest.approx(expected["losses"], rel=1e-9)


def test_names_shapes_and_counts_are_the_published_ones():
    manifest = json.loads((GOLDEN / "sctransnet_manifest.json").read_text())
    with torch.device("meta"):
        model = build_model("sctransnet")
    state = {**SCTRANSNET.unused({}), **model.state_dict()}
    ours = {
        name: [list(x.shape), str(x.dtype).removeprefix("torch.")]
        for name, x in to_published(state, SCTRANSNET).items()
    }
    assert ours == manifest
    unused = sum(x.numel() for x in SCTRANSNET.unused({}).values())
    assert (unused, sum(p.numel() for p in model.parameters())) == (122_944, 11_325_939 - 122_944)


def test_attention_is_that_of_each_level_by_itself():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 480, 5, 7, dtype=torch.float64)
    for level, x in zip((32, 64, 128, 256), attend(q, k, v), strict=True):
        start = {32: 0, 64: 32, 128: 96, 256: 224}[level]
        for image in range(2):
            query = q[image, start : start + level].reshape(level, 35)
            key = k[image].reshape(480, 35)
            score = (query / query.norm(dim=1, keepdim=True)) @ (key / key.norm(dim=1, keepdim=True)).T
            score = score / 480**0.5
            score = (score - score.mean()) / (score.var(correction=0) + 1e-5).sqrt()
            expected = (score.exp() / score.exp().sum(1, keepdim=True)) @ v[image].reshape(480, 35)
            torch.testing.assert_close(x[image], expected.reshape(level, 5, 7))


@pytest.mark.parametrize("size", [(32, 32), (45, 70)])
def test_any_size_is_padded_with_zeros_to_multiples_of_32(golden, size):
    image = torch.randn(1, 1, *size)
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    with torch.no_grad():
        for x, y in zip(golden.eval()(image), golden(padded), strict=True):
            torch.testing.assert_close(x, y[..., : size[0], : size[1]], rtol=0, atol=0)


def test_cost_is_linear_in_the_image():
    """But for linear layers, which see means of channels."""
    with torch.device("meta"):
        model = build_model("sctransnet").eval()

    def multiply_adds(height: int, width: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 1, height, width, device="meta"))
        flops = {str(name): value for name, value in counter.get_flop_counts()["Global"].items()}
        return sum(value for name, value in flops.items() if name != "aten.addmm") // 2

    # 10.49 G as published, less the 1x1 convolutions that here see tokens instead of their enlargement.
    saved = sum(
        width**2 * (side**2 - 16**2)
        for width, side in zip((32, 64, 128, 256), (256, 128, 64, 32), strict=True)
    )
    assert multiply_adds(256, 256) + saved == pytest.approx(10.49e9, rel=1e-3)
    # Each channel gate sees means alone, whatever the size.
    assert multiply_adds(512, 256) == pytest.approx(4 * multiply_adds(128, 256), rel=1e-5)


def test_the_recipes_rates_are_the_published_ones_but_for_an_epoch_around_the_warm_up():
    config = config_of("train", ["experiment=sctransnet_sirst3"])
    assert (config.trainer.epochs, config.trainer.batch_size, config.optimizer.name) == (1000, 16, "adam")
    assert (config.dataset.mean, config.dataset.std) == ([0.39632883], [0.13576316])
    for epoch in range(1000):
        rate = learning_rate(epoch, 1000, config.optimizer)
        if epoch < 10:
            published, near = 1e-3 * epoch / 10, 5.1e-5  # half a step of the warm-up
        else:
            done = max(epoch - 11, 0) / 990
            published, near = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * done)) / 2, 2e-6
        assert rate == pytest.approx(published, abs=near)


def test_it_starts_as_published():
    """Kaiming-normal weights everywhere, convolutions over channels too; BatchNorms near 1; LayerNorms 1."""
    torch.manual_seed(0)
    model = build_model("sctransnet")
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.weight.numel() > 5000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    gates = torch.cat([f.gate.weight.flatten() for b in model.transformer.blocks for f in b.feeds])
    assert gates.std().item() == pytest.approx((2 / 3) ** 0.5, rel=0.3)
    scales = torch.cat([m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert (scales.mean().item(), scales.std().item()) == pytest.approx((1, 0.02), rel=0.1)
    assert all((m.weight == 1).all() for m in model.modules() if isinstance(m, torch.nn.LayerNorm))


def test_head_bias_is_where_every_map_starts():
    torch.manual_seed(0)
    model = build_model("sctransnet", head_bias=-4.0)
    for head in (model.head, *model.sides):
        torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        for x in model.eval()(torch.randn(1, 1, 32, 32)):
            torch.testing.assert_close(x, torch.full_like(x, -4.0))


def test_published_files_are_read_and_written_bit_exact(published, tmp_path):
    named = {f"model.{name}": value for name, value in published.items()}
    torch.save({"epoch": 3, "state_dict": named, "total_loss": np.float64(0.1)}, tmp_path / "a.pth.tar")
    _, description = load_model(tmp_path / "a.pth.tar")
    assert description["arguments"] == {"head_bias": None}
    assert (description["model"], description["image_size"]) == ("sctransnet", None)
    assert "mean" not in description

    save_weights(tmp_path / "b.safetensors", read_weights(tmp_path / "a.pth.tar").state, description)
    assert load_model(tmp_path / "b.safetensors")[1] == description
    state = read_weights(tmp_path / "b.safetensors").state
    save_weights(tmp_path / "c.pth.tar", state, {}, names="published")
    back = torch.load(tmp_path / "c.pth.tar", weights_only=True)["state_dict"]
    assert back.keys() == named.keys()
    assert all(torch.equal(back[name], named[name]) for name in named)


def test_published_files_see_a_named_set_as_their_code_does(published, tmp_path, caplog):
    torch.save({"state_dict": published}, tmp_path / "a.pth.tar")

    def seen(settings):
        description = load_network(tmp_path / "a.pth.tar", settings)[1]
        return description["mean"], description["std"], description["image_size"]

    sirst = [101.06385040283203 / 255], [34.619606018066406 / 255], None
    assert seen(dataset_file("NUAA-SIRST")) == seen(dataset_file("SIRST3")) == sirst
    assert "taken as for SIRST: mean [0.39632" in caplog.messages[0]
    assert seen(dataset_file("NUDT-SIRST-Sea"))[0] == [43.62403869628906 / 255]
    assert seen({**dataset_file("SIRST"), "mean": [0.5], "std": [0.2]}) == ([0.5], [0.2], None)
    assert seen(dataset_file("IRSTDID-SKY"))[0] == list(IMAGENET_MEAN)  # unknown to the published code
    assert seen(None)[0] == list(IMAGENET_MEAN)
