"""ROC and PR curves, at the level of targets and of pixels, from counts at 200 thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.metrics.figures import ratio
from sam_spl.metrics.target import Components, components, match, relabel, squeeze

#: Thresholds of curves: prediction = probability > k / 200.
STEPS = 200
THRESHOLDS = np.arange(STEPS) / STEPS

#: What is counted at each threshold.
CURVE_FIELDS = ("hit_pixels", "predicted_pixels", "detected", "predictions", "false_alarm_pixels")


def levels(prob: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """For each pixel the number of thresholds below its probability: it is predicted at step k when its level > k."""
    # 24 bits of float32 times 8 of 200 are exact in float64, so no pixel falls on the wrong side.
    level = np.clip(np.ceil(prob.astype(np.float64) * STEPS), 0, STEPS).astype(np.uint8)
    if prob.dtype == np.float64:  # where the product may round onto a threshold
        level -= (level > 0) & (prob <= THRESHOLDS[np.maximum(level, 1) - 1])
        level += (level < STEPS) & (prob > THRESHOLDS[np.minimum(level, STEPS - 1)])
    return level


def curve_counts(
    prob: NDArray[np.floating[Any]], mask: NDArray[np.bool_], targets: Components | None = None
) -> NDArray[np.int64]:
    """Counts of one image, (200, 5): :data:`CURVE_FIELDS` at every threshold.

    Args:
        prob: (H, W) in [0, 1].
        mask: (H, W), the ground truth.
        targets: the components of ``mask``, where they are known.
    """
    level = levels(prob)
    counts = np.zeros((STEPS, len(CURVE_FIELDS)), np.int64)
    counts[:, 0] = np.bincount(level[mask], minlength=STEPS + 1)[:0:-1].cumsum()[::-1]
    counts[:, 1] = np.bincount(level.ravel(), minlength=STEPS + 1)[:0:-1].cumsum()[::-1]
    for steps, predictions, matched in detections(level, components(mask) if targets is None else targets):
        hits = matched[matched >= 0]
        counts[steps, 2:] = len(hits), len(predictions), int(predictions.areas.sum() - predictions.areas[hits].sum())
    return counts


def detections(level: NDArray[np.uint8], targets: Components) -> Iterator[tuple[slice, Components, NDArray[np.int64]]]:
    """What is predicted and which targets it detects, once for each run of thresholds that predict the same pixels.

    Args:
        level: (H, W), from :func:`levels`.
        targets: the components of the mask.

    Yields:
        Steps k of one prediction as a slice, its components, and what :func:`~sam_spl.metrics.target.match` says.
        Steps that predict nothing are left out.
    """
    histogram = np.bincount(level.ravel(), minlength=STEPS + 1)
    above = histogram[:0:-1].cumsum()[::-1]  # pixels predicted at each step
    present = np.flatnonzero(histogram)  # at each of these the prediction shrinks
    starts = [0, *(int(k) for k in present if 0 < k < STEPS)]
    rows, columns = np.arange(level.shape[0]), np.arange(level.shape[1])
    squeezed_at = 2 * level.size
    for start, stop in zip(starts, [*starts[1:], STEPS], strict=True):
        if not above[start]:
            break
        binary = cv2.threshold(level, start, 1, cv2.THRESH_BINARY)[1]
        if above[start] < 0.8 * squeezed_at:  # what is predicted only shrinks
            squeezed_at = above[start]
            kept_rows, kept_columns = squeeze(binary)
            window = (kept_rows[:, None], kept_columns)
            rows, columns, level, binary = rows[kept_rows], columns[kept_columns], level[window], binary[window]
        predictions = relabel(binary, rows, columns)
        yield slice(start, stop), predictions, match(targets, predictions)


def curve_figures(
    sums: NDArray[Any], targets: Any, labelled: Any, pixels: Any, *, budget: float = 1e-5
) -> dict[str, Any]:
    """Curves and what is read off them.

    Args:
        sums: (..., 200, 5) counts summed over images.
        targets: (...) number of targets.
        labelled: (...) target pixels.
        pixels: (...) all pixels.
        budget: Fa that "Pd at Fa" stays within, in pixels over all pixels.

    Returns:
        ``roc`` and ``pr`` curves by ``target`` and ``pixel``, as (..., 200) arrays by threshold, and ``figures``:
        areas by trapezoids over the points, average precision, and the highest Pd within the budget. NaN where
        undefined.
    """
    hit, predicted, detected, predictions, false = np.moveaxis(np.asarray(sums, float), -1, 0)
    targets, labelled, pixels = (np.asarray(value, float)[..., None] for value in (targets, labelled, pixels))
    pd, fa = ratio(detected, targets), ratio(false, pixels)
    tpr, fpr = ratio(hit, labelled), ratio(predicted - hit, pixels - labelled)
    target_precision, precision = ratio(detected, predictions), ratio(hit, predicted)
    within = np.where(fa <= budget, pd, -np.inf).max(-1)
    return {
        "target": {"pd": pd, "fa": fa, "precision": target_precision},
        "pixel": {"tpr": tpr, "fpr": fpr, "precision": precision},
        "figures": {
            "pd_at_fa": np.where(np.isfinite(within), within, np.where(np.isnan(pd[..., 0]), np.nan, 0.0)),
            "auc_target": _area(fa, pd),
            "auc_pixel": _area(fpr, tpr),
            "ap_target": _average_precision(pd, target_precision),
            "ap_pixel": _average_precision(tpr, precision),
        },
    }


def _area(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """By trapezoids over the points, which thresholds order by falling x."""
    return -(np.diff(x, axis=-1) * (y[..., 1:] + y[..., :-1]) / 2).sum(-1)


def _average_precision(recall: NDArray[Any], precision: NDArray[Any]) -> NDArray[Any]:
    """Precision weighted by the recall that each threshold adds, from the highest down."""
    added = recall - np.concatenate([recall[..., 1:], np.zeros_like(recall[..., :1])], -1)
    value = (added * np.nan_to_num(precision)).sum(-1)
    return np.where(np.isnan(recall[..., 0]), np.nan, value)
