"""Overlays: what is boxed in which colour, where, and what the caption counts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam_spl.report.render import _FALSE, _FOUND, _HIT, _MISSED, margins, marked, overlay, stretch, write_png

SIDE, ZOOM, BAR = 64, 8, 28


def _scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A target that is hit at (10, 10), one that is missed at (30, 40), a false alarm at (50, 10); x, y."""
    image, mask = np.full((SIDE, SIDE), 20, np.uint8), np.zeros((SIDE, SIDE), bool)
    mask[10:13, 10:13] = mask[40:42, 30:32] = True
    prob = np.where(mask, 0.9, 0.1).astype(np.float32)
    prob[40:42, 30:32], prob[10:12, 50:52] = 0.5, 0.6
    return np.where(mask, 200, image).astype(np.uint8), mask, prob


def _at(panel: int, x: float, y: float) -> tuple[slice, slice]:
    """A few pixels around a place of the image in a panel."""
    row, column = round(BAR + ZOOM * y), round(SIDE * ZOOM * panel + ZOOM * x)
    return slice(row - 1, row + 2), slice(column - 1, column + 2)


def _has(picture: np.ndarray, place: tuple[slice, slice], colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture[place].astype(int) - colour).sum(-1) < 30).any())


@pytest.mark.parametrize("panel", [0, 1, 2])
def test_boxes_lie_3_pixels_around_what_they_mean(panel):
    picture = overlay(*_scene())
    assert picture.shape == (BAR + SIDE * ZOOM, 3 * SIDE * ZOOM, 3)
    for left, top, width, height, colour in (
        (10, 10, 3, 3, _HIT), (30, 40, 2, 2, _MISSED), (50, 10, 2, 2, _FALSE),
    ):  # fmt: skip
        x, y = left + width / 2, top + height / 2
        for place in ((left - 3, y), (left + width + 3, y), (x, top - 3), (x, top + height + 3)):
            assert _has(picture, _at(panel, *place), colour), place
        assert not _has(picture, _at(panel, left - 1.5, y), colour)


def test_panels_show_image_mask_and_probability():
    image, mask, prob = _scene()
    picture = overlay(image, mask, prob)
    for panel, of_hit, of_missed in ((0, 255, 255), (1, 255, 255), (2, 229, 127)):
        assert picture[_at(panel, 11.5, 11.5)].ravel().tolist() == [of_hit] * 27
        assert picture[_at(panel, 31, 41)].ravel().tolist() == [of_missed] * 27


def test_the_caption_of_the_prediction_is_a_legend():
    bar = overlay(*_scene())[:BAR]
    for panel, there in ((0, False), (1, False), (2, True)):
        part = bar[:, SIDE * ZOOM * panel : SIDE * ZOOM * (panel + 1)]
        for colour in (_HIT, _MISSED, _FALSE):
            assert ((part == colour).all(-1).sum() >= 81) == there


def test_a_large_image_is_not_enlarged_and_16_bits_are_shown():
    image, mask = np.full((600, 700), 5000, np.uint16), np.zeros((600, 700), bool)
    image[:, 350:] = 9000
    picture = overlay(image, mask, np.zeros((600, 700), np.float32))
    assert picture.shape == (628, 2100, 3)
    assert (picture[300, 100, 0], picture[300, 600, 0]) == (0, 255)


def test_outlines_of_neighbours_do_not_meet():
    boxes = np.array(
        [[10, 10, 3, 3], [15, 10, 3, 3], [40, 40, 2, 2], [19, 10, 3, 3], [42, 43, 2, 2]], np.int32
    )
    assert margins(boxes).tolist() == [0.5, 0, 0, 0, 0]  # gaps of 2, 1 and, diagonally, 1
    assert margins(boxes[:1]).tolist() == margins(boxes[[0, 2]])[:1].tolist() == [3]
    assert margins(boxes[:0]).shape == (0,)
    of = margins(boxes)
    for k, (left, top, width, height) in enumerate(boxes):
        for other, (left_2, top_2, width_2, height_2) in enumerate(boxes[:k]):
            reach = of[k] + of[other]
            gap = max(
                left - left_2 - width_2, left_2 - left - width, top - top_2 - height_2, top_2 - top - height
            )
            assert gap - reach >= 1


def test_grey_is_stretched_between_percentiles():
    ramp = np.linspace(100, 1100, 1000).reshape(20, 50)
    shown = stretch(ramp.astype(np.uint16))
    assert (shown.dtype, shown.min(), shown.max()) == (np.uint8, 0, 255)
    assert shown[10, 0] == pytest.approx(127, abs=2)
    assert stretch(np.full((9, 9), 7, np.uint8)).max() == 0
    assert stretch(np.dstack([np.full((9, 9), 7, np.uint8)] * 3)).shape == (9, 9)


def test_a_written_picture_is_read_as_rgb(tmp_path):
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[..., 0] = 200
    write_png(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)


def test_detections_are_outlined_and_numbered_on_the_image_alone():
    image, _, _ = _scene()
    boxes = np.array([[10, 10, 3, 3], [58, 40, 2, 2]], np.int32)
    picture, plain = marked(image, boxes, [7, 12]), marked(image, boxes[:0], [])
    assert picture.shape == plain.shape == (SIDE * ZOOM, SIDE * ZOOM, 3)
    np.testing.assert_array_equal(
        plain, np.repeat(np.repeat(stretch(image)[..., None].repeat(3, 2), 8, 0), 8, 1)
    )
    for x, y in ((7, 11.5), (16, 11.5), (11.5, 7), (11.5, 16), (55, 41)):
        row, column = round(y * ZOOM), round(x * ZOOM)
        assert _has(picture, (slice(row - 1, row + 2), slice(column - 1, column + 2)), _FOUND)
    changed = (picture != plain).any(-1)
    assert changed[70:100, 131:145].any()  # 7 to the right of its outline
    assert changed[310:330, 400:436].any()  # 12 to the left, where the picture ends
    np.testing.assert_array_equal(picture[80:104, 80:104], plain[80:104, 80:104])  # the target stays


def test_colours_stay_and_floats_are_shown_as_16_bits():
    colour = np.random.default_rng(0).integers(0, 256, (600, 400, 3), dtype=np.uint8)
    np.testing.assert_array_equal(marked(colour, np.zeros((0, 4), np.int32), []), colour)
    deep = np.random.default_rng(1).integers(7000, 7900, (600, 400)).astype(np.uint16)
    none = np.zeros((0, 4), np.int32)
    np.testing.assert_allclose(
        marked(deep, none, []).astype(int), marked(deep / np.float32(65535), none, []), atol=1
    )
    assert marked(deep, none, []).std() > 60  # a hundredth of the scale, and it can be seen


def test_large_images_are_shrunk_with_their_outlines():
    image = np.zeros((100, 8192), np.uint8)
    image[40:60, 2000:2020] = 200
    picture = marked(image, np.array([[2000, 40, 20, 20]], np.int32), [1])
    assert picture.shape == (50, 4096, 3)
    assert _has(picture, (slice(24, 27), slice(996, 999)), _FOUND)


def test_many_outlines_are_drawn_without_their_distances():
    boxes = np.stack(np.meshgrid(np.arange(0, 400, 5), np.arange(0, 400, 5)), -1).reshape(-1, 2)
    boxes = np.concatenate([boxes, np.ones_like(boxes)], 1).astype(np.int32)
    assert marked(np.zeros((600, 600), np.uint8), boxes, range(len(boxes))).shape == (600, 600, 3)
