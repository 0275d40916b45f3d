"""The report of a test: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.files import write_text
from sam_spl.metrics.curves import STEPS, detections
from sam_spl.metrics.dataset_counts import DatasetCounts
from sam_spl.metrics.figures import MAIN, figures
from sam_spl.metrics.protocols import PROTOCOLS
from sam_spl.metrics.scores import columns
from sam_spl.metrics.target import components
from sam_spl.report.render import stretch
from sam_spl.resize import Image, Mask

_TEMPLATE = Path(__file__).with_name("page.html")
_MOST_BYTES = 18_000_000  # of pictures; a report is to stay under 20 MB
_MOST_BOXES = 40  # of false alarms at one threshold, the largest


class Sample(NamedTuple):
    """One image of the gallery: as stored, its mask, and its prediction by thresholds exceeded."""

    name: str
    image: Image
    mask: Mask
    level: NDArray[np.uint8]


def write_report(
    path: Path,
    report: Mapping[str, Any],
    counts: DatasetCounts,
    *,
    title: str,
    about: Sequence[tuple[str, str]],
    order: Sequence[int],
    sample: Callable[[int], Sample],
    empty: float | None = None,
    most: int = 200,
) -> None:
    """Write the report.

    Args:
        path: file to write.
        report: from :func:`sam_spl.results.summary.summarise`, with details.
        counts: what it was made from.
        title: headline.
        about: what was tested on what.
        order: positions of images, the ones to show first in front.
        sample: the image at a position.
        empty: nIoU of an image correctly predicted empty; None for native's.
        most: number of images in the gallery; fewer where they would not fit into 20 MB.
    """
    details = report["details"]
    rule = PROTOCOLS["native"].empty if empty is None else empty
    images: list[dict[str, Any]] = []
    size = 0
    for position in order[:most]:
        entry = _image(sample(position), rule)
        size += sum(len(entry[key]) for key in ("picture", "mask", "level"))
        if images and size > _MOST_BYTES:
            break
        images.append(entry)
    data = {
        "title": title,
        "about": about,
        "table": report["figures"],
        "main": [figure.key for figure in MAIN],
        "protocols": {
            name: {key: value for key, value in entry.items() if key != "images"}
            for name, entry in report["protocols"].items()
        },
        "thresholds": details["thresholds"],
        "fa_budget": details["fa_budget"],
        "live": live_figures(counts, empty=empty),
        "curves": {"target": details["target_curve"], "pixel": details["pixel_curve"]},
        "figures": details["curves"],
        "pd_by_size": details["pd_by_size"],
        "targets_by_size": details["targets_by_size"],
        "shown": f"{len(images)} of {len(counts)} images, those with most missed and false targets at 0.5.",
        "images": images,
    }
    # No tag can begin or end inside the data, not even in an image's name.
    content = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template = _TEMPLATE.read_text(encoding="utf-8")
    write_text(path, template.replace("/*POLICY*/", policy(template)).replace("/*DATA*/", content))


def policy(page: str) -> str:
    """A content security policy by which nothing runs but the page's own script, and nothing is fetched."""
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    of_script, of_style = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (script, style)
    )
    return (
        f"default-src 'none'; script-src {of_script}; style-src {of_style}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def live_figures(counts: DatasetCounts, *, empty: float | None = None) -> dict[str, list[float | None]]:
    """IoU, nIoU, F1, Pd and Fa of the data set at each of the 200 thresholds, under ``native``."""
    assert counts.curves is not None
    own = columns(PROTOCOLS["native"], counts.views, empty=empty)
    hit, predicted, detected, _, false = np.moveaxis(counts.curves, -1, 0)  # (images, 200) each
    union = predicted + own["labelled"][:, None] - hit
    rule = PROTOCOLS["native"].empty if empty is None else empty
    iou = np.where(union > 0, hit / np.maximum(union, 1), rule)  # (images, 200)
    sums = {
        "iou_intersection": hit.sum(0),
        "iou_union": union.sum(0),
        "iou_of_images": np.nan_to_num(iou).sum(0),
        "images_of_niou": (~np.isnan(iou)).sum(0),
        "intersection": hit.sum(0),
        "predicted": predicted.sum(0),
        "labelled": np.full(STEPS, own["labelled"].sum()),
        "targets": np.full(STEPS, own["targets"].sum()),
        "detected": detected.sum(0),
        "pixels": np.full(STEPS, own["pixels"].sum()),
        "false_alarm_pixels": false.sum(0),
    }
    ratios = figures(sums)
    return {
        figure.key: [None if np.isnan(value) else float(value) for value in ratios[figure.key]]
        for figure in MAIN
    }


def _image(sample: Sample, empty: float | None) -> dict[str, Any]:
    """What the page needs of one image."""
    targets = components(sample.mask)
    steps: list[list[Any]] = []
    for step, predictions, matched in detections(sample.level, targets):
        largest = np.argsort(-predictions.areas, kind="stable")
        false = largest[~np.isin(largest, matched)]
        boxes = predictions.boxes[false[:_MOST_BOXES]].tolist()
        entry = ["".join("1" if k >= 0 else "0" for k in matched), boxes, len(false)]
        if not steps or steps[-1][1:] != entry:
            steps.append([step.start, *entry])
    last = int(sample.level.max(initial=0))
    if last < STEPS:  # above it nothing is predicted
        steps.append([last, "0" * len(targets), [], 0])
    return {
        "name": sample.name,
        "width": sample.mask.shape[1],
        "height": sample.mask.shape[0],
        "boxes": targets.boxes.tolist(),
        "steps": steps,
        "iou": _ious(sample, empty),
        "picture": _uri(stretch(sample.image), ".jpg"),
        "mask": _uri(sample.mask.view(np.uint8), ".png"),
        "level": _uri(sample.level, ".png"),
    }


def _ious(sample: Sample, empty: float | None) -> list[float | None]:
    """The image's IoU at each threshold; where mask and prediction are empty ``empty``, None for NaN."""
    hit = np.bincount(sample.level[sample.mask], minlength=STEPS + 1)[:0:-1].cumsum()[::-1]
    predicted = np.bincount(sample.level.ravel(), minlength=STEPS + 1)[:0:-1].cumsum()[::-1]
    union = predicted + int(sample.mask.sum()) - hit
    ious = np.round(np.where(union > 0, hit / np.maximum(union, 1), empty), 4)
    return [None if np.isnan(iou) else iou for iou in ious.tolist()]


def _uri(image: NDArray[np.uint8], form: str) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, 88] if form == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    data = base64.b64encode(cv2.imencode(form, np.ascontiguousarray(image), options)[1].tobytes()).decode()
    return f"data:image/{'jpeg' if form == '.jpg' else 'png'};base64,{data}"
