"""Scores of saved predictions: what may come, what is wrong with it, and what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sam_spl.errors import ConfigError, InputError
from sam_spl.metrics import PROTOCOLS, Meter, protocols_named, scores
from sam_spl.predict.maps import probability
from sam_spl.results.config import ScoreConfig
from sam_spl.results.scoring import score
from tests.conftest import write_folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of six images of 48x40, a list of two of them, and probability maps of those two."""
    root = tmp_path_factory.mktemp("scored")
    data = write_folder(root / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    (root / "maps").mkdir()
    for k in (4, 5):
        mask = cv2.imread(str(data / "masks" / f"im_{k}.png"), 0) > 0
        prob = np.where(np.roll(mask, 1, 1), 0.9, 0.05 * (k - 3))
        prob[40:42, 30:32] = 0.7  # a false alarm
        np.save(root / "maps" / f"im_{k}.npy", prob.astype(np.float32))
    return data, root / "maps"


def _score(maps: Path, data: Path, output: Path, **more) -> dict:
    paths = {"predictions": str(maps), "masks": str(data / "masks"), "output": str(output)}
    score(ScoreConfig(**{**paths, "list": str(data / "test.txt"), **more}))
    return json.loads((output / "results.json").read_text())


def test_scores_are_those_of_the_definition(saved, tmp_path, capsys):
    """Targets of 3x3 moved by one column: IoU 6 / 12 without the false alarms of 2x2, 12 / 32 with them."""
    result = _score(saved[1], saved[0], tmp_path / "out", name="mine", bootstrap=0)
    assert result["scores"]["iou"] == pytest.approx(12 / 32)
    assert (result["scores"]["pd"], result["scores"]["fa"]) == (1, 8 / (2 * 48 * 40))
    assert (result["weights"]["model"], result["dataset"]["lists"]) == ("mine", "mine/test.txt")
    printed = capsys.readouterr().out
    assert "IoU = 37.50 | F1 = 54.55 | nIoU = 37.50 | Pd = 100.00 | Fa = 2083.33" in printed
    assert (tmp_path / "out" / "images.csv").read_text().count("\n") == 3


def test_an_image_of_8_bits_is_scaled_by_255_or_as_asked(saved, tmp_path):
    (tmp_path / "maps").mkdir()
    for path in saved[1].iterdir():
        cv2.imwrite(str(tmp_path / "maps" / f"{path.stem}.png"), (np.load(path) * 200).astype(np.uint8))
    for scale, iou in (
        (None, 12 / 32),
        (200.0, 12 / 32),
        (300.0, 12 / 24),
    ):  # 0.7 x 200 / 300 is below one half
        assert _score(tmp_path / "maps", saved[0], tmp_path / "out", scale=scale)["scores"]["iou"] == iou


def test_maps_of_another_size_are_interpolated_as_testing_does(tmp_path):
    rng = np.random.default_rng(0)
    masks = np.kron(rng.random((8, 6, 6)) < 0.1, np.ones((16, 16))) > 0
    logits = [torch.from_numpy(rng.normal(8 * mask - 4, 3))[None] for mask in masks]
    for folder in ("maps", "masks"):
        (tmp_path / folder).mkdir()
    for k, (mask, x) in enumerate(zip(masks, logits, strict=True)):
        np.save(tmp_path / "maps" / f"{k}.npy", x[0].sigmoid().numpy())
        cv2.imwrite(str(tmp_path / "masks" / f"{k}.png"), mask.astype(np.uint8) * 255)
    result = _score(tmp_path / "maps", tmp_path, tmp_path / "out", list=None, bootstrap=0,
                    protocols=["native", "mshnet", "sam_spl"], image_size=160)  # fmt: skip
    for name, side in (("mshnet", 256), ("sam_spl", 160)):
        metric = Meter(protocols_named([name]))
        maps = [{r: probability(x, (side, side)) for r in metric.resolutions} for x in logits]
        metric.update(range(8), maps, list(masks))
        expected = scores(metric.counts(), PROTOCOLS[name])
        for key in ("iou", "niou", "f1", "pd", "fa"):
            assert result["protocols"][name]["scores"][key] == pytest.approx(getattr(expected, key), abs=1e-4)


def _other_size(folder: Path) -> None:
    np.save(folder / "im_4.npy", np.zeros((9, 9), np.float32))


def _not_finite(folder: Path) -> None:
    prob = np.load(folder / "im_4.npy")
    prob[0, 0] = np.nan
    np.save(folder / "im_4.npy", prob)


def _infinite(folder: Path) -> None:
    prob = np.load(folder / "im_4.npy")
    prob[0, 0], prob[0, 1] = np.inf, -np.inf
    np.save(folder / "im_4.npy", prob)


def _too_large(folder: Path) -> None:
    np.save(folder / "im_5.npy", 255 * np.load(folder / "im_5.npy") + 2)


def _fewer(folder: Path) -> None:
    (folder / "im_5.npy").unlink()


def _unknown(folder: Path) -> None:
    np.save(folder / "what.npy", np.zeros((48, 40)))


def _broken(folder: Path) -> None:
    (folder / "im_4.npy").write_bytes(b"no array")


@pytest.mark.parametrize(
    ("damage", "named", "message"),
    [
        (_other_size, True, r"im_4\.npy is 9x9, its mask .*im_4\.png 40x48"),
        (_not_finite, True, r"im_4\.npy holds 1 value\(s\) that are not finite"),
        (_too_large, True, r"im_5\.npy holds values from .* but probabilities are in \[0, 1\]"),
        (_fewer, True, "lacks 1 of the 2 predictions .* first im_5"),
        (_unknown, False, "1 of 3 predictions have no mask in .* first what"),
        (_broken, True, r"cannot read .*im_4\.npy"),
        (lambda folder: None, False, "4 of 6 masks have no prediction, first im_0"),
    ],
)
def test_what_is_wrong_with_predictions_is_one_line_and_nothing_is_written(
    saved, tmp_path, damage, named, message
):
    shutil.copytree(saved[1], tmp_path / "maps")
    damage(tmp_path / "maps")
    listed = {} if named else {"list": None}
    with pytest.raises(InputError, match=message) as error:
        _score(tmp_path / "maps", saved[0], tmp_path / "out", **listed)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": "("}, r"group: '\(' is not a regular expression"),
        ({"empty": "two"}, "empty: two is not valid, choose one of null, one, zero, skip"),
        ({"image_size": 0}, "image_size: 0 is not valid"),
        ({"bootstrap": -1}, "bootstrap: -1 is not valid"),
        ({"fa_budget": 0.0}, "fa_budget: 0.0 is not valid"),
        ({"scale": 0.0}, "scale: 0.0 is not valid"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ScoreConfig(**settings)


def test_infinite_logits_are_named_and_large_ones_are_not(saved, tmp_path):
    data, maps = saved[0], tmp_path / "maps"
    maps.mkdir()
    for path in saved[1].iterdir():
        np.save(maps / path.name, np.where(np.load(path) > 0.5, 1e4, -1e4))
    expected = _score(saved[1], data, tmp_path / "plain")["scores"]
    assert _score(maps, data, tmp_path / "large", logits=True)["scores"] == expected
    _infinite(maps)
    with pytest.raises(InputError, match=r"im_4\.npy holds 2 value\(s\) that are not finite"):
        _score(maps, data, tmp_path / "out", logits=True)
    assert not (tmp_path / "out").exists()
