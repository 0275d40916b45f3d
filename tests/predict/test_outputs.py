"""What predict writes: pictures, a record that survives whatever ends a run, and the tables made of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_spl.errors import InputError
from sam_spl.predict.detections import Detection
from sam_spl.predict.frames import Frame, read
from sam_spl.predict.inputs import PARTS, SETTINGS, Source
from sam_spl.predict.outputs import Pictures, output_folder, remove
from sam_spl.predict.predictor import Prediction
from sam_spl.predict.record import COCO, TABLE, Part, Record, stamp_of

IMAGE = np.random.default_rng(0).integers(20, 60, (40, 56), dtype=np.uint8)
ONE = Detection(1, (10.5, 20.25), (19, 9, 4, 3), 8, 0.6123456, 0.9, 7.0)
TWO = Detection(2, (30.0, 5.0), (5, 30, 1, 1), 1, 0.7, 0.7, None)


def frame(name: str = "b/a", index: int | None = None, rate: float | None = None) -> Frame:
    return Frame(name, index, IMAGE, Path("/in/b/a.png"), "full", rate=rate)


def prediction() -> Prediction:
    prob = np.zeros(IMAGE.shape, np.float32)
    prob[9:12, 19:23], prob[30, 5] = 0.75, 1 / 65535
    return Prediction(IMAGE, prob, 0.5)


def source(folder: Path, name: str) -> Source:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    return Source(path, name, name.rpartition(".")[0])


def record(folder: Path, rank: int, run: int, of: Source, *found: list[Detection]) -> None:
    """Lines of one source: an image, or the frames of a video, in order, from the first that is missing."""
    part, several = Part(folder, rank, run), of.path.suffix == ".mp4"
    known = Record(folder).now(of)
    first = len(known.places) // 3 if known else 0
    for k, detections in enumerate(found):
        one = Frame(of.name, first + k if several else None, IMAGE, of.path, "full")
        part.frame(of, stamp_of(of), one, detections)
    part.close()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_masks_and_probabilities_are_those_of_the_prediction(tmp_path):
    made = prediction()
    Pictures(tmp_path, ["mask", "prob", "npy"]).write(frame(), made)
    mask = cv2.imread(str(tmp_path / "masks/b/a.png"), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, 255 * (made.prob > 0.5))
    prob = cv2.imread(str(tmp_path / "prob/b/a.png"), cv2.IMREAD_UNCHANGED)
    assert (prob.dtype, prob[10, 20], prob[30, 5], prob[0, 0]) == (np.uint16, 49151, 1, 0)
    np.testing.assert_array_equal(np.load(tmp_path / "prob/b/a.npy"), made.prob)
    assert not (tmp_path / "overlays").exists()


def test_an_overlay_video_has_its_frames_its_rate_and_an_even_size(tmp_path):
    pictures = Pictures(tmp_path, ["overlay"])
    odd = replace(frame(rate=7.5), image=np.full((401, 641), 30, np.uint8))
    for index in range(6):
        pictures.draw(
            replace(odd, name=f"v/{index:06d}", index=index), [ONE] if index == 3 else [], [1][: index == 3]
        )
        assert not (tmp_path / "overlays/v.mp4").exists()  # under this name when it is whole
    pictures.finish()
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == ["v.mp4"]
    (tmp_path / "v.mp4").write_bytes((tmp_path / "overlays/v.mp4").read_bytes())
    found = list(read(Source(tmp_path / "v.mp4", "v.mp4", "v")))
    assert [one.rate for one in found] == [7.5] * 6
    assert found[0].image.shape[:2] == (402, 642)
    coloured = [one.image.ndim == 3 for one in found]
    assert coloured[3] and not any(coloured[:3])  # an outline


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of"):
        Pictures(tmp_path / "out", ["mask"]).write(frame(), prediction())
    (tmp_path / "out/parts").mkdir()
    (tmp_path / "out/parts/0.jsonl").symlink_to(tmp_path / "elsewhere/0.jsonl")
    with pytest.raises(InputError, match="cannot write"):
        Part(tmp_path / "out", 0, 1)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_table_and_the_coco_file_hold_what_was_recorded(tmp_path):
    a, b = source(tmp_path / "in", "f10.png"), source(tmp_path / "in", "f2.png")
    record(tmp_path, 0, 1, a, [ONE, TWO])
    record(tmp_path, 0, 1, b, [])
    joined = Record(tmp_path).join(track=False)
    assert (joined.frames, joined.detections, joined.ranges) == (2, 2, {"full": 2})
    first, second = rows(tmp_path)
    assert list(first.values()) == [
        "f10",
        "1",
        "10.5",
        "20.25",
        "19",
        "9",
        "4",
        "3",
        "8",
        "0.61235",
        "0.9",
        "7.0",
        "",
    ]
    assert (second["id"], second["scr"]) == ("2", "")
    coco = json.loads((tmp_path / COCO).read_text())
    assert [(one["id"], one["file_name"], one["width"], one["height"]) for one in coco["images"]] == [
        (1, "f2.png", 56, 40),  # also without a detection
        (2, "f10.png", 56, 40),
    ]
    annotation = coco["annotations"][0]
    expected = {"id": 1, "image_id": 2, "category_id": 1, "bbox": [19, 9, 4, 3], "area": 8, "iscrowd": 0}
    assert {key: annotation[key] for key in (*expected, "score")} == {**expected, "score": 0.9}
    assert coco["annotations"][1]["scr"] is None
    assert coco["categories"] == [{"id": 1, "name": "target"}]


def test_a_line_that_was_not_ended_is_predicted_again_and_the_others_are_not(tmp_path):
    """A kill at any byte: the record holds the whole lines before it, and what is added later is read."""
    v = source(tmp_path / "in", "v.mp4")
    record(tmp_path, 0, 1, v, [ONE], [TWO], [])
    part = tmp_path / PARTS / "0.jsonl"
    whole = part.read_bytes()
    ends = [k + 1 for k, byte in enumerate(whole) if byte == 10]
    for cut in range(0, len(whole) + 1, 7):
        part.write_bytes(whole[:cut])
        known = Record(tmp_path).now(v)
        done = len(known.places) // 3 if known else 0
        assert done == sum(
            end <= cut + 1 for end in ends
        )  # without its last byte, the line feed, it is whole
        record(tmp_path, 0, 2, v, *[[ONE], [TWO], []][done:])
        Record(tmp_path).join(track=False)
        assert [(row["id"], row["row"]) for row in rows(tmp_path)] == [("1", "10.5"), ("2", "30.0")]


def test_any_distribution_over_processes_and_runs_gives_the_same_files(tmp_path):
    moved = [replace(ONE, centroid=(10.0, 20.0 + k)) for k in range(5)]
    texts = []
    for number, plan in enumerate([[(0, 1, 5)], [(0, 1, 2), (1, 2, 1), (0, 3, 2)], [(2, 1, 3), (0, 2, 2)]]):
        out = tmp_path / str(number)
        v, a = source(tmp_path / "in", "v.mp4"), source(tmp_path / "in", "a.png")
        done = 0
        for rank, run, count in plan:
            record(out, rank, run, v, *[[one] for one in moved[done : done + count]])
            done += count
        record(out, number, 1, a, [TWO])
        Record(out).join(track=True)
        texts.append([(out / name).read_text() for name in (TABLE, COCO)])
    assert texts[0] == texts[1] == texts[2]
    assert [row["track"] for row in rows(tmp_path / "0")] == ["1"] * 6  # each sequence counts its own


def test_a_file_that_has_changed_is_new_and_its_old_lines_do_not_count(tmp_path):
    a = source(tmp_path / "in", "a.png")
    record(tmp_path, 1, 1, a, [ONE, TWO])
    assert Record(tmp_path).now(a).complete
    a.path.write_bytes(b"other content")
    assert Record(tmp_path).now(a) is None
    assert Record(tmp_path).names() == {str(a.path): "a"}
    Record(tmp_path).join(track=False)
    assert len(rows(tmp_path)) == 2  # what is known until it is predicted again
    record(tmp_path, 0, 2, a, [TWO])
    Record(tmp_path).join(track=False)
    assert [row["id"] for row in rows(tmp_path)] == ["2"]


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/truth.png").write_bytes(b"mine")
    for overwrite in (False, True):
        with (
            pytest.raises(InputError, match=r"holds masks, but no predict\.json of sam-spl predict"),
            output_folder(tmp_path, {}, overwrite=overwrite),
        ):
            raise AssertionError
    assert (tmp_path / "masks/truth.png").read_bytes() == b"mine"


def test_results_of_other_settings_are_replaced_only_when_asked(tmp_path):
    with output_folder(tmp_path / "out", {"threshold": 0.5}, overwrite=False):
        Pictures(tmp_path / "out", ["mask"]).write(frame(), prediction())
    (tmp_path / "out/notes.txt").write_text("mine")
    with output_folder(tmp_path / "out", {"threshold": 0.5}, overwrite=False):
        pass
    with (
        pytest.raises(InputError, match=r"predicted with threshold 0\.5 \(now 0\.3\)\. Add --overwrite"),
        output_folder(tmp_path / "out", {"threshold": 0.3}, overwrite=False),
    ):
        raise AssertionError
    assert (tmp_path / "out/masks/b/a.png").exists()
    with output_folder(tmp_path / "out", {"threshold": 0.3}, overwrite=True):
        assert {path.name for path in (tmp_path / "out").iterdir()} == {SETTINGS, "notes.txt", ".lock"}
    remove(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
