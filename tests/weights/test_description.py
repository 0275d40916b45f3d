"""What files say of themselves, and what is refused of it."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from sam_spl.errors import InputError
from sam_spl.weights.formats import FORMAT
from sam_spl.weights.loading import load_model
from tests.conftest import TINY


def _of(model="sam_spl_t", *, channels=None, **arguments):
    """The description of a network."""
    return {"model": model, "arguments": arguments, **({"in_channels": channels} if channels else {})}


#: What is wrong, and words of the message.
MALFORMED = {
    "a list": ([1, 2], r"\[1, 2\] is not a table"),
    "null": (None, "None is not a table"),
    "text": ("hello", "'hello' is not a table"),
    "model alone": ({"model": "sam_spl_t"}, "states model but not arguments"),
    "arguments alone": ({"arguments": {}}, "states arguments but not model"),
    "model of another kind": ({"model": 3, "arguments": {}}, "model is 3"),
    "unknown model": (_of("sam_spl_xxl"), "'sam_spl_xxl' is unknown. Nearest: sam_spl_"),
    "arguments as list": ({"model": "sam_spl_t", "arguments": [1]}, r"arguments is \[1\]"),
    "unknown argument": (_of(blok="res"), "Nearest: block"),
    "width as text": (_of(embed_dim="x"), "embed_dim: 'x' is not of the kind int"),
    "width below 0": (_of(embed_dim=-96), "model.embed_dim: -96"),
    "stages as number": (_of(stages=3), "stages: 3 is not of the kind tuple"),
    "one stage": (_of(stages=[1]), "3 or 4 stages"),
    "two windows": (_of(window_spec=[8, 4]), "one window above 0 for each stage"),
    "a switch as text": (_of(use_sam_decoder="yes"), "is not of the kind bool"),
    "size null": (_of("datransnet", train_size=None), "Give train_size=256"),
    "size zero": (_of("datransnet", train_size=0), "model.train_size: 0"),
    "size unsaid": (_of("datransnet"), "Give train_size=256"),
    **{f"image_size {x!r}": ({"image_size": x}, "image_size is") for x in (-5, 0, 1, 31, "x", 64.5, True)},
    "mean null": ({"mean": None, "std": [1.0]}, "mean is None"),
    "mean alone": ({"mean": [0.5]}, "states mean but not std"),
    "mean of text": ({"mean": ["0.5"], "std": [1.0]}, "mean is"),
    "mean not finite": ({"mean": [float("nan")], "std": [1.0]}, "'mean' is not JSON"),
    "std zero": ({"mean": [0.5], "std": [0]}, "std is"),
    "two lengths": ({"mean": [0.5], "std": [0.5] * 3}, "different numbers of values"),
    "two values": ({**_of(**TINY), "mean": [0.5] * 2, "std": [0.5] * 2}, "have 2 values"),
    "another's channels": (_of(**TINY, channels=1), "in_channels is 1, the net"),
    **{
        f"global block {index}": (
            _of(**{**TINY, "global_att_blocks": [index]}),
            rf"global_att_blocks: \({index},\) needs blocks of the trunk, 0 to 4",
        )
        for index in (-1, 5, 99)
    },
    "unknown rule": ({"resize": "nearest"}, "resize is 'nearest', which needs to be one of pillow, opencv"),
    "rule as list": ({"resize": ["pillow"]}, "resize is"),
    "trained_on as text": ({"trained_on": "SIRST"}, "trained_on is"),
    **{
        f"{key} as {type(value).__name__}": ({"trained_on": {key: value}}, "lists and fingerprint text")
        for key in ("dataset", "lists", "fingerprint")
        for value in (["a"], {"a": "b"}, 3)
    },
    "sets of lists": ({"trained_on": {"sets": {"SIRST": ["a"]}}}, "its sets a table of text"),
    "samples of lists": ({"trained_on": {"samples": {"SIRST": ["a"]}}}, "its samples tables of text"),
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
        ("w.safetensors", _no_json, "not JSON"),
        (
            "w.pt",
            lambda path: torch.save({"format": FORMAT, "model": {"a": torch.zeros(1)}}, path),
            "has no description",
        ),
        ("w.pt", lambda path: torch.save({"format": FORMAT, "description": {}}, path), "holds no weights"),
        (
            "w.pt",
            lambda path: torch.save({"format": FORMAT, "model": 3, "description": {}}, path),
            "holds no weights",
        ),
        ("w.pt", lambda path: torch.save({"model": {1: torch.zeros(1)}}, path), "holds no weights"),
        ("w.pt", lambda path: torch.save({"a": torch.zeros(1)}, path), "does not state its network"),
        (
            "w.pt",
            lambda path: torch.save({"encoder.trunk.blocks.x.y": torch.zeros(1)}, path),
            "does not state its network",
        ),
    ],
)
def test_a_file_without_a_whole_description_ends_in_one_line(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)
