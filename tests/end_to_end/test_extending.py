"""Networks, data sets, recipes, losses, augmentations and protocols of one's own; the toolkit from Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sam_spl
import sam_spl.config
from sam_spl import DatasetConfig, ModelConfig, OptimizerConfig, TestConfig, TrainConfig, TrainerConfig
from sam_spl.cli.main import run
from sam_spl.engine.losses import build_loss
from sam_spl.errors import ConfigError, InputError
from sam_spl.metrics import protocols_named
from sam_spl.results.runs import described
from tests.conftest import results_in, test, train, write_folder

CODE = """
from torch import nn
from sam_spl import Protocol
from sam_spl.data.transforms import Resize

class Net(nn.Module):
    in_channels = 1
    def __init__(self, width: int = 8):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1))
    def forward(self, image):
        return [self.layers(image)]

class Dice(nn.Module):
    def __init__(self, smooth: float = 1.0):
        super().__init__()
        self.smooth = smooth
    def forward(self, logits, mask):
        prob = logits[0].float().sigmoid()
        return 1 - (2 * (prob * mask).sum() + self.smooth) / (prob.sum() + mask.sum() + self.smooth)

def plain_resize(size, rule):
    return Resize(size, rule)

LENIENT = Protocol("lenient", empty=0.5)
"""


@pytest.fixture
def own(tmp_path) -> Iterator[Path]:
    """A folder of one's own: code, YAML files and images."""
    for group, name, text in (
        ("dataset", "mine", "name: mine\ntitle: Mine\naliases: [my-set]\nimage_size: 64\n"),
        (
            "model",
            "mynet",
            f"name: mynet\nnetwork: {tmp_path / 'code.py'}:Net\nrecipe: quick\narguments: {{width: 4}}\n",
        ),
        ("loss", "dice", f"name: {tmp_path / 'code.py'}:Dice\narguments: {{smooth: 2.0}}\n"),
        (
            "recipe",
            "quick",
            "# @package _global_\ndefaults:\n  - override /loss: bce_iou\n"
            "optimizer: {name: adamw, lr: 1e-3, eta_min: 0.0}\n"
            "trainer: {epochs: 1, batch_size: 4}\nmodel: {suggested: {head_bias: -4.0}}\n",
        ),
    ):
        (tmp_path / "configs" / group).mkdir(parents=True)
        (tmp_path / "configs" / group / f"{name}.yaml").write_text(text)
    (tmp_path / "code.py").write_text(CODE)
    write_folder(tmp_path / "data" / "Mine", 8, lists={"train": [0, 1, 2, 3, 4], "test": [5, 6, 7]})
    yield tmp_path
    sam_spl.config._own_folders.clear()


