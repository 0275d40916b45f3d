"""``sam-spl visualize``: an image in, figures out."""

from __future__ import annotations

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from sam_spl.cli.main import execute
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.weights.formats import save_weights
from tests.conftest import TINY


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model("sam_spl_t", **TINY)
    about = {**model.built_from, "mean": [0.4], "std": [0.2], "image_size": 64, "resize": "pillow"}
    return save_weights(tmp_path_factory.mktemp("w") / "w.safetensors", model.state_dict(), about)


@pytest.fixture
def frame(tmp_path):
    path = tmp_path / "a frame.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8))
    return path


def run(image, weights, output, *words):
    execute(
        ["visualize", str(image), "--weights", str(weights), "-o", str(output), "--device", "cpu", *words]
    )


def test_figures_are_written_and_named(frame, weights, tmp_path, capsys):
    run(frame, weights, tmp_path / "out", "--mask", str(frame), "--formats", "png")
    names = [f"a frame_{name}.png" for name in ("outputs", "encoder", "self_prompt", "calibration")]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    for name in names:
        assert cv2.imread(str(tmp_path / "out" / name)).std() > 1


@pytest.mark.parametrize(
    "words", [("--layers", "encoder.stem.0", "decoder"), ("layers=[encoder.stem.0,decoder]",)]
)
def test_layers_are_shown_instead(frame, weights, tmp_path, words):
    run(frame, weights, tmp_path / "out", *words, "--formats", "svg")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a frame_layers.svg",
        "a frame_outputs.svg",
    ]


def test_what_is_no_single_image_or_cannot_be_shown_is_refused(frame, weights, tmp_path):
    pages = [PIL.Image.new("L", (64, 64), shade) for shade in (10, 20)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "empty.png").touch()
    for image, message in (
        (tmp_path / "stack.tif", r"stack.tif holds 2 frames\. Save the one"),
        (tmp_path / "empty.png", r"^image: .*empty.png is empty\.$"),
        (tmp_path / "none.png", r"none.png cannot be read: No such file"),
    ):
        with pytest.raises(InputError, match=message):
            run(image, weights, tmp_path / "out")
    with pytest.raises(ConfigError, match="formats: jpg is not valid"):
        run(frame, weights, tmp_path / "out", "--formats", "jpg")
    with pytest.raises(ConfigError, match=r"layers: the network has no 'encoder\.stm'"):
        run(frame, weights, tmp_path / "out", "--layers", "encoder.stm")
    assert not (tmp_path / "out").exists()
