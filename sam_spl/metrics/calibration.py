"""The threshold of a detector for a budget of false alarms, and what the images can promise of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv

from sam_spl.errors import InputError
from sam_spl.metrics.curves import CURVE_FIELDS, THRESHOLDS

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Calibration:
    """A threshold and its promise.

    Attributes:
        threshold: a pixel is predicted where its probability is above; one of
            :data:`~sam_spl.metrics.curves.THRESHOLDS`.
        budget: the share of frames with a false alarm that is promised not to be exceeded, with
            :data:`CONFIDENCE`, on frames of the kind of these images.
        images: how many it was chosen on.
        alarmed: of them, with a false alarm at this or a higher threshold.
        bound: exact one-sided upper bound of the share, at most the budget.
        alarms_per_frame: false alarms over images, at the threshold. Measured, not promised: a mean of
            counts without a largest one has no exact bound.
        detected: targets found at the threshold.
        targets: in all images.
    """

    threshold: float
    budget: float
    images: int
    alarmed: int
    bound: float
    alarms_per_frame: float
    detected: int
    targets: int


def calibrate(curves: NDArray[Any], targets: int, budget: float) -> Calibration:
    """The lowest threshold at which the share of frames with a false alarm is bounded by the budget.

    A false alarm is a predicted region that is no target's: matched one to one, centroids of a target and its
    region are nearer than 3 pixels (:mod:`sam_spl.metrics.target`). A frame is alarmed at a threshold if it
    has a false alarm there or at any higher one, so that the share falls with the threshold. The threshold is
    then an order statistic of the frames: it is too low only if at most k of n independent frames are alarmed
    where each is with a probability above the budget, and k is the largest number whose binomial probability
    is at most 5 %. This is the bound of Clopper and Pearson, and choosing among thresholds costs nothing (as
    fixed-sequence testing).

    Args:
        curves: (images, 200, 5) counts, as :class:`~sam_spl.metrics.dataset_counts.DatasetCounts` has them.
        targets: number of targets in all images.
        budget: share of frames, in (0, 1).

    Raises:
        InputError: there are too few images for any promise, or the network finds false alarms at every
            threshold.
    """
    alarms = curves[..., CURVE_FIELDS.index("predictions")] - curves[..., CURVE_FIELDS.index("detected")]
    images = len(alarms)
    require_images(images, budget)
    most = allowed(images, budget)
    alarmed = (np.maximum.accumulate(alarms[:, ::-1] > 0, axis=1)[:, ::-1]).sum(0)  # (200,), falling
    fit = np.flatnonzero(alarmed <= most)
    if not len(fit):
        raise InputError(
            f"budget: {int(alarmed[-1])} of {images} images have a false alarm at the highest threshold, "
            f"{THRESHOLDS[-1]:.5f}; {most} may have one. Give a larger budget or other weights."
        )
    step = int(fit[0])
    count = int(alarmed[step])
    return Calibration(
        threshold=float(THRESHOLDS[step]),
        budget=budget,
        images=images,
        alarmed=count,
        bound=upper_bound(count, images),
        alarms_per_frame=float(alarms[:, step].sum() / images),
        detected=int(curves[:, step, CURVE_FIELDS.index("detected")].sum()),
        targets=targets,
    )


def require_images(images: int, budget: float) -> None:
    """See that so many images can promise a budget at all.

    Raises:
        InputError: not even without any false alarm.
    """
    if allowed(images, budget) < 0:
        best, needed = 1 - (1 - CONFIDENCE) ** (1 / max(images, 1)), images_for(budget)
        raise InputError(
            f"budget: {images} images without any false alarm promise {best:.3f} of frames at best, not "
            f"{budget:g}, which takes {needed} images. Give more images or a larger budget."
        )


def unlike(calibration: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """In one sentence, which settings differ from those that a promise is for; None where none does.

    Args:
        calibration: of a weights file's description.
        now: some of its ``settings`` as they are in this use.
    """
    of = calibration.get("settings", {})
    differing = [key for key, value in now.items() if key in of and of[key] != value]
    if not differing:
        return None
    shown = ", ".join(f"{key} {_named(now[key])} (there {_named(of[key])})" for key in differing)
    return f"the threshold was calibrated with other settings: {shown}. Its promise does not cover these"


def _named(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def at_threshold(curves: NDArray[Any], threshold: float) -> dict[str, float]:
    """What a calibrated threshold does on other images.

    Args:
        curves: (images, 200, 5) counts of at least one image.
        threshold: one of :data:`~sam_spl.metrics.curves.THRESHOLDS`, or the next above it is taken.

    Returns:
        ``detected`` targets, ``alarms_per_frame``, and ``alarmed``, the share of frames with any.
    """
    at = curves[:, min(int(np.searchsorted(THRESHOLDS, threshold)), len(THRESHOLDS) - 1)]
    detected = at[:, CURVE_FIELDS.index("detected")]
    alarms = at[:, CURVE_FIELDS.index("predictions")] - detected
    return {
        "threshold": threshold,
        "detected": int(detected.sum()),
        "alarms_per_frame": float(alarms.mean()),
        "alarmed": float((alarms > 0).mean()),
    }


def allowed(images: int, budget: float) -> int:
    """How many of the images may be alarmed; -1 where none at all would promise too little."""
    counts = np.arange(images + 1)
    return int((bdtr(counts, images, budget) <= 1 - CONFIDENCE).sum()) - 1


def images_for(budget: float) -> int:
    """The fewest images that can promise a budget, none of them alarmed."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-budget))


def upper_bound(alarmed: int, images: int) -> float:
    """Clopper's and Pearson's one-sided bound of a share."""
    return 1.0 if alarmed >= images else float(betaincinv(alarmed + 1, images - alarmed, CONFIDENCE))
