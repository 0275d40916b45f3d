"""hIoU, the hierarchical IoU of arXiv 2509.16888 (NeurIPS 2025), and its error split."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam_spl.metrics.target import MATCH_DISTANCE, Components, distances

_OVERLAP = 0.5


class HierarchicalCounts(NamedTuple):
    """What one image adds. The first four are sums over matched pairs of parts of the pair's union."""

    iou: float = 0.0
    merged: float = 0.0  # predicted pixels on other targets
    interference: float = 0.0  # predicted pixels on background
    missed: float = 0.0  # target pixels not predicted
    matched: int = 0
    lone_predictions: int = 0  # without partner by either criterion
    lone_targets: int = 0
    further_predictions: int = 0  # with a partner, which went to another
    further_targets: int = 0


def count_hierarchical(predictions: Components, targets: Components) -> HierarchicalCounts:
    """Match targets and predictions, overlap first, then distance.

    Args:
        predictions: of one image.
        targets: of its mask.
    """
    if not len(predictions) or not len(targets):
        return HierarchicalCounts(lone_predictions=len(predictions), lone_targets=len(targets))
    common = overlaps(predictions, targets)
    distance = distances(targets.centroids, predictions.centroids)
    # Where assignments tie, the published code's order of components decides.
    target_areas, predicted_areas = targets.areas, predictions.areas
    if min(distance.shape) > 1:
        t_order, p_order = targets.raster_order(), predictions.raster_order()
        raster = np.ix_(t_order, p_order)
        common, distance = common[raster], distance[raster]
        target_areas, predicted_areas = target_areas[t_order], predicted_areas[p_order]
    union = target_areas[:, None] + predicted_areas[None] - common
    iou = common / union
    partner = (iou >= _OVERLAP) | (distance < MATCH_DISTANCE)

    pairs = _assign(distance, iou >= _OVERLAP)
    taken_targets, taken_predictions = {t for t, _ in pairs}, {p for _, p in pairs}
    free_targets = [t for t in range(len(targets)) if t not in taken_targets]
    free_predictions = [p for p in range(len(predictions)) if p not in taken_predictions]
    left = distance[np.ix_(free_targets, free_predictions)]
    pairs += [(free_targets[t], free_predictions[p]) for t, p in _assign(left, left < MATCH_DISTANCE)]

    sums = np.zeros(4)
    for t, p in pairs:
        merged = common[:, p].sum() - common[t, p]
        background = predicted_areas[p] - common[:, p].sum()
        missed = target_areas[t] - common[t, p]
        sums += np.array([common[t, p], merged, background, missed]) / union[t, p]
    lone_predictions, lone_targets = int((~partner.any(0)).sum()), int((~partner.any(1)).sum())
    iou_sum, merged_sum, interference, missed_sum = sums.tolist()
    return HierarchicalCounts(
        iou=iou_sum,
        merged=merged_sum,
        interference=interference,
        missed=missed_sum,
        matched=len(pairs),
        lone_predictions=lone_predictions,
        lone_targets=lone_targets,
        further_predictions=len(predictions) - len(pairs) - lone_predictions,
        further_targets=len(targets) - len(pairs) - lone_targets,
    )


def overlaps(predictions: Components, targets: Components) -> NDArray[np.int64]:
    """(targets, predictions) pixels in common."""
    # The rows and columns that both kept: what is common lies in them.
    rows, t_rows, p_rows = np.intersect1d(
        targets.rows, predictions.rows, assume_unique=True, return_indices=True
    )
    columns, t_columns, p_columns = np.intersect1d(
        targets.columns, predictions.columns, assume_unique=True, return_indices=True
    )
    if not len(rows) or not len(columns):
        return np.zeros((len(targets), len(predictions)), np.int64)
    t, p = targets.labels[t_rows[:, None], t_columns], predictions.labels[p_rows[:, None], p_columns]
    both = (p > 0) & (t > 0)
    pairs = (t[both] - 1) * len(predictions) + (p[both] - 1)
    return np.bincount(pairs, minlength=len(targets) * len(predictions)).reshape(
        len(targets), len(predictions)
    )


def _assign(distance: NDArray[np.float64], allowed: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The assignment of least total distance over all pairs, of which only allowed ones are kept."""
    if not allowed.any():
        return []
    if 1 in distance.shape:
        rows, columns = np.unravel_index([np.argmin(distance)], distance.shape)
    else:
        from scipy.optimize import linear_sum_assignment  # a second to import, and most images need none

        rows, columns = linear_sum_assignment(distance)
    return [(int(t), int(p)) for t, p in zip(rows, columns, strict=True) if allowed[t, p]]