def test_code_and_files_of_ones_own_train_test_save_and_load(own, capsys):
    code, save = own / "code.py", own / "r"
    flags = [
        "--config_dir",
        own / "configs",
        "--dataset",
        "My-Set",
        "--data_path",
        own / "data",
        "--device",
        "cpu",
    ]
    named = ["--model", f"{code}:Net", "--loss", f"{code}:Dice", "--trainer.augment", f"{code}:plain_resize"]
    train([*flags, *named, "model.arguments={width:5}", "loss.smooth=3", "recipe=quick", "--save_dir", save])
    (row,) = map(json.loads, (save / "metrics.jsonl").read_text().splitlines())
    assert 0 < row["loss"] < 1  # of Dice
    output = capsys.readouterr().out
    assert "Mine: 5 train, 0 val, 3 test images" in output

    told = shlex.split(
        next(line for line in output.splitlines() if "Test with: " in line).partition("Test with: ")[2]
    )
    test([*told[2:], "--protocols", "native", f"{code}:LENIENT", "--device", "cpu"])
    result = results_in(save)
    assert result["weights"]["arguments"] == {"width": 5}
    assert list(result["protocols"]) == ["native", "lenient"]
    assert len(result["images"]) == 3

    capsys.readouterr()
    with pytest.raises(SystemExit):  # a file names no code that is then imported
        run(["test", *map(str, flags), "--weights", str(save)])
    assert "model=" in capsys.readouterr().err
    with pytest.raises(InputError, match="Name it yourself"):
        sam_spl.load(save, device="cpu")
    prob = sam_spl.load(save, device="cpu", network=f"{code}:Net")(
        own / "data" / "Mine" / "images" / "im_5.png"
    ).prob
    assert (prob.shape, prob.dtype.name) == ((48, 40), "float32")

    again = [*map(str, flags), "--resume", str(save), "--epochs", "2"]
    with pytest.raises(SystemExit):
        run(["train", *again])
    error = capsys.readouterr().err
    assert error.rstrip().endswith(f"model={code}:Net loss={code}:Dice trainer.augment={code}:plain_resize")
    other = own / "elsewhere" / "code.py"  # the same file from another folder
    other.parent.mkdir()
    other.write_text(CODE)
    named = [str(word).replace(str(code), str(other)) for word in named]
    train([*again, *named])
    assert str(other) in (save / "config.yaml").read_text()
    assert len((save / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_network_by_its_own_yaml_file_is_named_like_the_toolkits(own, capsys):
    flags = [
        "--config_dir",
        own / "configs",
        "--data_path",
        own / "data",
        "--device",
        "cpu",
        "--dataset",
        "mine",
    ]
    train(
        [
            *flags,
            "--model",
            "mynet",
            "model.width=6",
            "--loss",
            "dice",
            "test_on=[same]",
            "--save_dir",
            own / "r",
        ]
    )
    assert results_in(own / "r")["weights"]["model"] == "mynet"
    text = (own / "r" / "config.yaml").read_text()
    assert "width: 6" in text and "recipe: quick" in text and "smooth: 2.0" in text
    assert sam_spl.load(own / "r", device="cpu").model.built_from["arguments"] == {"width": 6}
    sam_spl.config._own_folders.clear()  # without --config_dir nobody knows the name
    with pytest.raises(InputError, match="mynet"):
        sam_spl.load(own / "r", device="cpu")


def test_a_file_of_ones_own_does_not_take_a_name_that_there_is(own):
    (own / "configs" / "dataset" / "sirst.yaml").write_text("name: sirst\ntitle: Another\n")
    with pytest.raises(ConfigError, match=r"sirst\.yaml, which is a name already"):
        sam_spl.add_config_folder(own / "configs")
    assert DatasetConfig.named("sirst").title == "SIRST"


def test_registered_objects_have_names(own, monkeypatch):
    from sam_spl.data.transforms import Resize

    class Halved(torch.nn.Module):
        def forward(self, logits, mask):
            return 0.5 * torch.nn.functional.binary_cross_entropy_with_logits(logits[0].float(), mask)

    for registry, name, entry in (
        (sam_spl.LOSSES, "halved", Halved),
        (sam_spl.AUGMENTATIONS, "squeeze", Resize),
        (sam_spl.PROTOCOLS, "nothing", sam_spl.Protocol("nothing", empty=0.0)),
    ):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        registry.register(name, entry)
        with pytest.raises(ConfigError, match="registered already"):
            registry.register(name, object())
    words = [
        "model=datransnet",
        "dataset=custom",
        f"dataset.data_path={own / 'data' / 'Mine'}",
        "dataset.image_size=64",
    ]
    config = sam_spl.compose("train", *words, "loss.name=halved", "trainer.augment=squeeze")
    assert (config.trainer.augment, config.recipe) == ("squeeze", "datransnet")
    assert isinstance(build_loss(config.loss), Halved)
    assert protocols_named(["native", "nothing"])[1].empty == 0.0


def test_training_and_testing_from_python(own, capsys):
    """The lines of the README."""
    mine = DatasetConfig.named("custom", data_path=str(own / "data" / "Mine"), image_size=64)
    trained = sam_spl.train(
        TrainConfig(
            model=ModelConfig.named("datransnet", train_size=64),
            dataset=mine,
            trainer=TrainerConfig(epochs=2, batch_size=4, val_share=0.2, augment="resize"),
            optimizer=OptimizerConfig(name="adamw", lr=1e-3),
            save_dir=str(own / "run"),
            device="cpu",
        )
    )
    assert trained.best == own / "run" / "best.safetensors"
    assert [row["epoch"] for row in trained.history] == [1, 2]
    result = sam_spl.test(TestConfig(weights=str(trained.best), dataset=mine, device="cpu"))
    assert result.scores["images"] == len(result.images) == 3
    assert json.loads((result.folder / "results.json").read_text())["scores"] == result.scores
    prob = sam_spl.load(trained.best, device="cpu")(own / "data" / "Mine" / "images" / "im_5.png").prob
    assert prob.shape == (48, 40)

    more = replace(trained.config, resume="auto", trainer=replace(trained.config.trainer, epochs=3))
    more = sam_spl.train(more)
    assert [row["epoch"] for row in more.history] == [1, 2, 3]


def test_a_command_line_in_python_is_the_same_configuration():
    words = ["model=datransnet", "dataset=sirst", "trainer.epochs=3"]
    config = sam_spl.compose("train", *words)
    assert (config.model.name, config.recipe, config.trainer.epochs) == ("datransnet", "datransnet", 3)
    assert config.dataset == DatasetConfig.named(
        "sirst", mean=[0.0], std=[1.0], native_test=True, resize="opencv"
    )


def test_baselines_of_another_library(tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    few = [
        "dataset=synthetic",
        "dataset.image_size=64",
        "dataset.synthetic={train: 4, val: 0, test: 2}",
        "device=cpu",
    ]
    words = [
        "model=smp",
        "model.arch=unet",
        "model.encoder=resnet18",
        "trainer.epochs=1",
        f"save_dir={tmp_path / 'r'}",
    ]
    train([*few, *words, "test_on=[same]"])
    result = results_in(tmp_path / "r")
    assert (result["weights"]["model"], result["weights"]["arguments"]["arch"]) == ("smp", "unet")
    assert described(result, "native")["model"] == "unet resnet18"
