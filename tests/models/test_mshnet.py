"""MSHNet against the numbers of the published implementation, and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sam_spl.engine.losses import SLS
from sam_spl.errors import ConfigError
from sam_spl.models.mshnet import MSHNet
from sam_spl.models.registry import build, build_model
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model, load_strict
from sam_spl.weights.published import from_published, to_published
from tests.conftest import GOLDEN, config_of, fill, golden_state
from tests.models.golden_training import assert_trains_as_published

#: Published names of the stages whose outputs the golden file has -> ours.
STAGES = {f"encoder_{k}": f"encoders.{k}" for k in range(4)} | {"middle_layer": "middle"}
STAGES |= {f"decoder_{k}": f"decoders.{k}" for k in range(4)}


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return golden_state("mshnet")


@pytest.fixture
def golden(published) -> MSHNet:
    model = build_model("mshnet")
    load_strict(model, from_published(published, MSHNet.published), "golden")
    return model


def test_maps_and_stages_equal_the_published_ones(golden, device):
    expected = {name: torch.from_numpy(x) for name, x in np.load(GOLDEN / "mshnet_a.npz").items()}
    image = torch.from_numpy(fill.image("mshnet/a", (1, 3, 128, 128))).to(device)
    golden.to(device).eval()
    with torch.no_grad():
        single = golden(image)
        given = {}
        for stage, ours in STAGES.items():
            golden.get_submodule(ours).register_forward_hook(
                lambda _, __, x, stage=stage: given.update({stage: x.cpu()})
            )
        double = golden.double()(image.double())
    for k, name in enumerate(("output", "mask0", "mask1", "mask2", "mask3")):
        # In float32 a CPU is 3e-5 off; with TF32 it would be a hundred times as much.
        atol = {"cpu": 1e-4, "cuda": 5e-4}[device]
        torch.testing.assert_close(single[k][..., ::4, ::4].cpu().double(), expected[name], atol=atol, rtol=0)
        torch.testing.assert_close(double[k][..., ::4, ::4].cpu(), expected[name], atol=1e-12, rtol=1e-9)
    for stage, x in given.items():
        stats = torch.stack([x.mean(), x.std(), x.norm()])
        torch.testing.assert_close(stats, expected[f"{stage}_stats"], atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(x[:1, :8, :4, :4], expected[f"{stage}_corner"], atol=1e-12, rtol=1e-9)
    assert given.keys() == STAGES.keys()


def test_names_shapes_and_counts_are_the_published_ones():
    manifest = json.loads((GOLDEN / "mshnet_manifest.json").read_text())
    with torch.device("meta"):
        model = build_model("mshnet")
    ours = {
        name: [list(x.shape), str(x.dtype).removeprefix("torch.")]
        for name, x in to_published(model.state_dict(), MSHNet.published).items()
    }
    assert ours == manifest
    assert sum(p.numel() for p in model.parameters()) == 4_065_513


def test_coarser_maps_have_the_sizes_that_a_mask_is_halved_to():
    with torch.no_grad():
        maps = build_model("mshnet").eval()(torch.zeros(1, 3, 45, 70))
    assert [tuple(x.shape[-2:]) for x in maps] == [(45, 70), (45, 70), (23, 35), (12, 18), (6, 9)]


def test_the_warm_up_trains_mask0_alone_and_evaluation_takes_the_whole_path():
    torch.manual_seed(0)
    model = build_model("mshnet", warm_epochs=2)
    image = torch.randn(2, 3, 32, 32)
    assert len(model.train()(image)) == 5  # built and loaded networks are past it
    with torch.no_grad():
        for epoch, maps in [(0, 1), (1, 1), (2, 5)]:
            model.set_epoch(epoch)
            assert len(model.train()(image)) == maps
            assert len(model.eval()(image)) == 5
        all_maps = model.eval()(image)
        model.set_epoch(0)
        model.encoders.eval(), model.middle.eval(), model.decoders.eval()
        vars(model)["training"] = True  # with the statistics of evaluation
        torch.testing.assert_close(model(image), all_maps[1:2])
    assert model.built_from["arguments"]["warm_epochs"] is None  # of no use to a file


def test_head_bias_is_where_every_map_starts():
    torch.manual_seed(0)
    model = build_model("mshnet", head_bias=-4)
    for head in model.mask_heads:
        torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        answer, *masks = model.eval()(torch.randn(1, 3, 32, 32))
    for x in (answer[..., 1:-1, 1:-1], *masks):  # at the edge the fusion sees the padding
        torch.testing.assert_close(x, torch.full_like(x, -4.0))


@pytest.mark.parametrize("wrong", [{"head_kernel": 2}, {"warm_epochs": -1}])
def test_arguments_that_it_cannot_have(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build_model("mshnet", **wrong)


def _forms(state):
    """The files that the published code and its users hand on."""
    yield {"state_dict": state}
    yield state
    yield {"net": state, "optimizer": {"state": {}}, "epoch": 7, "iou": np.float64(0.67)}
    yield {f"module.{name}": value for name, value in state.items()}


def test_published_files_are_read_and_written_bit_exact(published, tmp_path):
    image = torch.from_numpy(fill.image("mshnet/a", (1, 3, 32, 32)))
    answers = []
    for k, content in enumerate(_forms(published)):
        torch.save(content, tmp_path / f"{k}.pkl")
        model, description = load_model(tmp_path / f"{k}.pkl")
        assert description["arguments"] == {"warm_epochs": None, "head_kernel": 1, "head_bias": None}
        assert (description["mean"], description["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        assert (description["model"], description["image_size"]) == ("mshnet", 256)
        with torch.no_grad():
            answers.append(model(image)[0])
    assert all(torch.equal(x, answers[0]) for x in answers)

    save_weights(tmp_path / "ours.safetensors", read_weights(tmp_path / "2.pkl").state, description)
    state = read_weights(tmp_path / "ours.safetensors").state
    save_weights(tmp_path / "back.pkl", state, description, names="published")
    back = torch.load(tmp_path / "back.pkl", weights_only=True)["state_dict"]
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], published[name]) for name in back)


def test_a_file_tells_the_kernel_of_its_mask_heads(tmp_path):
    model = build_model("mshnet", head_kernel=3)
    save_weights(tmp_path / "w.pkl", model.state_dict(), {}, names="published")
    loaded, description = load_model(tmp_path / "w.pkl")
    assert description["arguments"]["head_kernel"] == 3
    assert torch.equal(loaded.mask_heads[0].weight, model.mask_heads[0].weight)


@pytest.mark.parametrize("phase", [None, "warm"])
def test_training_equals_the_published_one(golden, device, phase):
    loss = SLS()
    if phase == "warm":
        golden.warm_epochs = 6
    for part in (golden, loss):
        part.set_epoch(0 if phase == "warm" else 6)
    assert_trains_as_published(
        golden,
        "mshnet",
        device=device,
        loss=loss,
        optimizer=config_of("train", ["model=mshnet", "recipe=mshnet"]).optimizer,
        size=64,
        phase=phase,
        noisy=(".conv1.bias", ".conv2.bias", ".shortcut.0.bias"),
    )


def test_the_recipe_gives_network_and_loss_one_warm_up():
    for words, epochs in [([], 6), (["loss.warm_epochs=3"], 3), (["loss=bce"], 6), (["recipe=scratch"], 0)]:
        config = config_of("train", ["model=mshnet", "recipe=mshnet", *words])
        assert build(config.model).warm_epochs == epochs
    own = config_of("train", ["model=mshnet", "recipe=mshnet", "model.warm_epochs=2"])
    assert build(own.model).warm_epochs == 2
