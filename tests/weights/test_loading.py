from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf

import sam_spl
from sam_spl.errors import InputError
from sam_spl.models.datransnet import DATransNet
from sam_spl.models.datransnet_published import DATRANSNET
from sam_spl.models.registry import build_model
from sam_spl.models.sam_spl_published import SAM_SPL
from sam_spl.weights.formats import FORMAT, read_weights, save_weights
from sam_spl.weights.loading import load_model, load_strict
from sam_spl.weights.published import UNUSED, from_published, to_published
from sam_spl.weights.sam2 import load_trunk
from tests.conftest import GOLDEN, TINY, fill, golden_state


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return golden_state("t")


@pytest.fixture
def tiny() -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model("sam_spl_t", **TINY)


def _same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a
    )


def _sam2_file(path, model, extra_blocks=0, starts_stage=True):
    """A SAM 2 checkpoint around the model's own trunk, with neck tensors and deeper blocks as the real ones have."""
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


def test_weights_that_the_published_code_would_run_otherwise_are_not_exported(tmp_path):
    model = build_model("sam_spl_t", **TINY, num_heads=2)
    with pytest.raises(InputError, match=r"has num_heads 1, .* trained with 2"):
        save_weights(tmp_path / "p.pth", model.state_dict(), model.built_from, names="published")
    assert not list(tmp_path.iterdir())


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
        assert _same(model.state_dict(), other.state_dict())
        return
    with pytest.raises(InputError) as error:
        sam_spl.load_weights(model, tmp_path / "w.safetensors")
    assert _same(before, model.state_dict())
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
    assert _same(model.state_dict(), tiny.state_dict())
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


def test_published_files_are_known_to_be_of_the_published_variant(tmp_path, published, caplog):
    torch.save(published, tmp_path / "t.pth")
    with pytest.raises(InputError, match=r"window_spec \[8, 4, 14\], the model has \[8, 4, 7\]"):
        sam_spl.load_weights(build_model("sam_spl_t", window_spec=[8, 4, 7]), tmp_path / "t.pth")
    sam_spl.load_weights(build_model("sam_spl_t"), tmp_path / "t.pth")
    assert not caplog.messages


#: What is wrong, and words of the message.
MALFORMED = {
    "a list": ([1, 2], r"\[1, 2\] is no table"),
    "null": (None, "None is no table"),
    "text": ("hello", "'hello' is no table"),
    "model alone": ({"model": "sam_spl_t"}, "states model but not arguments"),
    "arguments alone": ({"arguments": {}}, "states arguments but not model"),
    "model of another kind": ({"model": 3, "arguments": {}}, "model is 3"),
    "unknown model": ({"model": "sam_spl_xxl", "arguments": {}}, "'sam_spl_xxl' is unknown. Nearest: sam_spl_"),
    "arguments as list": ({"model": "sam_spl_t", "arguments": [1]}, r"arguments is \[1\]"),
    "unknown argument": ({"model": "sam_spl_t", "arguments": {"blok": "res"}}, "Nearest: block"),
    "width as text": ({"model": "sam_spl_t", "arguments": {"embed_dim": "x"}}, "embed_dim: 'x' is not of the kind int"),
    "width below 0": ({"model": "sam_spl_t", "arguments": {"embed_dim": -96}}, "model.embed_dim: -96"),
    "stages as number": ({"model": "sam_spl_t", "arguments": {"stages": 3}}, "stages: 3 is not of the kind tuple"),
    "one stage": ({"model": "sam_spl_t", "arguments": {"stages": [1]}}, "3 or 4 stages"),
    "two windows": ({"model": "sam_spl_t", "arguments": {"window_spec": [8, 4]}}, "one window above 0 for each stage"),
    "a switch as text": ({"model": "sam_spl_t", "arguments": {"use_sam_decoder": "yes"}}, "is not of the kind bool"),
    "size null": ({"model": "datransnet", "arguments": {"train_size": None}}, "Give train_size=256"),
    "size zero": ({"model": "datransnet", "arguments": {"train_size": 0}}, "model.train_size: 0"),
    "size unsaid": ({"model": "datransnet", "arguments": {}}, "Give train_size=256"),
    **{f"image_size {size!r}": ({"image_size": size}, "image_size is") for size in (-5, 0, 1, 31, "x", 64.5, True)},
    "mean null": ({"mean": None, "std": [1.0]}, "mean is None"),
    "mean alone": ({"mean": [0.5]}, "states mean but not std"),
    "mean of text": ({"mean": ["0.5"], "std": [1.0]}, "mean is"),
    "mean not finite": ({"mean": [float("nan")], "std": [1.0]}, "'mean' is not JSON"),
    "std zero": ({"mean": [0.5], "std": [0]}, "std is"),
    "two lengths": ({"mean": [0.5], "std": [0.5] * 3}, "different numbers of values"),
    "two values": ({"model": "sam_spl_t", "arguments": TINY, "mean": [0.5] * 2, "std": [0.5] * 2}, "have 2 values"),
    "another's channels": ({"model": "sam_spl_t", "arguments": TINY, "in_channels": 1}, "in_channels is 1, the net"),
    **{
        f"global block {index}": (
            {"model": "sam_spl_t", "arguments": {**TINY, "global_att_blocks": [index]}},
            rf"global_att_blocks: \({index},\) needs blocks of the trunk, 0 to 4",
        )
        for index in (-1, 5, 99)
    },
    "unknown rule": ({"resize": "nearest"}, "resize is 'nearest', which needs to be one of pillow, opencv"),
    "rule as list": ({"resize": ["pillow"]}, "resize is"),
    "trained_on as text": ({"trained_on": "SIRST"}, "trained_on is"),
    **{
        f"{key} as {type(value).__name__}": ({"trained_on": {key: value}}, "trained_on is .* fingerprint text")
        for key in ("dataset", "lists", "fingerprint")
        for value in (["a"], {"a": "b"}, 3)
    },
    "sets of lists": ({"trained_on": {"sets": {"SIRST": ["a"]}}}, "trained_on is .* its sets a table of text"),
    "samples of lists": ({"trained_on": {"samples": {"SIRST": ["a"]}}}, "trained_on is .* its samples tables of text"),
    "settings as list": ({"settings": [1]}, "settings is"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_descriptions_end_in_one_line_that_names_the_file(tmp_path, tiny, suffix, case):
    description, message = MALFORMED[case]
    file = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save({"format": FORMAT, "model": tiny.state_dict(), "description": description}, file)
    else:
        metadata = {"sam_spl": json.dumps(description)}
        safetensors.torch.save_file(tiny.state_dict(), file, metadata=metadata)
    with pytest.raises(InputError, match=message) as error:
        load_model(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2, 2), b"a", {1, 2}, {(1, 2): 3}, {1: 2, "a": 3}, float("inf"), 1j],
    ids=["tensor", "bytes", "set", "tuple as key", "keys of two kinds", "inf", "complex"],
)
def test_what_results_could_not_repeat_is_refused_before_the_test(tmp_path, tiny, value):
    description = {**tiny.built_from, "note": ["fine", {"n": 1.5, "none": None}], "extra": {"deep": [value]}}
    torch.save({"format": FORMAT, "model": tiny.state_dict(), "description": description}, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"w\.pt: its description is malformed: 'extra' is not JSON \("
    ) as error:
        load_model(tmp_path / "w.pt")
    assert "\n" not in str(error.value)


