"""ROC and PR curves, at the level of targets and of pixels, from counts at 200 thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.metrics.branches import States, states
from sam_spl.metrics.figures import ratio
from sam_spl.metrics.target import MATCH_DISTANCE, Components, components, distances, match, relabel, squeeze

#: Thresholds of curves, prediction = probability > threshold: 0, then even steps of the logit, 0.5 among
#: them. Trained networks answer near 0 or 1, where even steps of the probability would separate nothing.
STEPS = 200
THRESHOLDS = np.concatenate([[0.0], 1 / (1 + np.exp((100 - np.arange(1, STEPS)) / 10))])
HALF = 100  # the step of threshold 0.5

#: What is counted at each threshold.
CURVE_FIELDS = ("hit_pixels", "predicted_pixels", "detected", "predictions", "false_alarm_pixels")

#: Area of targets: mean over Fa from 0 to this, in pixels over all pixels.
_MOST_FA = 100e-6

# The middle of each level, in logits; of those that are never or always predicted the end.
_MIDDLES = np.concatenate([[0.0], 1 / (1 + np.exp((100.5 - np.arange(1, STEPS + 1)) / 10))]).astype(
    np.float32
)


def _bucket(prob: Any) -> NDArray[np.int32]:
    """Equal for probabilities whose leading bits are, and rising with them: 65,025 buckets from 0 to 1."""
    return np.asarray(prob, np.float32).view(np.int32) >> 14


_LEVELS = np.searchsorted(_bucket(THRESHOLDS[1:]), np.arange(int(_bucket(1.0)) + 1)).astype(np.uint8)
_UNDECIDED = 255  # a threshold lies in the bucket
_LEVELS[_bucket(THRESHOLDS[1:])] = _UNDECIDED


def levels(prob: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The number of thresholds below each pixel's probability: it is predicted at step k when level > k.

    Exact for float32 and float64: rounding to float32 and taking buckets keep the order, so a probability and
    a threshold in different buckets are separated by them; the others are compared as they are.
    """
    level = _LEVELS.take(_bucket(prob), mode="clip")
    undecided = level == _UNDECIDED
    level[undecided] = np.searchsorted(THRESHOLDS[1:], prob[undecided])
    level += prob > 0
    return level


def probabilities(level: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A map of levels as probabilities again, each the middle (in logits) of those that have the level."""
    return _MIDDLES[level]


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
    found = states(level)
    counts[:, 3] = np.bincount(found.steps, minlength=STEPS)
    targets = components(mask) if targets is None else targets
    counts[:, 4] = counts[:, 1]
    if len(targets):
        steps, detected, areas = _detected(level, targets, found)
        counts[steps, 2] = detected
        counts[steps, 4] -= areas
    return counts


def _detected(
    level: NDArray[np.uint8], targets: Components, found: States
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Steps at which a target is detected, how many are, and the pixels of what detects them."""
    centroids = np.stack([found.x / found.areas, found.y / found.areas], 1)
    near = np.zeros(level.shape, np.uint8)
    near[tuple(np.rint(targets.centroids[:, ::-1]).astype(np.int64).T)] = 1
    reach = 2 * int(MATCH_DISTANCE + 1) + 1  # rounding moves each of two centroids by half a pixel at most
    near = cv2.dilate(near, np.ones((reach, reach), np.uint8))
    candidates = np.flatnonzero(near[tuple(np.rint(centroids[:, ::-1]).astype(np.int64).T)])
    at, which = np.nonzero(distances(centroids[candidates], targets.centroids) < MATCH_DISTANCE)
    of = candidates[at]
    steps, areas = found.steps[of], found.areas[of].astype(np.int64)
    detected = np.bincount(steps, minlength=STEPS)
    hit = np.zeros(STEPS, np.int64)
    np.add.at(hit, steps, areas)
    # Where two candidates compete the order of matching decides.
    taken = np.unique(of), np.unique(steps * len(targets) + which)
    several = detected > np.bincount(found.steps[taken[0]], minlength=STEPS)
    several |= detected > np.bincount(taken[1] // len(targets), minlength=STEPS)
    for step in np.flatnonzero(several):
        predictions = components(level > step)
        matched = match(targets, predictions)
        detected[step] = (matched >= 0).sum()
        hit[step] = predictions.areas[matched[matched >= 0]].sum()
    at_all = np.flatnonzero(detected)
    return at_all, detected[at_all], hit[at_all]


def detections(
    level: NDArray[np.uint8], targets: Components
) -> Iterator[tuple[slice, Components, NDArray[np.int64]]]:
    """What is predicted and which targets it detects, once for all thresholds in a row that predict the same.

    Args:
        level: (H, W), from :func:`levels`.
        targets: the components of the mask.

    Yields:
        Steps k of one prediction as a slice, its components, and what :func:`~sam_spl.metrics.target.match`
        says. Steps that predict nothing are left out.
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
            rows, columns, level, binary = (
                rows[kept_rows],
                columns[kept_columns],
                level[window],
                binary[window],
            )
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
        ``target`` and ``pixel`` curves, as (..., 200) arrays by threshold, and ``figures``, of which each
        chooses its threshold among all of them, on the images that it is measured on. NaN where undefined:
        without a target, and pixel ROC area without background. A prediction that is right at one threshold
        has 1 everywhere, one that is empty at all of them 0, but a pixel ROC area of 0.5.
    """
    hit, predicted, detected, predictions, false = np.moveaxis(np.asarray(sums, float), -1, 0)
    targets, labelled, pixels = (np.asarray(value, float)[..., None] for value in (targets, labelled, pixels))
    pd, fa = ratio(detected, targets), ratio(false, pixels)
    tpr, fpr = ratio(hit, labelled), ratio(predicted - hit, pixels - labelled)
    target_precision, precision = ratio(detected, predictions), ratio(hit, predicted)
    return {
        "target": {"pd": pd, "fa": fa, "precision": target_precision},
        "pixel": {"tpr": tpr, "fpr": fpr, "precision": precision},
        "figures": {
            "pd_at_fa": np.where(fa <= budget, pd, 0 * pd).max(-1),
            "auc_target": _mean_of_best(fa / _MOST_FA, pd),
            "auc_pixel": _roc_area(fpr, tpr),
            "ap_target": _mean_of_best(1 - pd, np.nan_to_num(target_precision)),
            "ap_pixel": _average_precision(tpr, precision),
        },
    }


def _mean_of_best(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Mean over t in [0, 1] of the highest y of any point with x <= t (0 without one), summed exactly."""
    order = np.argsort(x, axis=-1)
    x, y = np.take_along_axis(x, order, -1).clip(None, 1), np.take_along_axis(y, order, -1)
    best = np.maximum.accumulate(y, axis=-1)
    return (best * np.diff(x, axis=-1, append=1)).sum(-1)


def _roc_area(fpr: NDArray[Any], tpr: NDArray[Any]) -> NDArray[Any]:
    """By trapezoids over the points, of which rising thresholds have falling rates, and both corners."""
    ends = [(0, 0)] * (fpr.ndim - 1) + [(1, 1)]
    x, y = (np.pad(rate, ends, constant_values=(1, 0)) for rate in (fpr, tpr))
    return (-np.diff(x, axis=-1) * (y[..., 1:] + y[..., :-1]) / 2).sum(-1)


def _average_precision(recall: NDArray[Any], precision: NDArray[Any]) -> NDArray[Any]:
    """Precision weighted by the recall that each threshold adds, from the highest down."""
    added = -np.diff(recall, axis=-1, append=0)
    return (added * np.nan_to_num(precision)).sum(-1)
