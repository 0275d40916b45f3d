"""What each image adds under a protocol, and the scores of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sam_spl.metrics.counts import ImageCounts
from sam_spl.metrics.dataset_counts import DatasetCounts
from sam_spl.metrics.figures import FIGURES, Array, Columns, figures
from sam_spl.metrics.protocols import PROTOCOLS, Protocol, View


@dataclass(frozen=True)
class Scores:
    """Figures of one data set under one protocol, in [0, 1]; None where undefined, see :func:`scores`."""

    iou: float | None
    niou: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    pixel_accuracy: float | None
    pd: float | None
    fa: float | None
    images: int
    targets: int
    detected: int
    false_alarms: int

    def line(self) -> str:
        """The line that the published code prints: percent, and Fa in 1e-6 per pixel."""
        order = ("iou", "f1", "niou", "pd", "fa")
        return " | ".join(f"{FIGURES[key].title} = {FIGURES[key].text(getattr(self, key))}" for key in order)


def scores(
    counts: DatasetCounts, protocol: Protocol = PROTOCOLS["native"], *, empty: float | None = None
) -> Scores:
    """Ratios of summed counts.

    Under ``native`` an empty mask with an empty prediction adds nothing to IoU and 1 to the mean of nIoU.
    Without any target in the data set Pd and pixel accuracy are None; without images everything is.

    Args:
        counts: of every image, with the views that the protocol needs.
        protocol: the declaration.
        empty: as in :func:`columns`.
    """
    sums = {name: column.sum() for name, column in columns(protocol, counts.views, empty=empty).items()}
    ratios = {name: None if np.isnan(value) else float(value) for name, value in figures(sums).items()}
    return Scores(
        **ratios,
        images=len(counts),
        targets=int(sums["targets"]),
        detected=int(sums["detected"]),
        false_alarms=int(sums["false_alarms"]),
    )


def columns(protocol: Protocol, views: Mapping[View, Array], *, empty: float | None = None) -> Columns:
    """What each image adds under a protocol.

    Args:
        protocol: the declaration.
        views: (images, fields of :class:`ImageCounts`) for each of its views.
        empty: nIoU of an image whose mask and prediction are both empty, instead of the protocol's; NaN
            leaves such images out.
    """
    overlap, detection = (_fields(views[view]) for view in protocol.views)
    union = overlap["predicted"] + overlap["labelled"] - overlap["intersection"]
    both_empty = protocol.empty if empty is None else empty
    value = np.nan if both_empty is None else both_empty
    iou = np.where(union > 0, overlap["intersection"] / np.maximum(union, 1), value)
    counted = detection["targets"] > 0 if protocol.relative else np.ones(len(union), bool)
    false = detection["false_alarm_pixels_by_area" if protocol.by_area else "false_alarm_pixels"]
    wanted = {
        name: of * counted for name, of in detection.items() if not name.startswith("false_alarm_pixels")
    }
    return {
        "images": np.ones(len(union)),
        "iou_intersection": overlap["intersection"],
        "iou_union": union,
        "iou_of_images": np.nan_to_num(iou),
        "images_of_niou": np.where(np.isnan(iou) | (both_empty is None), 0.0, 1.0),
        **wanted,
        "false_alarm_pixels": false * counted,
    }


def _fields(counts: Array) -> Columns:
    return {name: counts[:, k] for k, name in enumerate(ImageCounts._fields)}
