"""DNANet against the numbers of the published implementation, and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sam_spl.data.known import dataset_file
from sam_spl.engine.losses import build_loss
from sam_spl.errors import ConfigError
from sam_spl.models.dnanet import DNANet
from sam_spl.models.registry import build_model
from sam_spl.predict.predictor import load_network
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model, load_strict
from sam_spl.weights.published import from_published, to_published
from tests.conftest import GOLDEN, config_of, fill, golden_state
from tests.models.golden_training import assert_trains_as_published


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return golden_state("dnanet")


@pytest.fixture
def golden(published) -> DNANet:
    model = build_model("dnanet")
    load_strict(model, from_published(published, DNANet.published), "golden")
    return model


def test_maps_and_nodes_equal_the_published_ones(golden, device):
    expected = {name: torch.from_numpy(x) for name, x in np.load(GOLDEN / "dnanet_a.npz").items()}
    image = torch.from_numpy(fill.image("dnanet/a", (1, 3, 128, 128))).to(device)
    golden.to(device).eval()
    nodes = {f"conv{i}_{j}": f"nodes.{i}_{j}" for i in range(5) for j in range(5 - i)}
    nodes["conv0_4_final"] = "fuse"
    with torch.no_grad():
        single = golden(image)
        given = {}
        for node, ours in nodes.items():
            golden.get_submodule(ours).register_forward_hook(
                lambda _, __, x, node=node: given.update({node: x.cpu()})
            )
        double = golden.double()(image.double())
    for k, name in enumerate(("output4", "output3", "output2", "output1")):
        # In float32 a CPU is 3e-5 off; with TF32 it would be a hundred times as much.
        atol = {"cpu": 1e-4, "cuda": 5e-4}[device]
        torch.testing.assert_close(single[k][..., ::4, ::4].cpu().double(), expected[name], atol=atol, rtol=0)
        torch.testing.assert_close(double[k][..., ::4, ::4].cpu(), expected[name], atol=1e-12, rtol=1e-9)
    compared = [node for node in nodes if f"{node}_stats" in expected]
    assert len(compared) == 10
    for node in compared:
        x = given[node]
        stats = torch.stack([x.mean(), x.std(), x.norm()])
        torch.testing.assert_close(stats, expected[f"{node}_stats"], atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(x[:1, :8, :4, :4], expected[f"{node}_corner"], atol=1e-12, rtol=1e-9)


def test_training_equals_the_published_one(golden, device):
    config = config_of("train", ["model=dnanet", "recipe=dnanet"])
    assert_trains_as_published(
        golden,
        "dnanet",
        device=device,
        loss=build_loss(config.loss),
        optimizer=config.optimizer,
        size=64,
        noisy=(".conv1.bias", ".conv2.bias", ".shortcut.0.bias"),
    )


def test_names_and_shapes_are_the_published_ones():
    manifest = json.loads((GOLDEN / "dnanet_manifest.json").read_text())
    with torch.device("meta"):
        model = build_model("dnanet")
    ours = {
        name: [list(x.shape), str(x.dtype).removeprefix("torch.")]
        for name, x in to_published(model.state_dict(), DNANet.published).items()
    }
    assert ours == manifest


@pytest.mark.parametrize(
    ("blocks", "channels", "count"),
    [
        ([2, 2, 2, 2], 3, 4_696_888),
        ([2, 2, 2, 2], 1, 4_696_568),
        ([1, 1, 1, 1], 3, 2_612_196),
        ([3, 4, 6, 3], 3, 8_792_702),
    ],
)
def test_variants_have_the_published_counts_and_their_files_tell_them(blocks, channels, count, tmp_path):
    model = build_model("dnanet", blocks=blocks, in_channels=channels)
    assert sum(p.numel() for p in model.parameters()) == count
    save_weights(tmp_path / "w.pth.tar", model.state_dict(), model.built_from, names="published")
    loaded, description = load_model(tmp_path / "w.pth.tar")
    assert description["arguments"] == {"blocks": blocks, "in_channels": channels, "head_bias": None}
    assert loaded.in_channels == channels
    with torch.no_grad():
        assert len(loaded(torch.zeros(1, channels, 32, 32))) == 4


def test_it_starts_as_published():
    torch.manual_seed(0)
    model = build_model("dnanet", head_bias=-4)
    for name, weight in model.named_parameters():
        if weight.ndim == 4 and weight.numel() > 2000:
            fan_in, fan_out = (weight[0].numel(), weight[:, 0].numel())
            assert weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.06), name
    assert [head.bias.item() for head in model.heads] == [-4] * 4


@pytest.mark.parametrize("wrong", [{"blocks": [2, 2, 2]}, {"blocks": [2, 2, 2, 0]}, {"in_channels": 2}])
def test_arguments_that_it_cannot_have(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build_model("dnanet", **wrong)


def test_published_files_are_read_and_written_bit_exact(published, tmp_path):
    content = {"epoch": 1499, "state_dict": published, "loss": 0.1, "mean_IOU": np.float64(0.886)}
    torch.save(content, tmp_path / "a.pth.tar")
    _, description = load_model(tmp_path / "a.pth.tar")
    assert (description["mean"], description["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (description["model"], description["image_size"]) == ("dnanet", 256)
    save_weights(tmp_path / "ours.safetensors", read_weights(tmp_path / "a.pth.tar").state, description)
    assert load_model(tmp_path / "ours.safetensors")[1] == description
    state = read_weights(tmp_path / "ours.safetensors").state
    save_weights(tmp_path / "back.pth.tar", state, description, names="published")
    back = torch.load(tmp_path / "back.pth.tar", weights_only=True)
    assert back.keys() == content.keys()
    assert back["state_dict"].keys() == published.keys()
    assert all(torch.equal(back["state_dict"][name], published[name]) for name in published)


def test_files_of_basicirstd_have_their_prefix_and_take_its_constants_of_a_named_set(tmp_path):
    model = build_model("dnanet", in_channels=1)
    save_weights(tmp_path / "w.pth.tar", model.state_dict(), model.built_from, names="published")
    content = torch.load(tmp_path / "w.pth.tar", weights_only=True)
    assert content.keys() == {"epoch", "state_dict", "total_loss"}
    assert content["state_dict"]["model.conv0_0.0.conv1.weight"].shape == (16, 1, 3, 3)
    loaded, description = load_model(tmp_path / "w.pth.tar")
    assert "mean" not in description
    assert (description["image_size"], description["resize"]) == (None, "pillow")
    description = load_network(tmp_path / "w.pth.tar", dataset_file("NUDT-SIRST"))[1]
    assert (description["mean"], description["std"]) == (
        [107.80905151367188 / 255],
        [33.02274703979492 / 255],
    )
    assert all(torch.equal(x, loaded.state_dict()[name]) for name, x in model.state_dict().items())
