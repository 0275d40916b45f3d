from __future__ import annotations

import pickle

import pytest
import torch

import sam_spl
from sam_spl.errors import InputError
from sam_spl.models.checkpoints import load_model, load_trunk, read_weights, save_weights
from sam_spl.models.naming import UNUSED, from_published, to_published
from sam_spl.models.registry import build_model
from tests.conftest import TINY, golden_state


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return golden_state("t")


@pytest.fixture
def tiny() -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model("sam_spl_t", **TINY)


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def _sam2_file(path, model, extra_blocks=0, starts_stage=True):
    """A SAM 2 checkpoint around the model's own trunk, with neck tensors and deeper blocks as the real ones have."""
    trunk = to_published({f"encoder.trunk.{name}": value for name, value in model.encoder.trunk.state_dict().items()})
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


@pytest.mark.parametrize("form", ["plain", "checkpoint", "distributed"])
def test_published_weights_are_read_in_every_form_and_their_variant_is_recognised(tmp_path, published, form):
    state = published
    if form == "checkpoint":
        state = {"model_state_dict": published, "epoch": 7, "optimizer_state_dict": {}}
    if form == "distributed":
        state = {f"module.{name}": value for name, value in published.items()}
    torch.save(state, tmp_path / "w.pth")
    model, description = load_model(tmp_path / "w.pth", image_size=256)
    assert description["model"] == "sam_spl_t"
    ours = to_published(model.state_dict())
    assert all(torch.equal(ours[name], published[name]) for name in ours)


def test_the_name_table_is_a_bijection(published):
    ours = from_published(published)
    assert len(set(ours)) == len(published)
    assert not [name for name in ours if name.startswith("image_encoder.")]
    assert list(to_published(ours)) == list(published)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_conversion_there_and_back_is_bit_exact(tmp_path, published, suffix):
    torch.save(published, tmp_path / "published.pth")
    first = read_weights(tmp_path / "published.pth")
    save_weights(tmp_path / f"ours{suffix}", first.state, {"model": "sam_spl_t", "arguments": {}})
    second = read_weights(tmp_path / f"ours{suffix}")
    save_weights(tmp_path / "back.pth", second.state, {}, names="published")
    assert _same(torch.load(tmp_path / "back.pth", weights_only=True), published)
    load_model(tmp_path / f"ours{suffix}")  # the tensors that nothing uses do no harm


def test_weights_of_ours_convert_to_all_published_names(tmp_path, published):
    model = build_model("sam_spl_t")
    save_weights(tmp_path / "p.pth", model.state_dict(), {}, names="published")
    assert torch.load(tmp_path / "p.pth", weights_only=True).keys() == published.keys()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_saved_weights_describe_themselves_and_give_the_same_logits(tmp_path, tiny, suffix):
    description = {**tiny.built_from, "mean": [0.5] * 3, "std": [0.2] * 3, "image_size": 64}
    save_weights(tmp_path / f"w{suffix}", tiny.state_dict(), description)
    model, read = load_model(tmp_path / f"w{suffix}")
    assert read == description
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(image), tiny.eval()(image), rtol=0, atol=0)


def test_mismatches_are_listed_and_nothing_is_loaded(tmp_path, tiny):
    state = {name: torch.ones_like(value) for name, value in tiny.state_dict().items()}
    state["decoder.heads.0.bias"] = torch.zeros(3)
    state["extra.weight"] = torch.zeros(2)
    del state["decoder.heads.1.bias"]
    torch.save(state, tmp_path / "w.pt")
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    with pytest.raises(InputError) as error:
        sam_spl.load_weights(tiny, tmp_path / "w.pt")
    text = str(error.value)
    assert "missing     decoder.heads.1.bias (1,)" in text
    assert "unexpected  extra.weight (2,)" in text
    assert "misshapen   decoder.heads.0.bias (3,), the model has (1,)" in text
    assert _same(before, tiny.state_dict())


def test_sam2_weights_fill_the_trunk_and_freeze_it(tmp_path, tiny):
    trunk = _sam2_file(tmp_path / "sam2.pt", tiny, extra_blocks=2)
    load_trunk(tiny, str(tmp_path / "sam2.pt"))
    loaded = to_published({f"encoder.trunk.{n}": v for n, v in tiny.encoder.trunk.state_dict().items()})
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


def test_published_large_weights_want_one_head(tmp_path):
    with torch.device("meta"):
        model = build_model("sam_spl_l")
    torch.save({"image_encoder.inc0.0.0.bn1.bias": torch.zeros(1)}, tmp_path / "l.pth")
    with pytest.raises(InputError, match="num_heads=1"):
        sam_spl.load_weights(model, tmp_path / "l.pth")


class _Bomb:
    def __reduce__(self):
        return print, ("the bomb went off",)


def _bomb(path):
    path.write_bytes(pickle.dumps({"model": _Bomb()}))


def _zipped_bomb(path):
    torch.save({"model": _Bomb()}, path)


def _truncated(path):
    torch.save({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])


def _truncated_safetensors(path):
    save_weights(path, {"weight": torch.zeros(1000)}, {})
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pt", _bomb, "pickled code"),
        ("w.pt", _zipped_bomb, "pickled code"),
        ("w.pt", _truncated, "damaged, truncated"),
        ("w.safetensors", _truncated_safetensors, "damaged, truncated"),
        ("w.pt", lambda path: path.write_bytes(b""), "damaged, truncated"),
        ("w.pt", lambda path: path.write_text("hello"), "damaged, truncated"),
        ("w.pt", lambda path: torch.save([1, 2], path), "no weights"),
        ("w.pt", lambda path: torch.save({"a": 1}, path), "no plain state dict"),
        ("w.pt", lambda path: torch.save({1: torch.zeros(1)}, path), "no weights"),
        ("w.pt", lambda path: None, "no file"),
        ("w", lambda path: path.mkdir(), "without best.safetensors"),
    ],
)
def test_files_that_are_no_weights_end_in_one_message_and_run_nothing(tmp_path, capsys, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / name)
    assert "bomb went off" not in capsys.readouterr().out


def test_a_failed_write_leaves_neither_file_nor_remains(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_weights(tmp_path / "file" / "w.pt", tiny.state_dict(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_unused_tensors_keep_their_names():
    assert next(iter(from_published({"image_encoder.trunk.promote_genertor.patchEmded.0.bias": 1}))).startswith(UNUSED)
