"""From a probability map to targets: the regions above a threshold, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sam_spl.metrics.target import Components, components
from sam_spl.resize import Image

#: The ring around a region: pixels farther than the first from every region and not farther than the second
#: from this one, in pixels along the farther axis (Chebyshev distance).
RING = (2, 10)


@dataclass(frozen=True)
class Detection:
    """A target that was found.

    Attributes:
        id: number of the detection in its frame, from 1, by the region's first pixel, row by row.
        centroid: (row, column), the mean of the region's pixels.
        box: (left, top, width, height) in pixels.
        area: pixels.
        mean_prob: mean probability of the region's pixels.
        peak_prob: largest probability.
        scr: local signal-to-clutter ratio: (mean of the region in the image - mean of a ring around it) /
            standard deviation of the ring (see :data:`RING`), on grey values, which are the mean of three
            colours. Negative for a target darker than its surroundings. None where the ring is empty or flat.
    """

    id: int
    centroid: tuple[float, float]
    box: tuple[int, int, int, int]
    area: int
    mean_prob: float
    peak_prob: float
    scr: float | None


@dataclass(frozen=True)
class Regions:
    """The 8-connected regions of a map (H, W) above a threshold, and which of them count.

    Attributes:
        found: all of them.
        counted: those that count, in raster order of their first pixels.
        shape: (H, W).
    """

    found: Components
    counted: list[int]
    shape: tuple[int, int]

    def mask(self) -> NDArray[np.bool_]:
        """(H, W), the pixels of the regions that count."""
        mask = np.zeros(self.shape, np.bool_)
        if self.counted:
            counts = np.zeros(len(self.found) + 1, np.bool_)
            counts[np.array(self.counted) + 1] = True
            mask[self.found.rows[:, None], self.found.columns] = counts[self.found.labels]
        return mask

    def inside(self, region: int) -> NDArray[np.bool_]:
        """(height, width) of the region's box: which of its pixels are the region's."""
        left, top, width, height = self.found.boxes[region]
        # A region has a pixel in each row and column of its box, so none of these was left out.
        row, column = np.searchsorted(self.found.rows, top), np.searchsorted(self.found.columns, left)
        box: NDArray[np.bool_] = self.found.labels[row : row + height, column : column + width] == region + 1
        return box


def regions(
    prob: NDArray[np.float32], *, threshold: float, min_area: int = 1, top: int | None = None
) -> Regions:
    """The regions of ``prob > threshold``; arguments as for :func:`detect`."""
    found = components(prob > threshold)
    counted = [region for region in found.raster_order() if found.areas[region] >= min_area]
    if top is not None and len(counted) > top:
        labelled = prob[found.rows[:, None], found.columns]
        peaks = ndimage.maximum(labelled, found.labels, np.arange(len(found)) + 1)
        best = sorted(counted, key=lambda region: (-peaks[region], -found.areas[region]))
        chosen = set(best[:top])
        counted = [region for region in counted if region in chosen]
    return Regions(found, counted, (prob.shape[0], prob.shape[1]))


def describe(of: Regions, prob: NDArray[np.float32], image: Image, *, threshold: float) -> list[Detection]:
    """The regions that count, as detections; arguments as for :func:`detect`."""
    detections = []
    for number, region in enumerate(of.counted, 1):
        left, top, width, height = map(int, of.found.boxes[region])
        inside = of.inside(region)
        values = prob[top : top + height, left : left + width][inside]
        column, row = map(float, of.found.centroids[region])
        detections.append(
            Detection(
                id=number,
                centroid=(row, column),
                box=(left, top, width, height),
                area=int(of.found.areas[region]),
                mean_prob=float(values.mean(dtype=np.float64)),
                peak_prob=float(values.max()),
                scr=_scr(image, prob, threshold, (left, top), inside),
            )
        )
    return detections


def detect(
    prob: NDArray[np.float32],
    image: Image,
    *,
    threshold: float,
    min_area: int = 1,
    top: int | None = None,
) -> list[Detection]:
    """The targets in a probability map.

    Args:
        prob: (H, W) in [0, 1].
        image: what it was predicted from, (H, W) or (H, W, 3).
        threshold: pixels with a larger probability are target. Those that touch, also by a corner, are one
            region.
        min_area: regions of fewer pixels do not count.
        top: only that many regions count: those with the highest peaks, of equal ones the larger.

    Returns:
        The regions that count, in raster order.
    """
    return describe(
        regions(prob, threshold=threshold, min_area=min_area, top=top), prob, image, threshold=threshold
    )


def _scr(
    image: Image,
    prob: NDArray[np.float32],
    threshold: float,
    corner: tuple[int, int],
    inside: NDArray[np.bool_],
) -> float | None:
    """The signal-to-clutter ratio of the region that is ``inside`` a box at ``corner``, its (left, top)."""
    near, far = RING
    (left, top), (height, width) = corner, inside.shape
    rows = slice(max(0, top - far - near), top + height + far + near)
    columns = slice(max(0, left - far - near), left + width + far + near)
    targets = (prob[rows, columns] > threshold).view(np.uint8)  # of every region, also of those not counted
    region = np.zeros_like(targets)
    row, column = top - rows.start, left - columns.start
    region[row : row + height, column : column + width] = inside
    ring = _grown(region, far).view(np.bool_) & ~_grown(targets, near).view(np.bool_)
    grey = image[rows, columns]
    if grey.ndim == 3:
        grey = grey.mean(-1, dtype=np.float64)
    clutter = grey[ring].astype(np.float64)
    spread = clutter.std() if clutter.size else 0.0
    if not spread:
        return None
    signal = grey[region.view(np.bool_)].mean(dtype=np.float64)
    return float((signal - clutter.mean()) / spread)


def _grown(pixels: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    """A map of 0 and 1 with what is not farther than ``by`` pixels from a 1, by rows and by columns."""
    grown: NDArray[np.uint8] = cv2.dilate(pixels, np.ones((2 * by + 1, 2 * by + 1), np.uint8))
    return grown
