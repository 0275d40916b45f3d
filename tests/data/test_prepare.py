from __future__ import annotations

import json

import numpy as np
import pytest

from sam_spl.data.annotations import draw, read_coco, read_labelme
from sam_spl.data.prepare import labels_from_coco, sequence_of, split_names
from sam_spl.errors import ConfigError, InputError


def test_boxes_and_polygons_mark_the_pixels_whose_centres_they_hold():
    expected = np.zeros((8, 10), bool)
    expected[2:5, 3:7] = True
    np.testing.assert_array_equal(draw([{"box": (3, 2, 7, 5)}], (8, 10)), expected)
    np.testing.assert_array_equal(draw([{"box": (2.6, 1.7, 7.2, 5.4)}], (8, 10)), expected)
    np.testing.assert_array_equal(
        draw([{"polygon": [(2.8, 1.9), (7.2, 1.9), (7.2, 5.2), (2.8, 5.2)]}], (8, 10)), expected
    )


def test_a_disk_and_its_polygon_hold_the_centres_within_its_radius():
    angles = np.linspace(0, 2 * np.pi, 200)
    disc = np.stack([30.3 + 12 * np.cos(angles), 29.1 + 12 * np.sin(angles)], 1)
    assert draw([{"polygon": disc}], (64, 64)).sum() == pytest.approx(np.pi * 144, rel=0.02)
    rows, columns = np.mgrid[:64, :64] + 0.5  # centres
    inside = np.hypot(columns - 30.3, rows - 29.1) < 12
    np.testing.assert_array_equal(draw([{"disk": (30.3, 29.1, 12)}], (64, 64)), inside)


def test_a_target_smaller_than_a_pixel_marks_its_pixel_and_what_is_outside_none():
    for shape in (
        {"box": (4.1, 3.1, 4.3, 3.2)},
        {"polygon": [(4.1, 3.1), (4.3, 3.1), (4.2, 3.3)]},
        {"polygon": [(4.2, 3.2)]},
        {"disk": (4.2, 3.2, 0.1)},
        {"disk": (4.2, 3.2, 0.0)},
    ):
        assert np.argwhere(draw([shape], (8, 10))).tolist() == [[3, 4]]
    assert not draw([{"box": (20, 20, 25, 25)}], (8, 10)).any()
    assert draw([{"box": (-5, -5, 2, 2)}], (8, 10)).sum() == 4


def test_coco(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 7, "bbox": [3, 2, 4, 3]},
            {"image_id": 7, "bbox": [0, 0, 1, 1], "segmentation": [[0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]]},
            {"image_id": 7, "bbox": [0, 0, 1, 1], "segmentation": {"size": [8, 10], "counts": [7, 1, 72]}},
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    shapes = read_coco(tmp_path / "c.json")
    expected = np.zeros((8, 10), bool)
    expected[2:5, 3:7] = expected[0, 0] = expected[7, 0] = True  # runs go down the columns
    np.testing.assert_array_equal(draw(shapes["a.png"], (8, 10)), expected)
    assert shapes["b.png"] == []


def _runs_text(mask: np.ndarray) -> str:
    """A mask as COCO's string, written bit by bit from its definition."""
    down = mask.T.ravel().astype(int)
    edges = np.flatnonzero(
        np.diff(down, prepend=0, append=1 - down[-1])
    )  # where the value changes, and the end
    lengths = np.diff(edges, prepend=0).tolist()
    text = ""
    for k, length in enumerate(lengths):
        number = length - lengths[k - 2] if k > 2 else length
        digits = next(n for n in range(1, 20) if -(1 << 5 * n - 1) <= number < 1 << 5 * n - 1)
        bits = format(number % (1 << 5 * digits), f"0{5 * digits}b")
        groups = [bits[5 * k : 5 * k + 5] for k in range(digits)][::-1]
        text += "".join(chr(48 + int(f"{k < digits - 1:b}{group}", 2)) for k, group in enumerate(groups))
    return text


def _coco_runs(folder, size, counts):
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [{"image_id": 7, "segmentation": {"size": size, "counts": counts}}],
    }
    (folder / "c.json").write_text(json.dumps(content))
    return read_coco(folder / "c.json")["a.png"]


@pytest.mark.parametrize(
    ("size", "marked", "text"),  # as pycocotools 2.0.11 writes them
    [
        ((8, 10), [(slice(2, 5), slice(3, 7))], "j03500000f0"),
        ((64, 80), [(slice(10, 13), slice(20, 24)), (40, 70), (0, 0)], "01YX12diN00000nl2NlcM"),
        ((512, 640), [(slice(500, 502), slice(630, 640)), (3, 3)], "S`11`oi91^`VF00000000000000000\\@"),
        ((5, 7), [(slice(None), slice(None))], "0S1"),
        ((8, 10), [], "`2"),
    ],
)
def test_compressed_run_lengths_of_coco(tmp_path, size, marked, text):
    mask = np.zeros(size, bool)
    for where in marked:
        mask[where] = True
    np.testing.assert_array_equal(draw(_coco_runs(tmp_path, size, text), size), mask)
    assert _runs_text(mask) == text


