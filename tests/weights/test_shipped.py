"""The weights that come with the toolkit: small, described, found by name, as good as their cards say."""

from __future__ import annotations

import re
import tomllib

import numpy as np
import pytest
import torch

import sam_spl
from sam_spl.config import weights_folder
from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.data.varied import VariedSource
from sam_spl.weights.formats import find_weights, read_weights
from tests.conftest import ROOT

NAMES = sorted(path.stem for path in weights_folder().glob("datransnet-*.safetensors"))


def test_two_files_come_along_and_a_wheel_holds_them():
    assert NAMES == ["datransnet-sirst", "datransnet-synthetic"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    for name in NAMES:
        assert included[f"checkpoints/{name}.safetensors"] == f"sam_spl/checkpoints/{name}.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_small_described_and_found_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = find_weights(name)
    assert path.stat().st_size < 6e6
    weights = read_weights(name)
    assert weights.description["model"] == "datransnet"
    assert {x.dtype for key, x in weights.state.items() if "running" not in key} <= {
        torch.float16,
        torch.int64,
    }
    trained_on = weights.description["trained_on"]
    card = path.with_suffix(".md").read_text()
    assert card.startswith(f"# {name}\n")
    for part in ("**Use**", "**Data**", "**Command**", "**Limits**", "| `native` |"):
        assert part in card
    if name == "datransnet-sirst":
        assert "SIRST" in trained_on["sets"]
        assert "threshold 0.5" in card and "threshold" not in weights.description
    else:
        assert not trained_on.get("sets")
        assert f"threshold {weights.description['threshold']}" in card


def test_the_first_example_finds_the_three_targets_of_its_picture():
    image, mask = VariedSource(1000, 320, seed=12).load(28)
    for name in NAMES:
        result = sam_spl.load(name, "cpu", "fp32")(ROOT / "examples" / "frame.png")
        np.testing.assert_array_equal(result.image, image)
        assert len(result.detections) == 3
        for target in result.detections:
            row, column = (round(x) for x in target.centroid)
            assert mask[row - 1 : row + 2, column - 1 : column + 2].any()


def test_figures_on_sirst_are_those_of_the_card(sirst):
    """On every eighth test image, near those of all, which take minutes."""
    data = open_dataset(DatasetConfig.named("sirst", data_path=str(sirst)))
    source = data.part("test").open()
    predict = sam_spl.load("datransnet-sirst", "cpu", "fp32")
    both = either = 0
    for index in range(0, len(source), 8):
        image, mask = source.load(index)
        found = predict(image).mask
        both, either = both + (found & mask).sum(), either + (found | mask).sum()
    card = find_weights("datransnet-sirst").with_suffix(".md").read_text()
    stated = float(re.search(r"\| `native` \| ([\d.]+) \|", card)[1])
    assert 100 * both / either == pytest.approx(stated, abs=10)
