"""Weights into networks: all of a file or nothing, and the function that it was trained for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import sam_spl
from sam_spl.errors import InputError
from sam_spl.models.datransnet import DATransNet
from sam_spl.models.datransnet_published import DATRANSNET
from sam_spl.models.registry import build_model
from sam_spl.weights.formats import FORMAT, save_weights
from sam_spl.weights.loading import load_model, load_strict, load_weights
from sam_spl.weights.published import from_published
from tests.conftest import GOLDEN, TINY, fill
from tests.weights.conftest import same

#: Every argument of both networks, and another value of it.
OTHER = {
    "sam_spl_t": {
        "embed_dim": 32,
        "num_heads": 2,
        "stages": [2, 2, 2],
        "window_spec": [4, 4, 3],
        "global_att_blocks": [3],
        "pos_size": [5, 5],
        "block": "vgg",
        "use_sam_decoder": False,
        "mutual_calibration": False,
        "freeze_trunk": True,
        "head_bias": -4.0,
    },
    "datransnet": {"train_size": 512, "head_bias": -4.0},
}


SAME_FUNCTION = ("freeze_trunk", "head_bias")


def _small(name: str, **changes) -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model(name, **{**(TINY if name == "sam_spl_t" else {}), **changes})


@pytest.mark.parametrize("name", OTHER)
def test_every_argument_shows_in_the_shapes_or_is_declared_or_changes_nothing(name):
    first = _small(name)
    assert first.built_from["arguments"].keys() == OTHER[name].keys()
    for key, value in OTHER[name].items():
        other = _small(name, **{key: value})
        shapes = [{n: v.shape for n, v in model.state_dict().items()} for model in (first, other)]
        assert (shapes[0] == shapes[1]) == (key in (*first.not_in_shapes, *SAME_FUNCTION)), key


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, of in OTHER.items() for key in of])
def test_a_file_of_another_function_is_refused_with_both_values(tmp_path, name, key):
    model, other = _small(name), _small(name, **{key: OTHER[name][key]})
    save_weights(tmp_path / "w.safetensors", other.state_dict(), other.built_from)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    if key in SAME_FUNCTION:
        sam_spl.load_weights(model, tmp_path / "w.safetensors")
        assert same(model.state_dict(), other.state_dict())
        return
    with pytest.raises(InputError) as error:
        sam_spl.load_weights(model, tmp_path / "w.safetensors")
    assert same(before, model.state_dict())
    if key in model.not_in_shapes:
        theirs, own = (of.built_from["arguments"][key] for of in (other, model))
        assert (
            f"trained with {key} {theirs}, the model has {own}. Build the model with {key}={theirs}"
            in str(error.value)
        )
        with torch.no_grad():  # which is no small matter
            other.load_state_dict(model.state_dict())
            image = torch.rand(1, model.in_channels, 64, 64)
            assert not torch.equal(model.eval()(image)[0], other.eval()(image)[0])


def test_the_train_size_of_datransnet_changes_its_probabilities_by_hundredths(tmp_path):
    """So a file of 512 in a model of 256 cannot pass in silence."""
    manifest = json.loads((GOLDEN / "datransnet_manifest.json").read_text())
    state = {
        n: torch.from_numpy(np.asarray(fill.parameter(n, tuple(shape)))) for n, (shape, _) in manifest.items()
    }
    models = {size: build_model("datransnet", train_size=size).eval() for size in (256, 512)}
    image = torch.from_numpy(fill.image("datransnet/a", (2, 1, 256, 256)))[:1, :, :128, :128]
    for model in models.values():
        load_strict(model, from_published(state, DATRANSNET), "golden")
    with torch.no_grad():
        a, b = (model(image)[0].sigmoid() for model in models.values())
    assert (a - b).abs().max() > 0.01
    save_weights(tmp_path / "w.pt", models[512].state_dict(), models[512].built_from)
    with pytest.raises(InputError, match="trained with train_size 512, the model has 256"):
        sam_spl.load_weights(models[256], tmp_path / "w.pt")
    loaded, _ = load_model(tmp_path / "w.pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded(image)[0].sigmoid(), b, rtol=0, atol=0)
    with pytest.raises(InputError, match=r"trained with train_size 512, not 256\. Leave train_size= out"):
        load_model(tmp_path / "w.pt", train_size=256)


@pytest.mark.parametrize("kind", [list, tuple, OmegaConf.create])
def test_tuples_and_lists_of_equal_values_are_the_same_arguments(tmp_path, tiny, kind):
    save_weights(tmp_path / "w.safetensors", tiny.state_dict(), tiny.built_from)
    arguments = {key: kind(value) if isinstance(value, list) else value for key, value in TINY.items()}
    model = build_model("sam_spl_t", **arguments)
    sam_spl.load_weights(model, tmp_path / "w.safetensors")
    assert same(model.state_dict(), tiny.state_dict())
    assert json.loads(json.dumps(model.built_from)) == tiny.built_from


def test_a_network_built_without_the_registry_is_checked_as_well(tmp_path):
    model = _small("datransnet")
    save_weights(tmp_path / "w.pt", model.state_dict(), model.built_from)
    sam_spl.load_weights(DATransNet(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="trained with train_size 256, the model has 512"):
        sam_spl.load_weights(DATransNet(train_size=512), tmp_path / "w.pt")


def test_what_a_file_does_not_state_is_the_models_own_and_said(tmp_path, caplog):
    model = build_model("datransnet", train_size=512)
    save_weights(tmp_path / "p.pth.tar", model.state_dict(), model.built_from, names="published")
    sam_spl.load_weights(model, tmp_path / "p.pth.tar")
    assert caplog.messages == [
        f"{tmp_path / 'p.pth.tar'} does not state its train_size (512): the model's own is taken"
    ]


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
    assert "missing decoder.heads.1.bias (1,)" in text
    assert "unexpected extra.weight (2,)" in text
    assert "misshapen decoder.heads.0.bias (3,), the model has (1,)" in text
    assert same(before, tiny.state_dict())


#: What becomes of a tensor, and how the list of problems tells of it.
MISTYPED = {
    "sparse": (lambda x: x.to_sparse(), r"is not dense \(float32, sparse_coo, cpu\)"),
    "sparse rows": (lambda x: x.flatten(1).to_sparse_csr(), r"is not dense \(float32, sparse_csr, cpu\)"),
    "without values": (lambda x: x.to("meta"), r"is not dense \(float32, strided, meta\)"),
    "quantised": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        r"is not dense \(qint8, strided, cpu\)",
    ),
    "int64": (lambda x: x.long(), "is int64, the model has float32"),
    "bool": (lambda x: x > 0, "is bool, the model has float32"),
    "complex64": (lambda x: x.to(torch.complex64), "is complex64, the model has float32"),
    "8 bits": (lambda x: x.to(torch.float8_e4m3fn), "is float8_e4m3fn, the model has float32"),
    "NaN": (lambda x: x.where(x < x.max(), torch.nan), "has values that are not finite"),
    "inf": (lambda x: x.where(x < x.max(), torch.inf), "has values that are not finite"),
    "beyond float32": (lambda x: x.double() * 1e300, "has values that are not finite"),
}


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning"
)  # on the state of sparse and quantised
@pytest.mark.parametrize("case", MISTYPED)
def test_tensors_that_could_not_be_copied_as_they_are_are_listed_and_nothing_is_loaded(tmp_path, tiny, case):
    change, message = MISTYPED[case]
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    name = "decoder.heads.0.weight"
    state[name] = change(state[name])
    torch.save({"format": FORMAT, "model": state, "description": tiny.built_from}, tmp_path / "w.pt")
    for load in (load_model, lambda file: sam_spl.load_weights(tiny, file)):
        with pytest.raises(InputError, match=rf"mistyped {name} {message}"):
            load(tmp_path / "w.pt")
    assert same(before, tiny.state_dict())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_widths_are_taken(tmp_path, tiny, kind):
    torch.save({name: value.to(kind) for name, value in tiny.state_dict().items()}, tmp_path / "w.pt")
    model = build_model("sam_spl_t", **TINY)
    sam_spl.load_weights(model, tmp_path / "w.pt")
    assert same(model.state_dict(), {n: v.to(kind).to(v.dtype) for n, v in tiny.state_dict().items()})


def test_weights_of_another_network_name_both(tmp_path):
    file = save_weights(
        tmp_path / "w.safetensors",
        build_model("datransnet").state_dict(),
        {"model": "datransnet", "arguments": {}},
    )
    with pytest.raises(
        InputError, match=r"weights of datransnet, which do not fit mshnet\. Add model=datransnet"
    ):
        load_weights(build_model("mshnet"), file)
