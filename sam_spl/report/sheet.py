"""One picture of a data set: images with their targets outlined, and how large the targets are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sam_spl.data.layout import Item
from sam_spl.data.reading import read_image, read_mask
from sam_spl.files import atomic
from sam_spl.report.render import stretch

_TILE = 220  # pixels
_COLUMNS = 8
_OUTLINE = (255, 140, 0)


def draw_sheet(path: str | Path, title: str, items: Sequence[tuple[Item, str]], areas: Sequence[int]) -> None:
    """Write a contact sheet with an area histogram as PNG.

    Args:
        path: file to write.
        title: of the picture.
        items: images to show, each with a caption.
        areas: of all targets, in pixels.
    """
    rows = max(1, -(-len(items) // _COLUMNS))
    figure = Figure(figsize=(16, 2.15 * rows + 2.8), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(rows + 1, _COLUMNS, height_ratios=[2.1] * rows + [2.4])
    for k, (item, caption) in enumerate(items):
        axis = figure.add_subplot(grid[k // _COLUMNS, k % _COLUMNS])
        axis.imshow(outlined(item))
        axis.set_title(caption, fontsize=8)
        axis.set_axis_off()

    axis = figure.add_subplot(grid[rows, :])
    if len(areas):
        largest = max(max(areas), 10)
        bins = np.unique(np.geomspace(1, largest + 1, 30).round()) - 0.5
        axis.hist(areas, bins=bins.tolist(), color="#0072b2")
        axis.set_xscale("log")
        for edge in (9.5, 25.5, 81.5):  # the classes of "Pd by size"
            axis.axvline(edge, color="#d55e00", linewidth=0.8, linestyle="--")
    axis.set(xlabel="target area in pixels (dashed: the classes up to 9, 25 and 81)", ylabel="targets")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)


def outlined(item: Item) -> NDArray[np.uint8]:
    """The image as a tile, a line around every target."""
    image, mask = read_image(item.image), read_mask(item.mask)
    zoom = _TILE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
    tile = cv2.cvtColor(cv2.resize(stretch(image), size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    number, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    scale = (size[0] / mask.shape[1], size[1] / mask.shape[0])
    for left, top, width, height, _ in stats[1:number]:
        corner = (round(left * scale[0]) - 4, round(top * scale[1]) - 4)
        opposite = (round((left + width) * scale[0]) + 3, round((top + height) * scale[1]) + 3)
        cv2.rectangle(tile, corner, opposite, _OUTLINE, 1)
    return tile