def _no_json(path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, metadata={"sam_spl": "{hello"})


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.safetensors", _no_json, "no JSON"),
        (
            "w.pt",
            lambda path: torch.save({"format": FORMAT, "model": {"a": torch.zeros(1)}}, path),
            "lacks its descrip",
        ),
        ("w.pt", lambda path: torch.save({"format": FORMAT, "description": {}}, path), "holds no weights"),
        (
            "w.pt",
            lambda path: torch.save({"format": FORMAT, "model": 3, "description": {}}, path),
            "holds no weights",
        ),
        ("w.pt", lambda path: torch.save({"model": {1: torch.zeros(1)}}, path), "holds no weights"),
        ("w.pt", lambda path: torch.save({"a": torch.zeros(1)}, path), "does not say which network it is of"),
        (
            "w.pt",
            lambda path: torch.save({"encoder.trunk.blocks.x.y": torch.zeros(1)}, path),
            "does not say which",
        ),
    ],
)
def test_a_file_without_a_whole_description_ends_in_one_line(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)


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
        with pytest.raises(InputError, match=rf"mistyped    {name} {message}"):
            load(tmp_path / "w.pt")
    assert _same(before, tiny.state_dict())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_widths_are_taken(tmp_path, tiny, kind):
    torch.save({name: value.to(kind) for name, value in tiny.state_dict().items()}, tmp_path / "w.pt")
    model = build_model("sam_spl_t", **TINY)
    sam_spl.load_weights(model, tmp_path / "w.pt")
    assert _same(model.state_dict(), {n: v.to(kind).to(v.dtype) for n, v in tiny.state_dict().items()})


def test_tensors_without_one_shape_are_no_state_dict(tmp_path, tiny):
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    torch.save({**tiny.state_dict(), "decoder.heads.0.bias": nested}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="no plain state dict"):
        sam_spl.load_weights(tiny, tmp_path / "w.pt")


@pytest.mark.parametrize("nothing", ["", " "])
def test_no_name_is_not_the_current_folder(tmp_path, monkeypatch, nothing):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"^weights: no file is named\. Give a weights file or a run folder\.$"
    ):
        read_weights(nothing)
    with pytest.raises(InputError, match=r"\. is a folder without"):
        read_weights(".")


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
    assert next(
        iter(from_published({"image_encoder.trunk.promote_genertor.patchEmded.0.bias": 1}, SAM_SPL))
    ).startswith(UNUSED)
