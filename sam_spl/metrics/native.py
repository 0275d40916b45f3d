"""The ``native`` protocol: probability > 0.5 at the image's own resolution, exact counts, ratios at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from sam_spl.metrics.target import components, match

#: What the protocol fixes, for result files.
PROTOCOL = {
    "protocol": "native",
    "threshold": 0.5,
    "resolution": "the image's own",
    "matching": "centroids nearer than 3 px, 8-connectivity, one to one in raster order",
    "false_alarms": "pixels of predicted components that detect nothing",
    "empty": "an empty mask with an empty prediction has nIoU 1",
}


@dataclass(frozen=True)
class ImageCounts:
    """What one image adds to every figure; all are counts of pixels or of targets."""

    pixels: int
    intersection: int
    predicted: int
    labelled: int
    targets: int
    detected: int
    false_alarm_pixels: int
    false_alarms: int

    @property
    def union(self) -> int:
        """Pixels in the mask, the prediction or both."""
        return self.predicted + self.labelled - self.intersection

    @property
    def iou(self) -> float:
        """The image's own IoU; 1 where mask and prediction are both empty."""
        return self.intersection / self.union if self.union else 1.0


@dataclass(frozen=True)
class NativeScores:
    """The figures of one data set, in [0, 1]; None where undefined (see :func:`scores`)."""

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
        return (
            f"IoU = {percent(self.iou)} | F1 = {percent(self.f1)} | nIoU = {percent(self.niou)} | "
            f"Pd = {percent(self.pd)} | Fa = {'-' if self.fa is None else f'{self.fa * 1e6:.2f}'}"
        )


def percent(value: float | None) -> str:
    """A ratio as percent with two decimals; a dash where it is undefined."""
    return "-" if value is None else f"{100 * value:.2f}"


def count_image(pred: NDArray[np.bool_], mask: NDArray[np.bool_]) -> ImageCounts:
    """Compare a prediction with its mask, both boolean (H, W).

    Raises:
        ValueError: the two have different sizes.
    """
    if pred.shape != mask.shape:
        raise ValueError(f"prediction {pred.shape} and mask {mask.shape} differ in size")
    predictions, targets = components(pred), components(mask)
    matched = match(targets, predictions)
    hits = matched[matched >= 0]
    overlap = 0
    if len(predictions) and len(targets):
        overlap = cv2.countNonZero((pred & mask).view(np.uint8))
    predicted = int(predictions.areas.sum())
    return ImageCounts(
        pixels=pred.size,
        intersection=overlap,
        predicted=predicted,
        labelled=int(targets.areas.sum()),
        targets=len(targets),
        detected=len(hits),
        false_alarm_pixels=predicted - int(predictions.areas[hits].sum()),
        false_alarms=len(predictions) - len(hits),
    )


def scores(images: Iterable[ImageCounts]) -> NativeScores:
    """Ratios of summed counts.

    An empty mask with an empty prediction adds nothing to IoU and 1 to the mean of nIoU. Without any target in the
    data set Pd and pixel accuracy are None; without images everything is.
    """
    images = list(images)
    total = {f.name: sum(getattr(image, f.name) for image in images) for f in fields(ImageCounts)}
    union = total["predicted"] + total["labelled"] - total["intersection"]
    recall = _ratio(total["intersection"], total["labelled"])
    return NativeScores(
        iou=_ratio(total["intersection"], union),
        niou=sum(image.iou for image in images) / len(images) if images else None,
        f1=_ratio(2 * total["intersection"], total["predicted"] + total["labelled"]),
        precision=_ratio(total["intersection"], total["predicted"]),
        recall=recall,
        pixel_accuracy=recall,
        pd=_ratio(total["detected"], total["targets"]),
        fa=_ratio(total["false_alarm_pixels"], total["pixels"]),
        images=len(images),
        targets=total["targets"],
        detected=total["detected"],
        false_alarms=total["false_alarms"],
    )


class NativeMetric(Metric):
    """Per-image counts over batches and processes, gathered by torchmetrics when computed.

    ``update`` takes the image's index in the data set, so that figures can be traced to their images and an image
    that two processes scored would be counted once.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(
        self, indices: Sequence[int], preds: Sequence[NDArray[np.bool_]], masks: Sequence[NDArray[np.bool_]]
    ) -> None:
        """Add images: their indices, boolean predictions and boolean masks (H, W), any sizes.

        A process that may have no image at all adds none once: it then gathers zero rows like any other number.
        """
        rows = [
            [index, *asdict(count_image(pred, mask)).values()]
            for index, pred, mask in zip(indices, preds, masks, strict=True)
        ]
        columns = 1 + len(fields(ImageCounts))
        self.rows.append(torch.tensor(rows, dtype=torch.int64, device=self.device).reshape(-1, columns))

    def compute(self) -> Tensor:
        """All rows, of every process: the index, then the fields of :class:`ImageCounts`."""
        return dim_zero_cat(self.rows)

    def counts(self) -> dict[int, ImageCounts]:
        """Counts by index, in the order of the data set, of every process."""
        return {index: ImageCounts(*counts) for index, *counts in sorted(self.compute().tolist())}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
