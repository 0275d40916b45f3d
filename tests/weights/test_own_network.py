"""Weights of networks that a user brings: by reference, by class, with published names of their own."""

from __future__ import annotations

import sys

import pytest
import torch

import sam_spl
from sam_spl import config as configuration
from sam_spl.config import add_config_folder
from sam_spl.errors import InputError
from sam_spl.models.registry import build_model
from sam_spl.predict.predictor import load, load_network
from sam_spl.weights.formats import read_weights, save_weights
from sam_spl.weights.loading import load_model
from tests.conftest import TINY, golden_state

OWN = '''
import torch
from sam_spl.models.published import Published

class Mine(torch.nn.Module):
    in_channels = 1
    not_in_shapes = ("dilation",)
    published = Published(
        names=(("stem", "inc.0"), ("head", "stem")),
        marks=("inc.0.", "tail."),
        own_mark="tail.bias",
        describe=lambda state: {"model": "mine", "mean": [0.0], "std": [1.0]},
        arguments={"width": 2},
    )

    def __init__(self, width: int = 2, dilation: int = 1):
        super().__init__()
        self.dilation = dilation
        self.stem = torch.nn.Conv2d(1, width, 3, padding=dilation, dilation=dilation)
        self.head = torch.nn.Conv2d(width, 1, 1)
        self.tail = torch.nn.Conv2d(1, 1, 1)

    def forward(self, image):
        return [self.tail(self.head(self.stem(image)))]

class Wrapped(torch.nn.Module):
    """All of its names begin with model., as DATransNet's published files have it."""

    in_channels = 1

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Conv2d(1, 1, 1)

    def forward(self, image):
        return [self.model(image)]
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder of a module ``own_networks``, which can be imported and is not yet."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(configuration, "_own_folders", [])
    yield tmp_path
    sys.modules.pop("own_networks", None)


def _saved(folder, name="Mine", **arguments):
    model = build_model(f"own_networks:{name}", **arguments)
    save_weights(
        folder / "w.safetensors", model.state_dict(), {**model.built_from, "mean": [0.0], "std": [1.0]}
    )
    return model, folder / "w.safetensors"


def test_a_file_imports_no_network_that_nobody_named(own):
    _, file = _saved(own, width=3)
    del sys.modules["own_networks"]
    for read in (load_model, load_network, lambda one: load(one, "cpu")):
        with pytest.raises(
            InputError, match=r"its network is own_networks:Mine, code that is not imported .* model=own"
        ):
            read(file)
    assert "own_networks" not in sys.modules


@pytest.mark.parametrize("by", ["reference", "class"])
def test_the_network_that_is_named_is_built_with_the_files_arguments(own, by):
    model, file = _saved(own, width=3, dilation=2)
    network = "own_networks:Mine" if by == "reference" else type(model)
    loaded, description = load_model(file, network=network)
    assert description["arguments"] == {"width": 3, "dilation": 2}
    assert description["model"] == "own_networks:Mine"
    image = torch.randint(0, 256, (1, 1, 32, 32)) / 255
    with torch.no_grad():
        torch.testing.assert_close(loaded(image)[0], model(image)[0], rtol=0, atol=0)
    probability = load(file, "cpu", "fp32", network=network, image_size=None)(image[0, 0].numpy()).prob
    assert probability == pytest.approx(model(image)[0].sigmoid()[0, 0].detach().numpy(), abs=1e-6)
    with pytest.raises(InputError, match="trained with dilation 2, the model has 1"):
        sam_spl.load_weights(type(model)(width=3), file)


def test_a_plain_state_dict_needs_the_network_alone(own):
    model, _ = _saved(own)
    torch.save(model.state_dict(), own / "plain.pt")
    with pytest.raises(InputError, match="does not state its network"):
        load_model(own / "plain.pt")
    _, description = load_model(own / "plain.pt", network=type(model))
    assert description["arguments"] == {}


def test_names_of_a_described_file_stay_as_they_are(own):
    """``model.`` is DATransNet's prefix, which matters in its published files alone."""
    model, file = _saved(own, "Wrapped")
    assert load_model(file, network=type(model))[0].state_dict().keys() == model.state_dict().keys()
    torch.save(model.state_dict(), own / "plain.pt")
    assert list(read_weights(own / "plain.pt").state) == ["model.weight", "model.bias"]


def test_a_network_declares_its_published_names_and_no_other_table_takes_them(own):
    """Its names are partly ours and partly DATransNet's, with another meaning."""
    (own / "model").mkdir()
    (own / "model" / "mine.yaml").write_text(
        "name: mine\nnetwork: own_networks:Mine\narguments: {width: 2, dilation: 1}\n"
    )
    add_config_folder(own)
    model = build_model("mine")
    save_weights(own / "p.pth", model.state_dict(), model.built_from, names="published")
    published = torch.load(own / "p.pth", weights_only=True)
    assert list(published) == [
        "inc.0.weight",
        "inc.0.bias",
        "stem.weight",
        "stem.bias",
        "tail.weight",
        "tail.bias",
    ]
    loaded, description = load_model(own / "p.pth")
    assert (description["model"], description["mean"]) == ("mine", [0.0])
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())

    torch.save(golden_state("sam_spl_t"), own / "t.pth")  # and the tables of the others are for theirs
    assert load_model(own / "t.pth")[1]["model"] == "sam_spl_t"
    with pytest.raises(InputError, match=r"has dilation 1, these weights have 2"):
        save_weights(
            own / "q.pth", model.state_dict(), build_model("mine", dilation=2).built_from, names="published"
        )


def test_without_declared_names_there_is_no_published_file(own):
    model, _ = _saved(own, "Wrapped")
    with pytest.raises(InputError, match=r"own_networks:Wrapped declares no published names\. .*--to ours"):
        save_weights(own / "p.pth", model.state_dict(), model.built_from, names="published")


def test_arguments_that_no_network_has_are_a_mistake_in_the_call(tmp_path):
    model = build_model("sam_spl_t", **TINY)
    save_weights(tmp_path / "w.pt", model.state_dict(), model.built_from)
    load_model(tmp_path / "w.pt", train_size=256)  # another network's
    with pytest.raises(TypeError, match="Nearest: train_size"):
        load_model(tmp_path / "w.pt", trainsize=256)
    with pytest.raises(InputError, match="trained with num_heads 1, not 2"):
        load_model(tmp_path / "w.pt", num_heads=2)
