"""``sam-spl convert``: there and back, and what a converted file states."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sam_spl.cli.convert import COMMAND, ConvertConfig, convert
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model, built_from
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model
from tests.conftest import ROOT, TINY, golden_state


def test_conversion_round_trip_is_bit_exact(tmp_path, capsys):
    published = golden_state("sam_spl_t")
    torch.save({"model_state_dict": published}, tmp_path / "a.pth")
    a, b, c = (str(tmp_path / name) for name in ("a.pth", "b.safetensors", "c.pth"))
    convert(ConvertConfig(a, b, mean=[0.4228], std=[0.1295]))
    convert(ConvertConfig(b, c))
    back = torch.load(tmp_path / "c.pth", weights_only=True)
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], published[name]) for name in back)
    assert f"sam_spl_t, {len(published)} tensors, ours names" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "mean", "size"),
    [
        ({"dataset": "NUDT-SIRST"}, [0.422781] * 3, 256),
        ({"dataset": "IRSTD-1k", "image_size": 480}, [0.28450727] * 3, 480),
        ({"mean": [0.4], "std": [0.2]}, [0.4], 256),
        ({}, [0.485, 0.456, 0.406], 256),
    ],
)
def test_a_converted_file_states_the_input_of_the_set_or_of_the_options(
    tmp_path, caplog, options, mean, size
):
    torch.save(golden_state("sam_spl_t"), tmp_path / "a.pth")
    convert(ConvertConfig(str(tmp_path / "a.pth"), str(tmp_path / "b.pt"), **options))
    description = read_weights(tmp_path / "b.pt").description
    assert (description["mean"], description["image_size"], description["resize"]) == (mean, size, "pillow")
    assert "does not state its network's input" in caplog.messages[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.4]}, r"mean, std: \[0\.4\] and None are not valid, give both"),
        ({"mean": [0.4], "std": [0.0]}, "std above 0"),
        ({"mean": [0.4, 0.4], "std": [0.1]}, "as many values"),
        ({"mean": [float("nan")], "std": [0.2]}, "mean, std: .* are not valid"),
        ({"image_size": 0}, "image_size: 0 is not valid, must be at least 32 pixels"),
        ({"train_size": 8}, "train_size: 8 is not valid"),
        ({"to": "theirs"}, "to: theirs is not valid, choose one of auto, ours, published"),
    ],
)
def test_options_that_no_network_can_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ConvertConfig("a.pth", "b.pt", **options)


def test_a_normalisation_that_the_network_cannot_have_leaves_no_file(tmp_path):
    torch.save(golden_state("sam_spl_t"), tmp_path / "a.pth")
    config = ConvertConfig(str(tmp_path / "a.pth"), str(tmp_path / "b.pt"), mean=[0.4, 0.4], std=[0.2, 0.2])
    with pytest.raises(ConfigError, match="has 3 channel"):
        convert(config)
    assert not (tmp_path / "b.pt").exists()


def test_a_folder_is_no_target(tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder\. Give a file to write"):
        convert(ConvertConfig("a.pth", str(tmp_path)))


def test_weights_of_datransnet_need_their_training_size(tmp_path):
    model = build_model("datransnet")
    save_weights(tmp_path / "a.pth", model.state_dict(), model.built_from, names="published")
    with pytest.raises(InputError, match="Give train_size=256, or 512"):
        convert(ConvertConfig(str(tmp_path / "a.pth"), str(tmp_path / "b.pt")))
    convert(ConvertConfig(str(tmp_path / "a.pth"), str(tmp_path / "b.pt"), train_size=512))
    assert read_weights(tmp_path / "b.pt").description["arguments"]["train_size"] == 512


def test_help_needs_nothing_heavy():
    code = "import sys, sam_spl.cli.convert, sam_spl.cli.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
    assert (COMMAND.name, COMMAND.positional) == ("convert", ("source", "target"))


def test_half_stores_half_and_predicts_alike(tmp_path):
    tiny = build_model("sam_spl_t", **TINY)
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    statistics = {name: x for name, x in tiny.state_dict().items() if name.endswith("running_var")}
    for variance in statistics.values():
        variance.fill_(1e6)  # beyond float16
    description = {**built_from(tiny), "mean": [0.5], "std": [0.5], "image_size": 64, "resize": "pillow"}
    save_weights(whole, tiny.state_dict(), description)
    convert(ConvertConfig(str(whole), str(half), to="ours", half=True))
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    model, stated = load_model(half)
    assert stated == load_model(whole)[1]
    for name, value in model.state_dict().items():
        expected = tiny.state_dict()[name]
        assert value.dtype == expected.dtype
        assert name not in statistics or torch.equal(value, expected)
        torch.testing.assert_close(value, expected, rtol=2**-11, atol=2**-25)
    assert any(not torch.equal(value, tiny.state_dict()[name]) for name, value in model.state_dict().items())

    tiny.state_dict()["decoder.heads.0.bias"].fill_(1e6)
    save_weights(whole, tiny.state_dict(), description)
    with pytest.raises(InputError, match=r"half: decoder.heads.0.bias does not fit into float16"):
        convert(ConvertConfig(str(whole), str(half), to="ours", half=True))


def test_a_threshold_is_stated_and_replaces_a_calibrated_one(tmp_path):
    model = build_model("sam_spl_t", **TINY)
    about = {**built_from(model), "mean": [0.5], "std": [0.5], "image_size": 64, "resize": "pillow"}
    old = save_weights(
        tmp_path / "a.safetensors",
        model.state_dict(),
        about | {"threshold": 0.4, "calibration": {"budget": 0.1}},
    )
    for name, given, expected in (("b", 0.9, 0.9), ("c", None, 0.4)):
        convert(ConvertConfig(str(old), str(tmp_path / f"{name}.safetensors"), to="ours", threshold=given))
        description = read_weights(tmp_path / f"{name}.safetensors").description
        assert description["threshold"] == expected
        assert ("calibration" in description) is (given is None)
    with pytest.raises(ConfigError, match="threshold: 1"):
        ConvertConfig("a", "b", threshold=1.0)
