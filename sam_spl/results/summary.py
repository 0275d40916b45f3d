"""From counts to what a result file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import sam_spl
from sam_spl.metrics.counts import ImageCounts
from sam_spl.metrics.curves import THRESHOLDS, curve_figures
from sam_spl.metrics.dataset_counts import OWN, DatasetCounts
from sam_spl.metrics.figures import FIGURES, Columns, figures, hierarchical_figures, pd_by_size
from sam_spl.metrics.intervals import intervals
from sam_spl.metrics.protocols import PROTOCOLS, Protocol
from sam_spl.metrics.scores import columns, scores
from sam_spl.results.files import COUNTS
from sam_spl.results.rules import describe, differences, empty_rule

_PREDICTED, _LABELLED = (ImageCounts._fields.index(name) for name in ("predicted", "labelled"))


def summarise(
    counts: DatasetCounts,
    names: Sequence[str],
    protocols: Sequence[Protocol],
    *,
    empty: str | None = None,
    bootstrap: int = 0,
    budget: float = 1e-5,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Every figure of a data set as plain values for JSON.

    Args:
        counts: of every image, with hIoU and curves where those are wanted.
        names: of the images, in the same order.
        protocols: the first one is the one that the others are compared with.
        empty: of :data:`EMPTY`; None keeps each protocol's rule.
        bootstrap: number of resamples for 95 % intervals; 0 leaves them out.
        budget: Fa that "Pd at Fa" stays within, in pixels over all pixels.
        groups: of images that are not independent, the group of each (:mod:`sam_spl.metrics.resampling`).
    """
    rule = empty_rule(empty)
    scored = {protocol.name: asdict(scores(counts, protocol, empty=rule)) for protocol in protocols}
    views = [counts.views[protocol.views[0]] for protocol in protocols]
    empties = empty is None and any((of[:, _PREDICTED] + of[:, _LABELLED] == 0).any() for of in views)
    differing = differences(protocols, scored, empties=empties)
    reported = {}
    for protocol in protocols:
        of = columns(protocol, counts.views, empty=rule)
        reported[protocol.name] = {
            **describe(protocol, empty=rule),
            "scores": scored[protocol.name],
            "intervals": intervals(of, figures, groups=groups, resamples=bootstrap),
            "differs": differing.get(protocol.name, {}),
            "images": _images(names, of, counts.masks, groups),
        }
    first = reported[protocols[0].name]
    report = {"protocol": protocols[0].name, "scores": first["scores"], "intervals": first["intervals"]}
    report["images"] = first.pop("images")
    report |= {"bootstrap": bootstrap, "groups": len(set(groups)) if groups else None, "protocols": reported}
    report["figures"] = {key: figure.describe() for key, figure in FIGURES.items()}
    if counts.curves is not None:
        report["details"] = _details(counts, bootstrap, budget, groups)
    return report


def _details(
    counts: DatasetCounts, bootstrap: int, budget: float, groups: Sequence[str] | None
) -> dict[str, Any]:
    """hIoU, Pd by size and the curves, at the images' own resolution."""
    own = columns(PROTOCOLS["native"], counts.views)
    assert counts.curves is not None
    curve_columns = {"curves": counts.curves, **{key: own[key] for key in ("targets", "labelled", "pixels")}}

    def of_curves(sums: Columns) -> Mapping[str, Any]:
        return curve_figures(
            sums["curves"], sums["targets"], sums["labelled"], sums["pixels"], budget=budget
        )["figures"]

    parts = {
        "pd_by_size": (own, pd_by_size),
        "hiou": (counts.hierarchical_columns(), hierarchical_figures),
        "curves": (curve_columns, of_curves),
    }
    details: dict[str, Any] = {"fa_budget": budget}
    for name, (of, ratios) in parts.items():
        sums = {key: column.sum(0) for key, column in of.items()}
        details[name] = {key: _plain(value) for key, value in ratios(sums).items()}
        details[f"{name}_intervals"] = intervals(of, ratios, groups=groups, resamples=bootstrap)
    endings = [key for key in own if key.startswith("targets_")]
    details["targets_by_size"] = dict(
        zip(details["pd_by_size"], (int(own[key].sum()) for key in endings), strict=True)
    )
    sums = {key: column.sum(0) for key, column in curve_columns.items()}
    points = curve_figures(sums["curves"], sums["targets"], sums["labelled"], sums["pixels"], budget=budget)
    details["thresholds"] = THRESHOLDS.tolist()
    for level in ("target", "pixel"):
        details[f"{level}_curve"] = {
            key: [None if np.isnan(y) else round(float(y), 9) for y in of]
            for key, of in points[level].items()
        }
    return details


def _images(
    names: Sequence[str], of: Columns, masks: NDArray[np.int64] | None, groups: Sequence[str] | None
) -> list[dict[str, Any]]:
    """What each image adds to each figure, and what says whether two results can be compared."""
    rows = np.stack([of[column] for column in COUNTS.values()], 1).astype(np.int64).tolist()
    ious = [
        iou if counted == 1 else None
        for iou, counted in zip(of["iou_of_images"], of["images_of_niou"], strict=True)
    ]
    about: list[dict[str, Any]] = [{"name": name} for name in names]
    for row, group in zip(about, groups or [], strict=bool(groups)):
        row["group"] = group
    for row, (height, width, content) in zip(
        about, [] if masks is None else masks.tolist(), strict=masks is not None
    ):
        row |= {"height": height, "width": width, "mask": f"{content:08x}"}
    return [
        {**first, **dict(zip(COUNTS, row, strict=True)), "iou": iou}
        for first, row, iou in zip(about, rows, ious, strict=True)
    ]


def versions() -> dict[str, str]:
    """What computed a result."""
    return {"sam_spl": sam_spl.__version__, "torch": metadata.version("torch"), "opencv": cv2.__version__}


def worst(counts: DatasetCounts) -> list[int]:
    """Positions of the images with the most missed and false targets, then the lowest IoU."""
    images = counts.images(OWN) if OWN in counts.views else counts.images(next(iter(counts.views)))

    def badness(position: int) -> tuple[int, float]:
        image = images[position]
        return -(image.targets - image.detected + image.false_alarms), image.iou

    return sorted(range(len(images)), key=badness)


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
