"""From counts to a result file and the tables that a test prints."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import sam_spl
from sam_spl.metrics.counts import ImageCounts
from sam_spl.metrics.curves import THRESHOLDS, curve_figures
from sam_spl.metrics.dataset_counts import OWN, DatasetCounts, scores
from sam_spl.metrics.figures import FIGURES, MAIN, figures, hierarchical_figures, pd_by_size
from sam_spl.metrics.protocols import PROTOCOLS, Columns, Protocol, columns
from sam_spl.metrics.uncertainty import intervals

#: nIoU of an image whose mask and prediction are both empty; NaN leaves it out of the mean.
EMPTY = {"one": 1.0, "zero": 0.0, "skip": float("nan")}

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
        groups: of images that are not independent, the group of each (:mod:`sam_spl.metrics.uncertainty`).
    """
    rule = EMPTY[empty] if empty else None
    scored = {protocol.name: asdict(scores(counts, protocol, empty=rule)) for protocol in protocols}
    views = [counts.views[protocol.views[0]] for protocol in protocols]
    empties = empty is None and any((of[:, _PREDICTED] + of[:, _LABELLED] == 0).any() for of in views)
    differing = differences(protocols, scored, empties=empties)
    reported = {}
    for protocol in protocols:
        of = columns(protocol, counts.views, empty=rule)
        reported[protocol.name] = {
            **protocol.describe(empty=rule),
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


def differences(
    chosen: Iterable[Protocol],
    scored: Mapping[str, Mapping[str, float | None]],
    *,
    empties: bool,
) -> dict[str, dict[str, str]]:
    """Protocol -> figure -> why it differs from the first protocol's by more than rounding.

    Args:
        chosen: the protocols, the first being the one that the others are compared with.
        scored: their figures; what is no figure (counts) is not compared.
        empties: whether there are images whose mask and prediction are both empty.
    """
    first, *others = chosen
    found: dict[str, dict[str, str]] = {}
    for other in others:
        for key, a in scored[first.name].items():
            b, figure = scored[other.name][key], FIGURES.get(key)
            if figure is None or a is None or b is None:
                continue
            if figure.scale * abs(a - b) > 0.5 * 10**-figure.decimals:
                found.setdefault(other.name, {})[key] = "; ".join(_reasons(first, other, key, empties))
    return found


def _reasons(first: Protocol, other: Protocol, figure: str, empties: bool) -> list[str]:
    reasons = []
    if other.resolution != first.resolution:
        reasons.append(f"scored at {other.describe()['resolution']}, masks resized")
    if other.relative != first.relative and figure not in ("iou", "niou"):
        reasons.append("threshold relative to each image's maximum, images without target left out")
    if other.by_area != first.by_area and figure == "fa":
        reasons.append("false alarms as large as a detected target's component vanish")
    if other.empty != first.empty and figure == "niou" and empties:
        reasons.append(
            f"an empty image that is predicted empty counts {other.empty:g} instead of {first.empty:g}"
        )
    return reasons


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
    """What can be traced of each figure to each image, and what it must share with another result to compare them."""
    keys = {
        "intersection": "iou_intersection",
        "union": "iou_union",
        "predicted": "predicted",
        "labelled": "labelled",
        "targets": "targets",
        "detected": "detected",
        "false_alarms": "false_alarms",
        "false_alarm_pixels": "false_alarm_pixels",
        "pixels": "pixels",
        "hit_pixels": "intersection",  # of F1; with a relative threshold not that of IoU
    }
    rows = np.stack([of[column] for column in keys.values()], 1).astype(np.int64).tolist()
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
        {**first, **dict(zip(keys, row, strict=True)), "iou": iou}
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


def table(report: Mapping[str, Any], about: Sequence[tuple[str, str]] = ()) -> str:
    """The figures with their intervals, one a line; then the protocols side by side, where there are several.

    Args:
        report: from :func:`summarise`.
        about: lines to put first, what was tested on what.
    """
    first = report["protocols"][report["protocol"]]
    result, bounds = first["scores"], first["intervals"]
    missed = result["targets"] - result["detected"]

    def row(
        key: str, values: Mapping[str, Any], intervals: Mapping[str, Any], more: str = ""
    ) -> tuple[str, str]:
        return FIGURES[key].title, FIGURES[key].full(values[key], intervals.get(key)) + more

    def beside(key: str, values: Mapping[str, Any]) -> str:
        return f"{FIGURES[key].title} {FIGURES[key].text(values[key])}"

    rows = [
        *about,
        (
            "protocol",
            f"{first['protocol']}: threshold {first['threshold']}, at {first['resolution']} resolution",
        ),
        row("iou", result, bounds),
        row("niou", result, bounds),
        row("f1", result, bounds, f"   {beside('precision', result)}, {beside('recall', result)}"),
        row("pixel_accuracy", result, bounds),
        row("pd", result, bounds, f"   {result['detected']} of {result['targets']} targets, {missed} missed"),
        row("fa", result, bounds, f"   in {result['false_alarms']} false alarms"),
    ]
    if details := report.get("details"):
        by_size, hiou = FIGURES["pd_by_size"], details["hiou"]
        sizes = (
            f"{key} px {by_size.text(value)} ({details['targets_by_size'][key]})"
            for key, value in details["pd_by_size"].items()
        )
        lowest = min((fa for fa in details["target_curve"]["fa"] if fa is not None), default=0.0)
        note = FIGURES["pd_at_fa"].note
        if lowest > details["fa_budget"]:
            note = f"no threshold of the curve stays within; the lowest Fa is {FIGURES['fa'].text(lowest)} x 1e-6"
        title, value = row("pd_at_fa", details["curves"], details["curves_intervals"], f"   {note}")
        rows += [
            (by_size.title, ", ".join(sizes)),
            (f"{title} <= {FIGURES['fa'].scale * details['fa_budget']:g}e-6", value),
            row(
                "hiou",
                hiou,
                details["hiou_intervals"],
                f"   {beside('seg_iou', hiou)}, {beside('loc_iou', hiou)}",
            ),
        ]
    if report["bootstrap"]:
        units = (
            f"{report['groups']} group(s) of {result['images']}"
            if report["groups"]
            else f"{result['images']}"
        )
        rows.append(("", f"in brackets: 95 % intervals over {units} images, {report['bootstrap']} resamples"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if len(report["protocols"]) > 1:
        lines += ["", *_side_by_side(report["protocols"])]
    return "\n".join(lines)


def per_image_csv(report: Mapping[str, Any]) -> str:
    """``images.csv``: the counts of each image under the first protocol, and its share of nIoU."""
    rows = report["images"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _side_by_side(protocols: Mapping[str, Any]) -> list[str]:
    """One line a protocol; an asterisk where it differs from the first by more than rounding, and why."""
    lines = [f"{'protocol':<12}" + "".join(f"{figure.heading:>10}" for figure in MAIN)]
    reasons: dict[str, str] = {}
    for name, entry in protocols.items():
        cells = []
        by_reason: dict[str, list[str]] = {}
        for figure in MAIN:
            why = entry["differs"].get(figure.key)
            cells.append(f"{figure.text(entry['scores'][figure.key]) + ('*' if why else ' '):>10}")
            if why:
                by_reason.setdefault(why, []).append(figure.title)
        lines.append(f"{name:<12}{''.join(cells)}")
        if by_reason:
            reasons[name] = ". ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
    return [*lines, *(f"* {name}: {why}." for name, why in reasons.items())]


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
