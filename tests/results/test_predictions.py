"""Probability maps as files: what is written is read, and what other tools write."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from sam_spl.errors import ConfigError, InputError
from sam_spl.results.predictions import find_predictions, full_scale, read_prediction, write_prediction

PROB = np.random.default_rng(0).random((5, 7)).astype(np.float32)


@pytest.mark.parametrize(("form", "error"), [("npy", 0), ("mat", 0), ("png", 0.5 / 255 + 1e-9)])
def test_what_is_written_is_read(form, error, tmp_path):
    write_prediction(tmp_path, "a/b", PROB, form)
    assert find_predictions(tmp_path) == {"a/b": tmp_path / "a" / f"b.{form}"}
    read = read_prediction(tmp_path / "a" / f"b.{form}", scale=255.0)
    assert np.abs(read - PROB).max() <= error


def test_an_unknown_form_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"save_predictions: 'pngs' is unknown\. Nearest: png"):
        write_prediction(tmp_path, "a", PROB, "pngs")


def test_what_tools_append_is_no_part_of_a_name(tmp_path):
    names = ["a.png", "b_pred.png", "c_Pred.npy", "d_prediction.mat", "e_prob.jpg", "f_pixels0.png", "g.txt"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert list(find_predictions(tmp_path)) == list("abcdef")
    (tmp_path / "a_pred.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png and a_pred\.npy are for one image. Keep one"):
        find_predictions(tmp_path)


@pytest.mark.parametrize(("folder", "message"), [("none", "no folder"), ("empty", "holds no file")])
def test_a_folder_without_predictions_is_named(folder, message, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"^--predictions: .*{message}|^--predictions: {message}"):
        find_predictions(tmp_path / folder)


@pytest.mark.parametrize(
    ("values", "dtype", "scale"),
    [((0, 1), np.uint8, 1), ((0, 7), np.uint8, 255), ((0, 256), np.uint16, 65535)],
)
def test_what_stands_for_one_is_found_from_all_files(values, dtype, scale, tmp_path):
    for k, value in enumerate(values):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((2, 2), value, dtype))
    np.save(tmp_path / "x.npy", np.full((2, 2), 1e9))
    assert full_scale(sorted(tmp_path.iterdir())) == scale
    assert full_scale([]) == 1


def test_logits_pass_the_sigmoid_and_images_do_not(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[-1000.0, 0.0, 2.0]]))
    np.testing.assert_allclose(
        read_prediction(tmp_path / "a.npy", scale=255, logits=True), [[0, 0.5, 1 / (1 + np.exp(-2))]]
    )
    cv2.imwrite(str(tmp_path / "b.png"), np.array([[0, 51, 255]], np.uint8))
    np.testing.assert_allclose(read_prediction(tmp_path / "b.png", scale=255, logits=True), [[0, 0.2, 1]])


def test_of_colours_the_largest_counts_and_booleans_are_0_and_1(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[[0, 0, 0], [0, 255, 51]]], np.uint8))
    np.testing.assert_allclose(read_prediction(tmp_path / "a.png", scale=255), [[0, 1]])
    np.save(tmp_path / "a.npy", np.array([[True, False]]))
    assert read_prediction(tmp_path / "a.npy", scale=255).tolist() == [[1, 0]]
    np.save(tmp_path / "a.npy", PROB[None, ..., None])  # axes of one are dropped
    np.testing.assert_array_equal(read_prediction(tmp_path / "a.npy", scale=255), PROB)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.5, np.nan]]), r"holds 1 value(s) that are not finite. Predict it again."),
        (
            np.array([[0.5, 1.5]]),
            "holds values from 0.5 to 1.5, but probabilities are in [0, 1]. Divide them, or use",
        ),
        (
            np.zeros((2, 3, 4)),
            "holds float64 of shape (2, 3, 4); a map (height, width) of numbers is needed.",
        ),
        (np.array([["a", "b"]]), "holds <U1 of shape (1, 2); a map"),
    ],
)
def test_what_is_no_probability_map_is_named(values, message, tmp_path):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=re.escape(message)):
        read_prediction(tmp_path / "a.npy", scale=255)


def test_a_mat_file_needs_one_map(tmp_path):
    savemat(tmp_path / "a.mat", {"T": PROB, "other": PROB, "text": "x"})
    with pytest.raises(InputError, match="two-dimensional variables"):
        read_prediction(tmp_path / "a.mat", scale=255)
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot read"):
        read_prediction(tmp_path / "pickled.npy", scale=255)
