"""Baselines of segmentation-models-pytorch, where it is installed; and what is said where it is not."""

from __future__ import annotations

import sys

import pytest
import torch

from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.weights.formats import save_weights
from sam_spl.weights.loading import load_model


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError, match=r'is not installed\. Run: pip install "sam-spl\[baselines\]"$'):
        build_model("smp")


@pytest.fixture
def smp():
    return pytest.importorskip("segmentation_models_pytorch")


def test_every_architecture_answers_at_the_inputs_size(smp):
    for arch in smp.MODEL_ARCHITECTURES_MAPPING:
        encoder = "tu-vit_tiny_patch16_224" if arch == "dpt" else "resnet18"
        model = build_model("smp", arch=arch, encoder=encoder, head_bias=-4.0).eval()
        for size in ((32, 32), (50, 133)):
            with torch.no_grad():
                (logits,) = model(torch.rand(1, 3, *size))
            assert logits.shape == (1, 1, *size), arch
        assert [p.item() for p in model.network.segmentation_head.parameters() if p.numel() == 1] == [-4.0], (
            arch
        )


def test_a_baseline_is_saved_and_loaded_like_any_network(smp, tmp_path):
    model = build_model("smp", arch="fpn")
    description = {**model.built_from, "mean": [0.5], "std": [0.2], "image_size": 64}
    save_weights(tmp_path / "w.safetensors", model.state_dict(), description)
    loaded, read = load_model(tmp_path / "w.safetensors")
    assert read == description
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), model.eval()(image), rtol=0, atol=0)


def test_weights_that_the_encoder_started_from_are_not_fetched_again(smp, monkeypatch):
    create = smp.create_model

    def started(*args, encoder_weights, **kwargs):
        assert encoder_weights == "imagenet"
        return create(*args, encoder_weights=None, **kwargs)

    monkeypatch.setattr(smp, "create_model", started)
    assert build_model("smp", encoder_weights="imagenet").built_from["arguments"]["encoder_weights"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "unit"}, r"model\.arch: 'unit' is unknown\. Nearest: unet"),
        ({"encoder": "resnet19"}, r"model\.encoder: 'resnet19' is unknown\. Nearest: .*resnet18"),
        ({"encoder": "tu-resnet19"}, "cannot be built"),
        ({"encoder_weights": "imagenot"}, "cannot be built .*imagenet"),
    ],
)
def test_what_the_library_does_not_have_is_named(smp, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_model("smp", **arguments)


def test_without_network_the_remedy_is_random_weights(smp, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(smp, "create_model", unreachable)
    with pytest.raises(InputError, match=r"fetched \(no route to host\)\. Set model\.encoder_weights=null"):
        build_model("smp", encoder_weights="imagenet")
