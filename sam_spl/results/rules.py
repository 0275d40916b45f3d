"""What a protocol fixes, in words, and why two protocols give different figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sam_spl.metrics.figures import FIGURES
from sam_spl.metrics.protocols import Protocol

#: nIoU of an image whose mask and prediction are both empty; NaN leaves it out of the mean.
EMPTY = {"one": 1.0, "zero": 0.0, "skip": float("nan")}
EMPTY_IMAGE = "an empty mask with an empty prediction "


def empty_rule(name: str | None) -> float | None:
    """The value of a name in :data:`EMPTY`; None where a protocol keeps its own rule."""
    return None if name is None else EMPTY[name]


_RESOLUTIONS = {"own": "the image's own", "input": "the network's input"}


def describe(protocol: Protocol, *, empty: float | None = None) -> dict[str, Any]:
    """What a protocol fixes, for result files.

    Args:
        protocol: the declaration.
        empty: of :data:`EMPTY`, instead of the protocol's own rule.
    """
    relative = "p / max(p) > 0.5 for F1, Pd and Fa, over images with targets; p > 0.5 for IoU"
    side = protocol.resolution
    return {
        "protocol": protocol.name,
        "threshold": relative if protocol.relative else 0.5,
        "resolution": _RESOLUTIONS.get(side, f"{side} x {side}"),
        "matching": "centroids nearer than 3 px, 8-connectivity, one to one in raster order",
        "false_alarms": (
            "areas of predicted components whose area value is that of no matched component"
            if protocol.by_area
            else "pixels of predicted components that detect nothing"
        ),
        "empty": _describe_empty(protocol.empty if empty is None else empty),
        "note": protocol.note,
    }


def _describe_empty(value: float | None) -> str:
    if value is None:
        return "nIoU not reported"
    if np.isnan(value):
        return f"{EMPTY_IMAGE}is left out of nIoU"
    return f"{EMPTY_IMAGE}has nIoU {value:g}"


def differences(
    chosen: Iterable[Protocol],
    scored: Mapping[str, Mapping[str, float | None]],
    *,
    empties: bool,
) -> dict[str, dict[str, str]]:
    """Protocol -> figure -> the other rule that makes it differ from the first protocol's, however little.

    Args:
        chosen: the protocols, the first being the one that the others are compared with.
        scored: their figures; counts among them are not compared.
        empties: whether there are images whose mask and prediction are both empty.
    """
    first, *others = chosen
    found: dict[str, dict[str, str]] = {}
    for other in others:
        for key, a in scored[first.name].items():
            b = scored[other.name][key]
            if key not in FIGURES or a is None or b is None or a == b:
                continue
            if reasons := _reasons(first, other, key, empties):
                found.setdefault(other.name, {})[key] = "; ".join(reasons)
    return found


def _reasons(first: Protocol, other: Protocol, figure: str, empties: bool) -> list[str]:
    reasons = []
    if other.resolution != first.resolution:
        reasons.append(f"scored at {describe(other)['resolution']} resolution, masks resized")
    if other.relative != first.relative and figure not in ("iou", "niou"):
        reasons.append("threshold relative to each image's maximum, images without target left out")
    if other.by_area != first.by_area and figure == "fa":
        reasons.append("a false alarm as large as a detected target's component is not counted")
    if other.empty != first.empty and figure == "niou" and empties:
        reasons.append(f"a correctly empty image counts {other.empty:g} instead of {first.empty:g}")
    return reasons
