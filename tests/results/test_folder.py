"""Tests that differ have folders that differ, and nothing of an earlier test stays in one."""

from __future__ import annotations

import json
from hashlib import sha256
from itertools import product
from pathlib import Path

import pytest

from sam_spl.errors import InputError
from sam_spl.results.folder import Result, begin_test
from sam_spl.results.folder import test_folder as folder_of

OURS = json.dumps({"protocol": "native", "protocols": {}, "weights": {}, "dataset": {}})


@pytest.mark.parametrize(
    ("file", "dataset", "lists", "split", "size", "name"),
    [
        ("best.safetensors", "SIRST", "50_50", "test", 256, "test-best-SIRST-50_50-test-256"),
        ("best.pt", "SIRST", "50_50", "test", 256, "test-best.pt-SIRST-50_50-test-256"),
        ("a.pth.tar", "NUDT-SIRST", "none", "all", None, "test-a.pth.tar-NUDT-SIRST-all-native"),
        ("best.safetensors", "my/set: 1", "", "val", 64, "test-best-my_set_1-val-64"),
    ],
)
def test_a_folder_says_weights_set_lists_split_and_size(file, dataset, lists, split, size, name):
    assert folder_of(Path("/runs/a") / file, dataset, lists, split, size) == Path("/runs/a") / name


def test_whatever_differs_has_a_folder_of_its_own():
    union = ", ".join(f"SET-{k} trainval_test_50" for k in range(20))
    choices = (
        ("best.pt", "best.safetensors", "last.pt"),
        ("SIRST", "+".join(f"SET-{k}" for k in range(20)), "+".join(f"SET-{k}" for k in range(21))),
        ("", "50_50", union, union + "x"),
        ("train", "test"),
        (None, 256, 512),
    )
    every = [folder_of(Path("r") / file, *rest) for file, *rest in product(*choices)]
    assert len({path.name.lower() for path in every}) == len(every) == 3 * 3 * 4 * 2 * 3
    assert max(len(path.name) for path in every) < 130
    assert folder_of(Path("r/best.pt"), "S", union, "test", 256).name == (
        "test-best.pt-S-SET-0_trainval_test_50_SET-1_tr_d46a5e84-test-256"
    )


def test_each_engine_of_an_exported_file_has_a_folder_of_its_own():
    names = [
        folder_of(Path("r/a.onnx"), "S", "", "test", 96, "", of).name for of in ("openvino", "onnxruntime")
    ]
    assert names == ["test-a.onnx-openvino-S-test-96", "test-a.onnx-onnxruntime-S-test-96"]


@pytest.mark.parametrize("only", ["/d1/mine", "/d2/mine", '[96, {"test": 4}, 1]'])
def test_what_tells_sets_of_one_name_apart_is_in_the_name(only):
    folder = folder_of(Path("r/best.pt"), "mine", "", "test", 96, only)
    assert folder.name == f"test-best.pt-mine-test-96-{sha256(only.encode()).hexdigest()[:6]}"


@pytest.mark.parametrize("named_by_user", [True, False])
def test_a_test_begins_without_what_an_earlier_one_left(named_by_user, tmp_path):
    for name in ("overlays", "predictions", "figures"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old.png").write_text("old")
    for name in ("report.html", "images.csv", "notes.txt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "results.json").write_text(OURS)
    with begin_test(tmp_path, named_by_user=named_by_user):
        assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ".lock"}
        with (
            pytest.raises(InputError, match="another process is writing there"),
            begin_test(tmp_path, named_by_user=named_by_user),
        ):
            pass
        (tmp_path / "results.json").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "results.json"}


def test_of_a_test_that_fails_nothing_stays(tmp_path):
    with pytest.raises(KeyError), begin_test(tmp_path / "out", named_by_user=True):
        (tmp_path / "out" / "predictions").mkdir()
        raise KeyError
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("locked", [True, False], ids=["killed", "ended"])
@pytest.mark.parametrize(
    "result", [None, "{}", "[]", "no JSON", b"\xff", '{"protocol": "native", "weights": {}}']
)
def test_what_no_test_wrote_is_not_removed(result, locked, tmp_path):
    mine = tmp_path / "predictions" / "mine.png"
    mine.parent.mkdir()
    mine.write_text("mine")
    if result is not None:
        (tmp_path / "results.json").write_bytes(result if isinstance(result, bytes) else result.encode())
    if locked:
        (tmp_path / ".lock").write_text("")  # of a training that was killed
    message = r"holds \S+, but no results\.json of a test\. Choose another folder, or move it\.$"
    for _ in range(2):
        with pytest.raises(InputError, match=message), begin_test(tmp_path, named_by_user=True):
            pass
    assert mine.read_text() == "mine"
    assert (tmp_path / "results.json").exists() == (result is not None)


def test_a_folder_without_names_that_a_test_writes_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with begin_test(tmp_path, named_by_user=True):
        (tmp_path / "results.json").write_text(OURS)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "results.json"}


@pytest.mark.parametrize("result", [None, "{}"])
def test_what_a_killed_test_left_in_a_folder_of_ours_is_removed(result, tmp_path):
    (tmp_path / "predictions").mkdir()
    if result:
        (tmp_path / "results.json").write_text(result)
    with begin_test(tmp_path, named_by_user=False):
        assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_what_a_link_points_to_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.npy").write_text("")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions").symlink_to(tmp_path / "mine")
    (tmp_path / "out" / "results.json").write_text(OURS)
    with begin_test(tmp_path / "out", named_by_user=True):
        pass
    assert (tmp_path / "mine" / "a.npy").exists()
    assert not (tmp_path / "out" / "predictions").exists()


def test_a_result_gives_scores_and_images():
    result = Result({"scores": {"iou": 0.5}, "images": [{"name": "a"}]}, Path("out"))
    assert (result.scores["iou"], result.images[0]["name"], result.folder) == (0.5, "a", Path("out"))
