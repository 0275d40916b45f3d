"""What goes to Hugging Face's hub comes back the same, from the weights file alone."""

from __future__ import annotations

import json

import pytest
import torch

import sam_spl
from sam_spl.errors import InputError
from sam_spl.models.registry import build_model
from sam_spl.weights.formats import save_weights
from sam_spl.weights.loading import load_model
from tests.conftest import TINY

hub = pytest.importorskip("sam_spl.weights.hub")

ABOUT = {"mean": [0.4], "std": [0.2], "image_size": 64, "resize": "pillow", "threshold": 0.3}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder as the hub has it, of a network of this toolkit."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("something was unpickled"))
    torch.manual_seed(0)
    model = build_model("sam_spl_t", **TINY)
    file = save_weights(tmp_path / "w.safetensors", model.state_dict(), {**model.built_from, **ABOUT})
    hub.HubNetwork(*load_model(file)).save_pretrained(tmp_path / "folder")
    return tmp_path / "folder", model.eval()


def test_a_network_comes_back_with_its_logits_and_its_description(published):
    folder, model = published
    back = hub.HubNetwork.from_pretrained(folder)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(model(image), back(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not back.training
    assert {key: back.description[key] for key in ABOUT} == ABOUT
    assert back.description["model"] == "sam_spl_t"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_the_file_of_a_repository_is_a_weights_file(published):
    folder, model = published
    predict = sam_spl.load(folder / "model.safetensors", "cpu")
    assert (predict.image_size, predict.threshold) == (64, 0.3)
    for name, value in predict.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_the_card_says_how_the_weights_are_used_and_what_they_state(published):
    folder, _ = published
    card = (folder / "README.md").read_text()
    assert "# sam_spl_t\n" in card and "library_name: sam-spl" in card
    stated = card.split("```json\n")[1].split("\n```")[0]
    assert json.loads(stated)["threshold"] == 0.3


def test_the_configuration_beside_the_weights_decides_nothing(published, tmp_path):
    folder, _ = published
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was imported')!r}, 'w')\n")
    evil = {"model": f"{tmp_path / 'evil.py'}:Net", "description": {"threshold": 0.9}}
    (folder / "config.json").write_text(json.dumps({**evil, "network": evil["model"]}))
    back = hub.HubNetwork.from_pretrained(folder)
    assert back.description["threshold"] == 0.3
    assert not (tmp_path / "was imported").exists()


def test_a_folder_without_weights_is_refused_even_with_a_pickle(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no file .*model\.safetensors"):
        hub.HubNetwork.from_pretrained(tmp_path)


class Own(torch.nn.Module):
    """A network that no file of ``configs/model/`` names."""

    in_channels = 1

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.Conv2d(width, 1, 1)
        )

    def forward(self, image):
        return [self.layers(image)]


def test_a_network_of_your_own_is_named_by_you(tmp_path):
    model = build_model(Own, width=3)
    hub.HubNetwork(model, {**model.built_from, "mean": [0.0], "std": [1.0]}).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="code that is not imported because a file says so"):
        hub.HubNetwork.from_pretrained(tmp_path)
    back = hub.HubNetwork.from_pretrained(tmp_path, network=Own)
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(back(image)[0], model(image)[0], rtol=0, atol=0)
