"""``sam-spl adapt``: from weights and frames without labels to weights, and what is known of both."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from sam_spl.cli.main import execute
from sam_spl.config import read
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.engine.adaptation import _erased, _sure
from sam_spl.engine.config import TrainConfig
from sam_spl.engine.training import _joined
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model, built_from
from sam_spl.predict.predictor import Prediction, load
from sam_spl.weights.formats import read_weights, save_weights
from tests.conftest import TINY, write_folder

QUICK = ["--epochs", "1", "--images", "4", "--batch-size", "2", "--device", "cpu"]


def made(path, image_size, **more):
    torch.manual_seed(0)
    model = build_model("sam_spl_t", **TINY)
    about = {**built_from(model), "mean": [0.4], "std": [0.2], "image_size": image_size, "resize": "opencv"}
    return save_weights(path / "w.safetensors", model.state_dict(), about | more)


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "my frames"
    (folder / "night").mkdir(parents=True)
    source = SyntheticSource(6, 64)
    for index in range(4):
        cv2.imwrite(str(folder / "night" / f"f{index}.png"), source.load(index)[0])
    video = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64), False)
    for index in (4, 5):
        video.write(source.load(index)[0])
    video.release()
    return folder


@pytest.mark.parametrize("size", [64, None])
def test_new_weights_see_what_the_old_ones_saw(tmp_path, frames, capsys, size):
    trained_on = {"dataset": "SIRST", "lists": "50_50", "fingerprint": "ab", "sets": {"SIRST": "ab"}}
    weights = made(tmp_path, size, threshold=0.9, trained_on=trained_on)
    run = tmp_path / "run"
    keep = ["--detections", "keep"]
    execute(["adapt", str(frames), "--weights", str(weights), "--output", str(run), *keep, *QUICK])
    out = capsys.readouterr().out
    assert "6 frames, " in out
    assert out.index("  before  IoU") < out.index("  after   IoU")
    assert f"use it with sam-spl predict --weights {run}" in out

    old, new = read_weights(weights), read_weights(run)
    for key in ("model", "arguments", "mean", "std", "image_size", "resize"):
        assert new.description[key] == old.description[key]
    assert any(not torch.equal(new.state[name], value) for name, value in old.state.items())
    assert new.description["trained_on"]["sets"] == {"SIRST": "ab"}  # still not to be tested on
    assert new.description["trained_on"]["dataset"] == "implanted"
    assert "threshold" not in new.description  # it was chosen for the old ones

    taken = sorted(path.relative_to(run).as_posix() for path in (run / "frames").rglob("*.png"))
    names = [f"night/f{k}.png" for k in range(4)] + ["v/000000.png", "v/000001.png"]
    assert taken == sorted(f"frames/{kind}/{name}" for kind in ("images", "masks") for name in names)
    stored = cv2.imread(str(run / "frames/images/night/f2.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, SyntheticSource(6, 64).load(2)[0])
    mask = cv2.imread(str(run / "frames/masks/night/f2.png"), cv2.IMREAD_UNCHANGED)
    prob = load(weights, "cpu")(stored).prob
    assert ((mask > 0) | ~(prob > 0.9)).all()  # what is above the threshold of the weights,
    assert not ((mask > 0) & ~(prob > 0.5)).any()  # as wide as one half


def test_frames_are_spread_over_what_is_given_and_detections_may_be_background(tmp_path, frames):
    run = tmp_path / "run"
    few = ["--most-frames", "3", "--detections", "background"]
    weights = made(tmp_path, 64)
    execute(["adapt", str(frames), "--weights", str(weights), "--output", str(run), *few, *QUICK])
    taken = sorted(path.relative_to(run / "frames").as_posix() for path in (run / "frames").rglob("*.png"))
    assert taken == ["images/night/f0.png", "images/night/f2.png", "images/v/000000.png"]
    with pytest.raises(ConfigError, match="holds a run already"):
        execute(["adapt", str(frames), "--weights", str(weights), "--output", str(run), *QUICK])
    execute(["adapt", str(frames), "--weights", str(weights), "--output", str(run), "--overwrite", *QUICK])
    assert len(list((run / "frames").rglob("*.png"))) == 6  # and nothing of the run before


def test_the_same_command_gives_the_same_weights(tmp_path, frames):
    weights = made(tmp_path, 64)
    for name in ("a", "b"):
        execute(["adapt", str(frames), "--weights", str(weights), "--output", str(tmp_path / name), *QUICK])
    a, b = read_weights(tmp_path / "a").state, read_weights(tmp_path / "b").state
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_cannot_be_adapted_to_is_said_before_anything_is_written(tmp_path):
    weights = made(tmp_path, 64)
    empty = tmp_path / "empty"
    empty.mkdir()
    asked = ["adapt", "--weights", str(weights), "--output", str(tmp_path / "run"), *QUICK]
    with pytest.raises(InputError, match="no image or video"):
        execute([*asked, "--frames", str(empty)])
    (empty / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no frame of"):
        execute([*asked, "--frames", str(empty)])
    with pytest.raises(ConfigError, match="areas"):
        execute([*asked, "--frames", str(empty), "--areas", "[9,3]"])
    assert not (tmp_path / "run").exists()


def test_fine_tuned_weights_remember_both_training_sets(tmp_path):
    first, second = write_folder(tmp_path / "first", 12), write_folder(tmp_path / "second", 14)
    network = ["model=sam_spl_t", *[f"model.{key}={value}" for key, value in TINY.items()]]
    how = ["model.trunk_weights=null", "recipe=scratch", "trainer.epochs=1", "dataset.image_size=32"]
    run = ["train", *network, *how, "--dataset", "custom"]
    execute([*run, "--data_path", str(first), "--save_dir", str(tmp_path / "a")])
    again = ["--weights", str(tmp_path / "a"), "--save_dir", str(tmp_path / "b")]
    execute([*run, "--data_path", str(second), *again])
    before, after = (read_weights(tmp_path / name).description["trained_on"] for name in "ab")
    assert after["sets"]["custom, before"] == before["sets"]["custom"]
    assert set(after["sets"]) == set(after["samples"]) == {"custom", "custom, before"}
    execute([*run, "--data_path", str(second), "--resume", str(tmp_path / "b"), "--epochs", "2"])
    assert read_weights(tmp_path / "b").description["trained_on"] == after


def test_a_target_stays_in_its_whole_width_if_its_peak_is_above_the_threshold():
    prob = np.zeros((20, 30), np.float32)
    prob[4:9, 5:10], prob[6, 7] = 0.6, 0.95  # one that is sure,
    prob[12:15, 20:24] = 0.8  # and one that is not
    mask, number = _sure(Prediction(np.zeros((20, 30), np.uint8), prob, threshold=0.9))
    expected = np.zeros((20, 30), bool)
    expected[4:9, 5:10] = True
    np.testing.assert_array_equal(mask, expected)
    assert number == 1
    low = _sure(Prediction(np.zeros((20, 30), np.uint8), prob, threshold=0.3))
    np.testing.assert_array_equal(low[0], prob > 0.3)
    assert low[1] == 2
    assert _sure(Prediction(np.zeros((20, 30), np.uint8), 0 * prob))[1] == 0


@pytest.mark.parametrize(("kind", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
def test_what_is_found_may_be_painted_over(kind, channels):
    level = np.iinfo(kind).max // 4
    image = np.full((40, 50, channels), level, kind)
    found = np.zeros((40, 50), bool)
    found[10:14, 20:26] = True
    image[9:15, 19:27] = 3 * level  # the foot of its signal is wider than what was found
    erased = _erased(image if channels == 3 else image[..., 0], found)
    assert erased.dtype == kind
    assert np.abs(erased.astype(int) - level).max() <= 0.05 * level  # it was three times as bright


def test_a_share_of_the_images_is_generated(tmp_path, frames):
    run = tmp_path / "run"
    weights = made(tmp_path, 64)
    asked = ["adapt", str(frames), "--weights", str(weights), "--output", str(run), *QUICK]
    execute([*asked, "--scenes", "0.3", "--detections", "erase"])
    config = read(TrainConfig, OmegaConf.to_container(OmegaConf.load(run / "config.yaml")))
    assert config.dataset.synthetic["scenes"] == 0.3
    names = {"--scenes": ["1.5"], "--detections": ["forget"]}
    for key, value in names.items():
        with pytest.raises(ConfigError, match=key[2:]):
            execute([*asked, key, *value])


def test_nothing_of_the_users_is_replaced(tmp_path, frames):
    weights = made(tmp_path, 64)
    cam, other = tmp_path / "cam", tmp_path / "other"
    shutil.copytree(frames, cam / "frames")
    (other / "frames").mkdir(parents=True)
    (other / "frames" / "notes.txt").write_text("mine")
    cases = [
        (ConfigError, "the frames lie in", cam / "frames", cam),
        (ConfigError, "holds the weights", frames, tmp_path),
        (ConfigError, "is there already", frames, other),
        (InputError, "there is no file", tmp_path / "none", other),
    ]
    for kind, said, given, output in cases:
        asked = ["adapt", str(given), "--weights", str(weights), "--output", str(output)]
        for more in ([], ["--overwrite"]):
            with pytest.raises(kind, match=said):
                execute([*asked, *more, *QUICK])
    assert (other / "frames" / "notes.txt").read_text() == "mine"
    assert len(list((cam / "frames").rglob("*.*"))) == 5


def test_of_one_frame_it_is_said_that_it_was_trained_on(tmp_path, frames, capsys):
    one = str(frames / "night" / "f1.png")
    asked = ["adapt", one, "--weights", str(made(tmp_path, 64)), "--output", str(tmp_path / "run"), *QUICK]
    execute(asked)
    out = capsys.readouterr().out
    assert "targets implanted into that frame:" in out and "not trained on" not in out


def test_every_run_before_is_remembered_and_what_it_saw_is_not_held_out(tmp_path):
    assert _joined(_joined({"a": "1"}, {"a": "2"}), {"a": "3"}) == {
        "a": "3",
        "a, before": "2",
        "a, before, before": "1",
    }
    assert _joined({"a": "1", "b": "2"}, {"a": "1"}) == {"a": "1", "b": "2"}

    images = write_folder(tmp_path / "set", 20)
    network = ["model=sam_spl_t", *[f"model.{key}={value}" for key, value in TINY.items()]]
    how = ["model.trunk_weights=null", "recipe=scratch", "trainer.epochs=1", "dataset.image_size=32"]
    run = [
        "train",
        *network,
        *how,
        "--dataset",
        "custom",
        "--data_path",
        str(images),
        "trainer.val_share=0.2",
    ]
    execute([*run, "seed=0", "--save_dir", str(tmp_path / "a")])
    execute([*run, "seed=1", "--save_dir", str(tmp_path / "b"), "--weights", str(tmp_path / "a")])
    assert read_weights(tmp_path / "a").description["trained_on"]["held_out"] == {"share": 0.2, "seed": 0}
    assert "held_out" not in read_weights(tmp_path / "b").description["trained_on"]
    execute([*run, "seed=0", "--resume", str(tmp_path / "a"), "--epochs", "2"])
    assert "held_out" in read_weights(tmp_path / "a").description["trained_on"]
