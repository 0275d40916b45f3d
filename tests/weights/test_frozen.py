"""A ``last.pt`` that leaves its frozen trunk to a file beside it."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from sam_spl.errors import InputError
from sam_spl.models.registry import build_model
from sam_spl.weights.formats import FORMAT, read_weights, sha256
from sam_spl.weights.loading import load_model
from tests.conftest import TINY


@pytest.fixture
def run(tmp_path):
    """A model, and what its run folder holds: last.pt without the trunk, and the trunk."""
    model = build_model("sam_spl_t", **TINY, freeze_trunk=True)
    trunk = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.trunk.")}
    safetensors.torch.save_file(trunk, tmp_path / "trunk.safetensors")
    rest = {name: value for name, value in model.state_dict().items() if name not in trunk}
    content = {
        "format": FORMAT,
        "model": rest,
        "ema": {name: value + 1 for name, value in rest.items()},
        "frozen": {"file": "trunk.safetensors", "sha256": sha256(tmp_path / "trunk.safetensors")},
        "description": model.built_from,
    }
    return model, content, tmp_path


def _write(folder, content):
    torch.save(content, folder / "last.pt")
    return folder / "last.pt"


@pytest.mark.parametrize("averaged", [False, True])
def test_the_frozen_trunk_is_read_from_beside(run, averaged):
    model, content, folder = run
    file = _write(folder, content if averaged else {**content, "ema": None})
    loaded, _ = load_model(folder)
    for name, value in model.state_dict().items():
        expected = value + 1 if averaged and not name.startswith("encoder.trunk.") else value
        assert torch.equal(loaded.state_dict()[name], expected), name
    assert read_weights(file).frozen_trunk


def _missing(folder, content):
    (folder / "trunk.safetensors").unlink()


def _another(folder, content):
    safetensors.torch.save_file({"encoder.trunk.pos_embed": torch.zeros(1)}, folder / "trunk.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _missing,
            r"last\.pt: its frozen weights are in .*trunk\.safetensors, which is not there\. Keep both",
        ),
        (_another, r"last\.pt: its frozen weights were another trunk\.safetensors \(SHA-256"),
        (lambda folder, content: content.update(frozen=3), "its key frozen is malformed"),
        (
            lambda folder, content: content.update(frozen={"file": "trunk.safetensors"}),
            "its key frozen is malformed",
        ),
        *(
            (
                lambda folder, content, name=name: content["frozen"].update(file=name),
                "its key frozen is malformed",
            )
            for name in ("../trunk.safetensors", "/etc/passwd", "..", "", "trunk.pt", None)
        ),
    ],
)
def test_another_trunk_or_none_is_refused_in_one_line(run, change, message):
    _, content, folder = run
    change(folder, content)
    with pytest.raises(InputError, match=message) as error:
        read_weights(_write(folder, content))
    assert "\n" not in str(error.value)
