"""Networks by name, by reference, and their configuration."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from sam_spl import config as configuration
from sam_spl.config import add_config_folder, group_files, read
from sam_spl.errors import ConfigError
from sam_spl.models.registry import (
    ModelConfig,
    build,
    build_model,
    model_file,
    model_names,
    network_class,
)
from tests.conftest import ROOT, TINY

OWN = '''
from __future__ import annotations
from typing import TYPE_CHECKING
import torch
if TYPE_CHECKING:
    from nowhere import Kind

class Mine(torch.nn.Module):
    in_channels = 1

    def __init__(self, width: int, sides: tuple[int, int] = (1, 2), kind: Kind | None = None, head_bias=None):
        super().__init__()
        self.conv, self.sides, self.head_bias = torch.nn.Conv2d(1, width, 1), sides, head_bias

    def forward(self, image):
        return [self.conv(image).mean(1, keepdim=True)]

class Blind(torch.nn.Module):
    """No in_channels."""

thing = 3
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file with a network of a user's."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.setattr(configuration, "_own_folders", [])
    return f"{tmp_path / 'mine.py'}:Mine"


@pytest.mark.parametrize("name", model_names())
def test_every_model_file_is_complete_and_in_order(name):
    file = model_file(name)
    order = [
        "name",
        "network",
        "recipe",
        "recipe_without_trunk_weights",
        "trunk_weights",
        "trunk_file",
        "hub",
    ]
    assert list(file) == [key for key in [*order, "arguments"] if key in file]
    assert file["name"] == name
    assert file["recipe"] in group_files("recipe")
    assert issubclass(network_class(name), nn.Module)
    assert (ROOT / "configs" / "model" / f"{name}.yaml").read_text().startswith("# ")


def test_the_configuration_of_a_name_is_its_files():
    config = ModelConfig.named("sam_spl_t", block="vgg")
    assert (config.trunk_weights, config.arguments["block"]) == ("auto", "vgg")
    assert config.arguments == {**model_file("sam_spl_t")["arguments"], "block": "vgg"}
    assert read(ModelConfig, {"name": "datransnet"}).arguments == {}


def test_the_configuration_alone_imports_no_torch():
    code = "import sys; from sam_spl.models.registry import ModelConfig; ModelConfig.named('sam_spl_t'); "
    words = [sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"]
    assert subprocess.run(words, cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "sam_spl_x"}, "model: 'sam_spl_x' is unknown. Nearest: sam_spl_"),
        ({"name": "sam_spl_t", "arguments": {"blok": "res"}}, r"model\.blok: .* Nearest: block"),
        ({"nam": "sam_spl_t"}, "model.nam: no such key. Nearest: name"),
    ],
)
def test_a_configuration_checks_itself(values, message):
    with pytest.raises(ConfigError, match=message):
        read(ModelConfig, values, "model")


def test_a_configuration_imports_no_reference_before_it_is_built():
    config = read(ModelConfig, {"name": "nowhere.at_all:Net", "arguments": {"width": 3}})  # from a file, say
    with pytest.raises(ConfigError, match="cannot be imported"):
        build(config)


def test_what_a_recipe_suggests_is_taken_where_the_network_has_it_and_nothing_else_is_said(own):
    def bias(config: ModelConfig) -> float:
        return build(config).built_from["arguments"]["head_bias"]

    suggested = {"head_bias": -4.0, "colour": "red"}
    assert bias(ModelConfig("sam_spl_t", dict(TINY), suggested)) == -4.0
    assert bias(ModelConfig("sam_spl_t", {**TINY, "head_bias": -1.0}, suggested)) == -1.0
    assert bias(ModelConfig.named("sam_spl_t", **TINY)) is None
    assert bias(ModelConfig(own, {"width": 2}, suggested)) == -4.0


def test_a_reference_names_a_network_of_ones_own(own):
    model = build_model(own, width=3, sides=(4, 5))
    assert model(torch.zeros(1, 1, 8, 8))[0].shape == (1, 1, 8, 8)
    assert model.built_from == {"model": own, "arguments": {"width": 3, "sides": [4, 5]}}
    by_class = build_model(type(model), width=3)
    assert by_class.built_from["model"].endswith(":Mine")


@pytest.mark.parametrize(
    ("of", "arguments", "message"),
    [
        ("Mine", {"widht": 3}, r"model\.widht: .* Nearest: width"),
        ("Mine", {}, r"missing a required argument: 'width'. Give it as model\.NAME=VALUE\."),
        ("Blind", {}, "has no in_channels. Set it"),
        ("thing", {}, "thing is not a network. Give a class"),
        ("Mein", {}, "Nearest: Mine"),
    ],
)
def test_a_reference_that_does_not_fit_says_why(own, of, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_model(own.replace(":Mine", f":{of}"), **arguments)


def test_values_of_another_kind_are_refused_in_each_place_of_a_tuple(tmp_path):
    (tmp_path / "pair.py").write_text(
        "import torch\nclass Pair(torch.nn.Module):\n    in_channels = 1\n"
        "    def __init__(self, pair: tuple[int, str]): super().__init__()\n"
    )
    build_model(f"{tmp_path / 'pair.py'}:Pair", pair=(1, "a"))
    with pytest.raises(ConfigError, match=r"model\.pair: \[1, 2\] is not of the kind"):
        build_model(f"{tmp_path / 'pair.py'}:Pair", pair=(1, 2))


def test_a_folder_of_ones_own_adds_a_name_whose_file_lies_beside_the_class(own, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "model" / "mine.py")
    (tmp_path / "model" / "mine.yaml").write_text(
        "name: mine\nnetwork: mine.py:Mine\narguments: {width: 2}\n"
    )
    add_config_folder(tmp_path)
    assert "mine" in model_names()
    assert build_model("mine").built_from == {"model": "mine", "arguments": {"width": 2}}
    with pytest.raises(ConfigError, match="has no such argument"):
        build_model("mine", sides=[1, 2])
