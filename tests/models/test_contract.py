"""What every network of ``configs/model/`` keeps to."""

from __future__ import annotations

import pytest
import torch

from sam_spl.engine.losses import mask_of_size
from sam_spl.engine.trainer import smallest_batch
from sam_spl.models.registry import build_model, is_trainable, model_names, network_class
from sam_spl.weights.formats import save_weights
from sam_spl.weights.loading import load_model
from sam_spl.weights.published import UNUSED, declared, from_published, to_published


@pytest.fixture(params=model_names())
def model(request) -> torch.nn.Module:
    if request.param == "smp":
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    return build_model(request.param)


def test_it_trains_at_every_parameter_and_its_file_gives_the_same_logits(model, tmp_path):
    images = smallest_batch(model)
    image = torch.randn(images, model.in_channels, 64, 64)
    logits = model.train()(image)
    assert logits[0].shape == (images, 1, 64, 64)
    assert all(x.shape == (images, 1, x.shape[-1], x.shape[-1]) and 64 % x.shape[-1] == 0 for x in logits)
    if is_trainable(model):
        sum(x.square().mean() for x in logits).backward()
    assert is_trainable(model) is bool(list(model.parameters()))
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]

    save_weights(tmp_path / "w.safetensors", model.state_dict(), model.built_from)
    loaded, _ = load_model(tmp_path / "w.safetensors")
    odd = torch.randn(1, model.in_channels, 33, 70)
    with torch.no_grad():
        for ours, theirs in zip(model.eval()(odd), loaded(odd), strict=True):
            assert mask_of_size(torch.zeros(1, 1, 33, 70), ours.shape[-2:]).shape == ours.shape
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in model_names() if hasattr(network_class(n), "published")])
def test_its_published_names_come_back_and_mark_its_files_alone(name):
    published = network_class(name).published
    with torch.device("meta"):
        state = build_model(name, **published.arguments).state_dict()
    theirs = to_published({**published.unused(state), **state}, published)
    assert len(theirs) == len(state) + len(published.unused(state))
    assert {name for name in from_published(theirs, published) if not name.startswith(UNUSED)} == set(state)
    assert [one for one in declared() if one.own_mark in state] == [published]
    for one in declared():
        is_marked = all(any(name.startswith(mark) for name in theirs) for mark in one.marks)
        assert is_marked is (one is published)
