"""Targets as connected components, and which of them a prediction detects."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

#: A target is detected by a component whose centroid is nearer than this (pixels, strictly).
MATCH_DISTANCE = 3.0


@dataclass(frozen=True)
class Components:
    """The 8-connected components of a binary map.

    Attributes:
        labels: 0 for background, k + 1 for component k, without the rows and columns that nothing lies in.
        rows: which row of the map each row of ``labels`` is.
        columns: likewise.
        areas: (N,) pixels.
        centroids: (N, 2) mean (x, y) of the pixel coordinates.
        boxes: (N, 4) left, top, width, height in pixels.
    """

    labels: NDArray[np.int32]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.areas)

    def raster_order(self) -> list[int]:
        """Components by their first pixel, row by row, which is not always OpenCV's order."""
        flat = self.labels.ravel()[::-1]
        first = np.zeros(len(self) + 1, np.int64)
        first[flat] = np.arange(flat.size)[::-1]  # of equal labels the last write stays: the first pixel
        return np.argsort(first[1:]).tolist()


def components(binary: NDArray[np.bool_]) -> Components:
    """Label a boolean map (H, W) with 8-connectivity."""
    pixels = np.ascontiguousarray(binary).view(np.uint8)
    return label(pixels, *squeeze(pixels))


def squeeze(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and the columns of a map of 0 and 1 that are needed to label it.

    Targets are few and small: most rows and columns are empty, and of a run of empty ones the last is enough
    to keep what lies on its sides apart. Labelling takes time by the pixel, so this makes it several times
    faster.
    """
    kept = []
    for axis in (1, 0):
        occupied = np.asarray(pixels.view(bool).any(axis))
        needed = occupied.copy()
        needed[:-1] |= occupied[1:]
        kept.append(np.flatnonzero(needed))
    return kept[0], kept[1]


def label(pixels: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Components:
    """The components of a map of which only ``rows`` and ``columns`` matter, from :func:`squeeze`."""
    if not len(rows):
        return Components(
            np.zeros((0, 0), np.int32),
            rows,
            columns,
            np.zeros(0, np.int64),
            np.zeros((0, 2)),
            np.zeros((0, 4), np.int32),
        )
    small = pixels if len(rows) * len(columns) == pixels.size else pixels[rows[:, None], columns]
    return relabel(small, rows, columns)


def relabel(small: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Components:
    """The components of a map that holds ``rows`` and ``columns`` only."""
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(small, connectivity=8, ltype=cv2.CV_32S)
    boxes, centroids = stats[1:, :4], centroids[1:]
    # No component spans an empty row or column, so each has moved as a whole.
    moved = np.empty((len(boxes), 2), np.int64)
    moved[:, 0] = columns[boxes[:, 0]] - boxes[:, 0]
    moved[:, 1] = rows[boxes[:, 1]] - boxes[:, 1]
    boxes[:, :2] += moved.astype(np.int32)
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    # The sum of whole coordinates by their number, rounded once, whatever was left out of the map.
    sums = np.rint(centroids * areas[:, None]) + moved * areas[:, None]
    return Components(labels, rows, columns, areas, sums / areas[:, None], boxes)


def distances(targets: NDArray[np.float64], predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(targets, predictions) Euclidean distances of centroids (N, 2) in pixels."""
    difference = targets[:, None] - predictions[None]
    return np.sqrt(np.einsum("tpk,tpk->tp", difference, difference))


def match(targets: Components, predictions: Components) -> NDArray[np.int64]:
    """Which prediction detects each target, one to one.

    Targets in raster order each take the first free prediction, in raster order, whose centroid is nearer
    than :data:`MATCH_DISTANCE`, as the published codes have it.

    Returns:
        (number of targets,) index of the prediction, -1 for a missed target.
    """
    matched = np.full(len(targets), -1, np.int64)
    if not len(targets) or not len(predictions):
        return matched
    rows, columns = np.nonzero(distances(targets.centroids, predictions.centroids) < MATCH_DISTANCE)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    if len({row for row, _ in pairs}) == len(pairs) == len({column for _, column in pairs}):
        matched[rows] = columns  # nothing to decide, so no order is needed
        return matched

    order = {prediction: place for place, prediction in enumerate(predictions.raster_order())}
    near: dict[int, list[int]] = {}
    for target, prediction in sorted(pairs, key=lambda pair: order[pair[1]]):
        near.setdefault(target, []).append(prediction)
    taken: set[int] = set()
    for target in targets.raster_order():
        free = next((prediction for prediction in near.get(target, ()) if prediction not in taken), None)
        if free is not None:
            matched[target] = free
            taken.add(free)
    return matched