def test_any_mask_comes_back_from_its_run_lengths(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = tuple(rng.integers(1, 90, 2).tolist())
        mask = rng.random(size) > rng.random()
        np.testing.assert_array_equal(draw(_coco_runs(tmp_path, size, _runs_text(mask)), size), mask)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ("abc", "last run length is cut off"),
        ("é", "not a character of run lengths"),
        ("j03500000", r"\d+ pixels for 10x8"),
        ([7, 1, 2], "10 pixels for 10x8"),
        ([90, -10], "80 pixels for 10x8"),
        (["a"], "invalid literal"),
    ],
)
def test_damaged_run_lengths_are_refused(tmp_path, counts, reason):
    with pytest.raises(InputError, match=rf"c\.json: annotation 0: its run lengths are damaged \(.*{reason}"):
        _coco_runs(tmp_path, (8, 10), counts)


def test_run_lengths_of_another_size_than_the_image_are_refused(tmp_path):
    shapes = _coco_runs(tmp_path, (8, 10), "`2")
    with pytest.raises(
        InputError, match=r"annotation 0 is a mask of 10x8, its image is 20x16 \(width x height\)"
    ):
        draw(shapes, (16, 20))


def test_labelme(tmp_path):
    shapes = [
        {"shape_type": "rectangle", "points": [[7, 5], [3, 2]]},
        {"shape_type": "polygon", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]},
        {"shape_type": "circle", "points": [[8.5, 6.5], [8.5, 7.0]]},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes}))
    expected = np.zeros((8, 10), bool)
    expected[2:5, 3:7] = expected[0, 0] = expected[6, 8] = True
    np.testing.assert_array_equal(draw(read_labelme(tmp_path / "a.json"), (8, 10)), expected)
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [{"shape_type": "line", "points": [[0, 0]]}]}))
    with pytest.raises(InputError, match="a line cannot become a mask"):
        read_labelme(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("seq3_0001", "seq3"),
        ("44/1(814)", "44/1"),
        ("flight-a/000017", "flight-a/"),
        ("Misc_1", "Misc"),
        ("a", "a"),
    ],
)
def test_sequences_are_names_without_the_number_at_the_end(name, sequence):
    assert sequence_of(name).rstrip("/") == sequence.rstrip("/")


def test_frames_of_a_sequence_stay_together_and_shares_come_near():
    names = [f"s{k}_{frame:03d}" for k in range(20) for frame in range(5 + k)]
    split = split_names(names, {"val": 0.1, "test": 0.3}, by_sequence=True, seed=1)
    sequences = [{sequence_of(name) for name in split[role]} for role in ("train", "val", "test")]
    assert sum(map(len, sequences)) == 20
    assert sorted(name for role in split.values() for name in role) == sorted(names)
    assert len(split["test"]) == pytest.approx(0.3 * len(names), abs=12)
    assert split == split_names(names[::-1], {"val": 0.1, "test": 0.3}, by_sequence=True, seed=1)
    assert split != split_names(names, {"val": 0.1, "test": 0.3}, by_sequence=True, seed=2)


def test_images_are_split_to_the_count_and_one_sequence_cannot_be():
    names = [f"f{k}" for k in range(100)]
    split = split_names(names, {"test": 0.25, "val": 0.0}, by_sequence=False, seed=0)
    assert {role: len(of) for role, of in split.items()} == {"train": 75, "test": 25}
    with pytest.raises(ConfigError, match=r"1 sequence\(s\).*--by image"):
        split_names(names, {"test": 0.25}, by_sequence=True, seed=0)


def test_coco_names_do_not_match_the_same_frame_of_another_folder(tmp_path):
    files = {name: tmp_path / f"{name}.bmp" for name in ("a/1", "b/1", "c")}
    file = tmp_path / "coco.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "b/1.bmp"}, {"id": 2, "file_name": "x/c.bmp"}],
                "annotations": [],
            }
        )
    )
    assert set(labels_from_coco(files, file)) == {"b/1", "c"}
    for unknown in ("1.bmp", "d/1.bmp"):
        file.write_text(json.dumps({"images": [{"id": 1, "file_name": unknown}], "annotations": []}))
        with pytest.raises(InputError, match=f"not there, first {unknown}"):
            labels_from_coco(files, file)
