"""What one image adds to every figure: counts of pixels and of targets."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.metrics.target import Components, components, match

#: Largest target of each class of "Pd by size", in pixels; the last class has no bound.
SIZE_CLASSES = (9, 25, 81)


class ImageCounts(NamedTuple):
    """One image under one threshold at one resolution. Sums over images are counts of the data set."""

    pixels: int
    intersection: int
    predicted: int
    labelled: int
    targets: int
    detected: int
    false_alarms: int
    false_alarm_pixels: int
    false_alarm_pixels_by_area: int  # of components whose area value is that of no matched component
    targets_to_9: int
    targets_to_25: int
    targets_to_81: int
    targets_above_81: int
    detected_to_9: int
    detected_to_25: int
    detected_to_81: int
    detected_above_81: int

    @property
    def union(self) -> int:
        """Pixels in the mask, the prediction or both."""
        return self.predicted + self.labelled - self.intersection

    @property
    def iou(self) -> float:
        """The image's own IoU; 1 where mask and prediction are both empty."""
        return self.intersection / self.union if self.union else 1.0


def count_image(
    pred: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    *,
    predictions: Components | None = None,
    targets: Components | None = None,
) -> ImageCounts:
    """Compare a prediction with its mask, both boolean (H, W).

    Args:
        pred: the prediction.
        mask: the ground truth.
        predictions: the components of ``pred``, where they are known.
        targets: the components of ``mask``, likewise.

    Raises:
        ValueError: the two have different sizes.
    """
    if pred.shape != mask.shape:
        raise ValueError(f"prediction {pred.shape} and mask {mask.shape} differ in size")
    predictions = components(pred) if predictions is None else predictions
    targets = components(mask) if targets is None else targets
    matched = match(targets, predictions)
    found = matched >= 0
    hits = predictions.areas[matched[found]].tolist()
    areas = predictions.areas.tolist()
    predicted = sum(areas)
    overlap = 0
    if len(predictions) and len(targets):
        at_targets = pred[targets.rows[:, None], targets.columns]
        overlap = cv2.countNonZero((at_targets & (targets.labels > 0)).view(np.uint8))
    return ImageCounts(
        pred.size,
        overlap,
        predicted,
        sum(targets.areas.tolist()),
        len(targets),
        len(hits),
        len(areas) - len(hits),
        predicted - sum(hits),
        sum(area for area in areas if area not in hits) if hits else predicted,
        *_by_size(targets.areas),
        *_by_size(targets.areas[found]),
    )


def _by_size(areas: NDArray[np.int64]) -> list[int]:
    classes = [0] * (len(SIZE_CLASSES) + 1)
    for area in areas.tolist():
        classes[sum(area > bound for bound in SIZE_CLASSES)] += 1
    return classes
