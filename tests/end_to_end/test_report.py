"""What testing writes, and that scoring its predictions gives the same."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat

from sam_spl.cli.main import run
from sam_spl.metrics import PROTOCOLS
from sam_spl.results.config import ScoreConfig
from sam_spl.results.scoring import score
from tests.conftest import TINY_OVERRIDES, test, train, write_folder


def _score(data: Path, predictions: Path, output: Path, **more) -> None:
    files = {"masks": data / "masks", "list": data / "test.txt", "output": output}
    paths = {key: str(path) for key, path in {"predictions": predictions, **files}.items()}
    score(ScoreConfig(**paths, **more))


@pytest.fixture(scope="module")
def tested(tmp_path_factory) -> tuple[Path, Path]:
    """A network tested on a folder, its predictions saved: the folder, and what testing wrote."""
    root = tmp_path_factory.mktemp("scored")
    data = write_folder(root / "mine", lists={"train": [0, 1, 2, 3], "test": [4, 5]})
    small = ["dataset.image_size=64", "trainer.epochs=1", "trainer.batch_size=4"]
    flags = ["dataset=custom", "--data_path", str(data), "device=cpu"]
    train([*TINY_OVERRIDES, *small, *flags, "--save_dir", str(root / "run")])
    words = [
        "--weights",
        str(root / "run"),
        "protocols=[native,sam_spl,datransnet]",
        "save_predictions=npy",
        "figures=1",
    ]
    test([*flags, *words, "--save_dir", str(root / "out")])
    return data, root / "out"


def test_testing_writes_report_figures_and_predictions(tested):
    names = {path.name for path in tested[1].iterdir()}
    assert names == {"results.json", "images.csv", "report.html", "figures", "overlays", "predictions"}
    assert sorted(path.name for path in (tested[1] / "predictions").iterdir()) == ["im_4.npy", "im_5.npy"]
    report = json.loads((tested[1] / "results.json").read_text())
    assert list(report["protocols"]) == ["native", "sam_spl", "datransnet"]
    assert set(report["protocols"]["sam_spl"]) >= {
        "threshold",
        "resolution",
        "matching",
        "empty",
        "false_alarms",
    }
    assert len(report["images"]) == 2
    assert {"name", "intersection", "union", "targets", "detected", "false_alarm_pixels"} <= set(
        report["images"][0]
    )
    assert {"sha256", "model"} <= set(report["weights"])
    assert {"sam_spl", "torch", "opencv"} <= set(report["versions"])


def test_a_network_whose_answers_are_not_finite_is_named(tested, tmp_path, capsys):
    data, out = tested
    state = torch.load(out.parent / "run" / "best.pt", weights_only=True)
    for head in range(3):
        state["model"][f"decoder.heads.{head}.weight"].fill_(3e38)  # finite, as a file's weights need to be
    torch.save(state, tmp_path / "large.pt")
    words = [
        "dataset=custom",
        "--data_path",
        str(data),
        "device=cpu",
        "--weights",
        str(tmp_path / "large.pt"),
    ]
    with pytest.raises(SystemExit) as end:
        run(["test", *words, "--save_dir", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "the network's answer to im_4 is not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["npy", "mat", "png"])
def test_scoring_files_gives_what_testing_gave(tested, tmp_path, form):
    data, out = tested
    saved = {path.stem: np.load(path) for path in (out / "predictions").iterdir()}
    (tmp_path / "maps").mkdir()
    for name, prob in saved.items():
        if form == "npy":
            np.save(tmp_path / "maps" / f"{name}.npy", prob)
        elif form == "mat":
            savemat(tmp_path / "maps" / f"{name}_pred.mat", {"T": prob})
        else:  # eight bits: probabilities are rounded, but to the same side of one half
            cv2.imwrite(str(tmp_path / "maps" / f"{name}.png"), np.where(prob > 0.5, 255, 0).astype(np.uint8))
    _score(data, tmp_path / "maps", tmp_path / "out", protocols=list(PROTOCOLS))
    ours = json.loads((out / "results.json").read_text())
    theirs = json.loads((tmp_path / "out" / "results.json").read_text())
    assert theirs["scores"] == ours["scores"]
    assert theirs["images"] == ours["images"]
    if form != "png":
        for key in ("hiou", "curves", "pd_by_size"):
            assert theirs["details"][key] == ours["details"][key]
        assert theirs["protocols"]["datransnet"]["scores"] == ours["protocols"]["datransnet"]["scores"]


def test_images_of_one_group_are_one_unit_of_chance(tested, tmp_path, capsys):
    """Two images of one sequence: counts are as before, intervals are none, and results say the groups."""
    data, out = tested
    flags = ["dataset=custom", "--data_path", data, "device=cpu", "report=0", "overlays=0"]
    words = [*flags, "--weights", out.parent / "run", "--group", "^(im)_", "--save_dir", tmp_path / "ours"]
    test([str(word) for word in words])
    assert "intervals over 1 group(s) of 2 images" in capsys.readouterr().out
    _score(data, out / "predictions", tmp_path / "theirs", group="^im")
    blind, ours, theirs = (
        json.loads((folder / "results.json").read_text())
        for folder in (out, tmp_path / "ours", tmp_path / "theirs")
    )
    assert ours["images"] == theirs["images"] == [{**row, "group": "im"} for row in blind["images"]]
    assert ours["scores"] == theirs["scores"] == blind["scores"]
    assert set(ours["intervals"].values()) == set(theirs["intervals"].values()) == {None}
