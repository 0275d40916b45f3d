"""Published weights: read, recognised, written bit by bit."""

from __future__ import annotations

import pytest
import torch

import sam_spl
from sam_spl.errors import InputError
from sam_spl.models.registry import build_model
from sam_spl.models.sam_spl_published import SAM_SPL
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model
from sam_spl.weights.published import UNUSED, from_published, identify, to_published
from tests.conftest import TINY
from tests.weights.conftest import same


@pytest.mark.parametrize("form", ["plain", "checkpoint", "distributed"])
def test_published_weights_are_read_in_every_form_and_their_variant_is_recognised(tmp_path, published, form):
    state = published
    if form == "checkpoint":
        state = {"model_state_dict": published, "epoch": 7, "optimizer_state_dict": {}}
    if form == "distributed":
        state = {f"module.{name}": value for name, value in published.items()}
    torch.save(state, tmp_path / "w.pth")
    model, description = load_model(tmp_path / "w.pth")
    assert description["model"] == "sam_spl_t"
    ours = to_published(model.state_dict(), SAM_SPL)
    assert all(torch.equal(ours[name], published[name]) for name in ours)


def test_the_name_table_is_a_bijection(published):
    ours = from_published(published, SAM_SPL)
    assert len(set(ours)) == len(published)
    assert not [name for name in ours if name.startswith("image_encoder.")]
    assert list(to_published(ours, SAM_SPL)) == list(published)


def test_unused_tensors_keep_their_names():
    assert next(
        iter(from_published({"image_encoder.trunk.promote_genertor.patchEmded.0.bias": 1}, SAM_SPL))
    ).startswith(UNUSED)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_conversion_there_and_back_is_bit_exact(tmp_path, published, suffix):
    torch.save(published, tmp_path / "published.pth")
    first = read_weights(tmp_path / "published.pth")
    save_weights(tmp_path / f"ours{suffix}", first.state, {"model": "sam_spl_t", "arguments": {}})
    second = read_weights(tmp_path / f"ours{suffix}")
    save_weights(tmp_path / "back.pth", second.state, {}, names="published")
    assert same(torch.load(tmp_path / "back.pth", weights_only=True), published)
    load_model(tmp_path / f"ours{suffix}")  # the tensors that nothing uses do no harm


def test_weights_of_ours_convert_to_all_published_names(tmp_path, published):
    model = build_model("sam_spl_t")
    save_weights(tmp_path / "p.pth", model.state_dict(), {}, names="published")
    assert torch.load(tmp_path / "p.pth", weights_only=True).keys() == published.keys()


def test_weights_that_the_published_code_would_run_otherwise_are_not_exported(tmp_path):
    model = build_model("sam_spl_t", **TINY, num_heads=2)
    with pytest.raises(InputError, match=r"has num_heads 1, these weights have 2"):
        save_weights(tmp_path / "p.pth", model.state_dict(), model.built_from, names="published")
    assert not list(tmp_path.iterdir())


def test_published_files_are_known_to_be_of_the_published_variant(tmp_path, published, caplog):
    torch.save(published, tmp_path / "t.pth")
    with pytest.raises(InputError, match=r"window_spec \[8, 4, 14\], the model has \[8, 4, 7\]"):
        sam_spl.load_weights(build_model("sam_spl_t", window_spec=[8, 4, 7]), tmp_path / "t.pth")
    sam_spl.load_weights(build_model("sam_spl_t"), tmp_path / "t.pth")
    assert not caplog.messages


def test_published_large_weights_want_one_head(tmp_path):
    with torch.device("meta"):
        model = build_model("sam_spl_l")
    torch.save({"image_encoder.inc0.0.0.bn1.bias": torch.zeros(1)}, tmp_path / "l.pth")
    with pytest.raises(InputError, match="num_heads=1"):
        sam_spl.load_weights(model, tmp_path / "l.pth")


def test_a_prefix_is_dropped_only_where_every_name_has_it():
    mixed = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert identify(mixed) == (mixed, None)
    assert list(identify({"module.a": mixed["b"]})[0]) == ["a"]


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model.", "model.module."])
def test_what_wraps_a_published_network_is_dropped_from_its_names(published, prefix):
    named, known = identify({f"{prefix}{name}": value for name, value in published.items()})
    assert known is SAM_SPL
    assert named == from_published(published, SAM_SPL)
