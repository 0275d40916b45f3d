"""``sam-spl calibrate``: from held-out images to weights that state their threshold, and back into a test."""

from __future__ import annotations

import json

import pytest
import torch

from sam_spl.cli.main import execute
from sam_spl.engine import testing
from sam_spl.errors import InputError
from sam_spl.models.registry import build_model, built_from
from sam_spl.predict.predictor import load_network
from sam_spl.weights.formats import read_weights, save_weights
from tests.cli.test_predict import BRIGHT
from tests.conftest import TINY, write_folder


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = build_model("sam_spl_t", **TINY)
    description = {**built_from(model), "mean": [0.5], "std": [0.5], "image_size": 64, "resize": "pillow"}
    return save_weights(tmp_path / "w.safetensors", model.state_dict(), description)


def test_weights_get_a_threshold_that_their_test_repeats(tmp_path, weights, capsys):
    images = write_folder(tmp_path / "held_out", 12)
    images_of = ["--dataset", str(images), "--split", "all"]
    execute(["calibrate", str(weights), *images_of, "--budget", "0.5", "--precision", "fp32"])
    out = capsys.readouterr().out
    target = tmp_path / "w-calibrated.safetensors"
    assert f"{target} states it" in out
    assert "With 95 % confidence (one-sided) at most" in out and "is not covered" in out
    model, description = load_network(target)
    about = description["calibration"]
    assert description["threshold"] == about["threshold"]
    assert (about["images"], about["budget"], about["split"]) == (12, 0.5, "all")
    assert about["alarmed"] <= 2  # of 12; three would bound the share by 0.53
    for name, value in load_network(weights)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value)

    where = ["--dataset", "custom", "--data_path", str(images), "--split", "all"]
    execute(["test", "--weights", str(target), *where, "--save_dir", str(tmp_path / "t"), "--report", "0"])
    told = json.loads((tmp_path / "t" / "results.json").read_text())["at_threshold"]
    assert told["threshold"] == about["threshold"]
    assert told["detected"] == about["detected"]
    assert told["alarmed"] <= about["alarmed"] / 12
    assert "of these weights: " in capsys.readouterr().out


def test_images_that_trained_the_weights_are_left_out(tmp_path, capsys, monkeypatch):
    """And a set of nothing else is refused before anything is predicted."""
    images = write_folder(tmp_path / "mine", 20, lists={"train": range(10), "test": range(10, 20)})
    network = ["model=sam_spl_t", *[f"model.{key}={value}" for key, value in TINY.items()]]
    data = [
        "--dataset",
        "custom",
        "--data_path",
        str(images),
        "dataset.image_size=32",
        "trainer.val_share=0.6",
    ]
    how = ["model.trunk_weights=null", "recipe=scratch", "trainer.epochs=1", "seed=3"]
    execute(["train", *network, *data, *how, "--save_dir", str(tmp_path / "run")])
    asked = ["calibrate", str(tmp_path / "run"), "--dataset", str(images), "--budget", "0.5"]
    capsys.readouterr()
    execute([*asked, "--split", "all"])
    told = capsys.readouterr().out
    assert "note: 4 of the images were left out: these weights were trained on them" in told
    assert "note: 6 of the images chose these weights" in told
    about = load_network(tmp_path / "run/best-calibrated.safetensors")[1]["calibration"]
    assert (about["images"], about["chose_weights"]) == (16, 6)
    execute([*asked, "--split", "test"])
    assert "note:" not in capsys.readouterr().out

    monkeypatch.setattr(testing, "count", None)
    with pytest.raises(InputError, match=r"^split: these weights were trained on all of the 4 train images"):
        execute([*asked, "--split", "train"])
    with pytest.raises(InputError, match=r"budget: 10 images without any false alarm promise 0\.259"):
        execute([*asked[:-1], "0.2", "--split", "test"])
    with pytest.raises(InputError, match="cannot write"):
        execute([*asked, "--split", "test", "--output", str(images)])


def test_a_test_with_other_settings_says_that_the_promise_is_not_for_them(tmp_path, weights, capsys):
    images = write_folder(tmp_path / "held_out", 12)
    images_of = ["--dataset", str(images), "--split", "all"]
    execute(["calibrate", str(weights), *images_of, "--budget", "0.5", "--precision", "fp32"])
    target = tmp_path / "w-calibrated.safetensors"
    about = load_network(target)[1]["calibration"]["settings"]
    assert about == {"range": "full", "image_size": 64, "tile": None, "tta": False, "precision": "float32"}
    assert "do not state what they were trained on" in capsys.readouterr().out
    where = ["--dataset", "custom", "--data_path", str(images), "--split", "all", "--report", "0"]
    asked = ["test", "--weights", str(target), *where, "--save_dir", str(tmp_path / "t")]
    execute(asked)
    told = capsys.readouterr().out
    assert "calibrated with other settings" not in told
    assert "the threshold of these weights was chosen on these images" in told
    execute([*asked, "--image_size", "32", "--precision", "bf16"])
    told = " ".join(capsys.readouterr().out.split())
    assert "image_size 32 (there 64), precision bfloat16 (there float32). Its promise does not cover" in told


def test_weights_of_a_network_of_ones_own_are_calibrated(tmp_path):
    (tmp_path / "bright.py").write_text(BRIGHT)
    network = f"{tmp_path}/bright.py:Bright"
    model = build_model(network)
    described = {"mean": [0.0], "std": [1.0], "image_size": None, "resize": "pillow"}
    save_weights(tmp_path / "w.safetensors", model.state_dict(), {**model.built_from, **described})
    images = write_folder(tmp_path / "held_out", 12)  # targets of 220, all else below 60
    asked = ["calibrate", str(tmp_path / "w.safetensors"), "--dataset", str(images), "--split", "all"]
    execute([*asked, "--budget", "0.3", "--model", network, "--precision", "fp32"])
    about = read_weights(tmp_path / "w-calibrated.safetensors").description["calibration"]
    assert (about["detected"], about["targets"], about["alarmed"]) == (12, 12, 0)
