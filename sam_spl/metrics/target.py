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
        labels: (H, W), 0 for background, k + 1 for component k; None for an empty map.
        areas: (N,) pixels.
        centroids: (N, 2) mean (x, y) of the pixel coordinates.
        boxes: (N, 4) left, top, width, height in pixels.
    """

    labels: NDArray[np.int32] | None
    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.areas)

    def raster_order(self) -> list[int]:
        """Components by their first pixel, row by row, which is not always OpenCV's order."""
        assert self.labels is not None
        first = []
        for k, (left, top, width, _) in enumerate(self.boxes):
            column = left + int(np.argmax(self.labels[top, left : left + width] == k + 1))
            first.append((int(top), int(column)))
        return sorted(range(len(self)), key=first.__getitem__)


def components(binary: NDArray[np.bool_]) -> Components:
    """Label a boolean map (H, W) with 8-connectivity."""
    pixels = np.ascontiguousarray(binary).view(np.uint8)
    if cv2.countNonZero(pixels) == 0:
        return Components(None, np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 4), np.int32))
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(pixels, connectivity=8, ltype=cv2.CV_32S)
    stats = stats[1:]
    return Components(labels, stats[:, cv2.CC_STAT_AREA].astype(np.int64), centroids[1:], stats[:, :4])


def match(targets: Components, predictions: Components) -> NDArray[np.int64]:
    """Which prediction detects each target, one to one.

    Targets in raster order each take the first free prediction, in raster order, whose centroid is nearer than
    :data:`MATCH_DISTANCE` (the published codes' rule, ``spec/metrics.md``).

    Returns:
        (number of targets,) index of the prediction, -1 for a missed target.
    """
    matched = np.full(len(targets), -1, np.int64)
    if not len(targets) or not len(predictions):
        return matched
    difference = targets.centroids[:, None] - predictions.centroids[None]
    near = np.hypot(difference[..., 0], difference[..., 1]) < MATCH_DISTANCE  # (targets, predictions)

    if near.sum(0).max() <= 1 and near.sum(1).max() <= 1:  # nothing to decide, so no order is needed
        rows, columns = np.nonzero(near)
        matched[rows] = columns
        return matched

    order = predictions.raster_order()
    free = np.ones(len(predictions), bool)
    for target in targets.raster_order():
        for prediction in order:
            if near[target, prediction] and free[prediction]:
                matched[target] = prediction
                free[prediction] = False
                break
    return matched
