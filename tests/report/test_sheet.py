"""The picture of a data set: every target outlined where it is."""

from __future__ import annotations

import cv2
import numpy as np

from sam_spl.data.layout import Item
from sam_spl.report.sheet import _OUTLINE, draw_sheet, outlined


def _item(folder, size=(110, 220), mask_size=None) -> Item:
    """A target of 6x4 pixels at column 100, row 50; of its mask in that one's own size."""
    image = np.random.default_rng(0).integers(20, 60, size, dtype=np.uint8)
    mask = np.zeros(mask_size or size, np.uint8)
    scale = mask.shape[0] / size[0]
    mask[round(50 * scale) : round(54 * scale), round(100 * scale) : round(106 * scale)] = 255
    cv2.imwrite(str(folder / "image.png"), image)
    cv2.imwrite(str(folder / "mask.png"), mask)
    return Item("a", folder / "image.png", folder / "mask.png")


def _outline(tile: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((tile == _OUTLINE).all(-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_a_tile_has_a_line_around_each_target(tmp_path):
    tile = outlined(_item(tmp_path))
    assert tile.shape == (110, 220, 3)
    assert _outline(tile) == (100 - 4, 50 - 4, 106 + 3, 54 + 3)


def test_a_tile_of_a_large_image_is_shrunk_and_its_line_with_it(tmp_path):
    tile = outlined(_item(tmp_path, size=(220, 440)))
    assert tile.shape == (110, 220, 3)
    assert _outline(tile) == (50 - 4, 25 - 4, 53 + 3, 27 + 3)


def test_a_mask_of_another_size_is_outlined_where_it_belongs(tmp_path):
    assert _outline(outlined(_item(tmp_path, mask_size=(220, 440)))) == (96, 46, 109, 57)


def test_a_sheet_grows_by_rows_of_eight(tmp_path):
    item = _item(tmp_path)
    heights = []
    for count in (1, 8, 9):
        draw_sheet(tmp_path / "sheet.png", "a set", [(item, "a")] * count, [1, 9, 24, 24])
        picture = cv2.imread(str(tmp_path / "sheet.png"))
        assert picture.shape[1] == 16 * 90
        heights.append(picture.shape[0])
        found = (np.abs(picture.astype(int) - _OUTLINE[::-1]).sum(-1) < 120).any()
        assert found  # the outline is in the picture
    assert heights[0] == heights[1] < heights[2]
    draw_sheet(tmp_path / "empty.png", "nothing", [], [])
    assert (tmp_path / "empty.png").stat().st_size > 0
