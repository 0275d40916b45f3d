"""``sam-spl calibrate``: from held-out images to weights that state their threshold, and back into a test."""

from __future__ import annotations

import json

import pytest
import torch

from sam_spl.cli.main import execute
from sam_spl.errors import InputError
from sam_spl.models.registry import build_model, built_from
from sam_spl.predict.predictor import load_network
from sam_spl.weights.formats import save_weights
from tests.conftest import TINY, write_folder


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = build_model("sam_spl_t", **TINY)
    description = {**built_from(model), "mean": [0.5], "std": [0.5], "image_size": 64, "resize": "pillow"}
    return save_weights(tmp_path / "w.safetensors", model.state_dict(), description)


def test_weights_get_a_threshold_that_their_test_repeats(tmp_path, weights, capsys):
    images = write_folder(tmp_path / "held_out", 12)
    execute(["calibrate", str(weights), "--dataset", str(images), "--split", "all", "--budget", "0.5"])
    out = capsys.readouterr().out
    target = tmp_path / "w-calibrated.safetensors"
    assert f"{target} states it" in out
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


def test_images_that_trained_the_weights_promise_nothing(tmp_path, weights):
    images = write_folder(tmp_path / "held_out", 12)
    network = ["model=sam_spl_t", *[f"model.{key}={value}" for key, value in TINY.items()]]
    data = ["--dataset", "custom", "--data_path", str(images), "dataset.image_size=32"]
    how = ["model.trunk_weights=null", "recipe=scratch", "trainer.epochs=1"]
    execute(["train", *network, *data, *how, "--save_dir", str(tmp_path / "run")])
    asked = ["calibrate", str(tmp_path / "run"), "--dataset", str(images), "--budget", "0.5"]
    with pytest.raises(InputError, match=r"^split: these weights were trained on images that are among"):
        execute([*asked, "--split", "all"])
    assert not (tmp_path / "run" / "best-calibrated.safetensors").exists()
