"""The protocols that published numbers were counted under, as declarations, and what each image adds under them.

Pixels, targets and areas are pooled over the data set and ratios taken once at the end; nIoU alone is a mean over
images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam_spl.errors import ConfigError, nearest
from sam_spl.metrics.counts import ImageCounts

Array = NDArray[np.float64]
EMPTY_IMAGE = "an empty mask with an empty prediction "
Columns = dict[str, Array]  # name -> what each image adds, (images,), or sums, any shape


class View(NamedTuple):
    """What is counted: at which resolution, and above which threshold."""

    resolution: str  # own: the image's; input: the network's; a number: that square
    relative: bool = False  # above half of the image's own maximum, not above 0.5
    resize: str = "pillow"  # how masks get to another resolution, of sam_spl.resize.RULES


@dataclass(frozen=True)
class Protocol:
    """One way of scoring.

    Attributes:
        name: what it is called.
        resolution: as :class:`View`.
        relative: F1, Pd and Fa are taken above half of each image's maximum, over images with targets only; IoU
            is not.
        empty: nIoU of an image whose mask and prediction are both empty; None: nIoU is not reported.
        by_area: Fa counts the components whose area value equals that of no detected target's component. A known
            fault: a false alarm as large as a detected target vanishes.
        resize: as :class:`View`; masks are resized nearest.
    """

    name: str
    resolution: str = "own"
    relative: bool = False
    empty: float | None = 1.0
    by_area: bool = False
    resize: str = "pillow"

    @property
    def views(self) -> tuple[View, View]:
        """Where IoU is counted, and where F1, Pd and Fa."""
        return tuple(View(self.resolution, relative, self.resize) for relative in (False, self.relative))

    def describe(self, *, empty: float | None = None) -> dict[str, Any]:
        """What the protocol fixes, for result files; ``empty`` as in :func:`columns`."""
        relative = "p / max(p) > 0.5 for F1, Pd and Fa, over images with targets; p > 0.5 for IoU"
        return {
            "protocol": self.name,
            "threshold": relative if self.relative else 0.5,
            "resolution": {"own": "the image's own", "input": "the network's input"}.get(
                self.resolution, f"{self.resolution} x {self.resolution}"
            ),
            "matching": "centroids nearer than 3 px, 8-connectivity, one to one in raster order",
            "false_alarms": (
                "areas of predicted components whose area value is that of no matched component"
                if self.by_area
                else "pixels of predicted components that detect nothing"
            ),
            "empty": _describe_empty(self.empty if empty is None else empty),
        }


def _describe_empty(value: float | None) -> str:
    if value is None:
        return "nIoU not reported"
    if np.isnan(value):
        return f"{EMPTY_IMAGE}is left out of nIoU"
    return f"{EMPTY_IMAGE}has nIoU {value:g}"


#: Adding a protocol is adding a line.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("native"),
        Protocol("basicirstd", empty=None),
        Protocol("sam_spl", resolution="input", empty=0.0, by_area=True),
        Protocol("datransnet", relative=True, empty=None, by_area=True),
        Protocol("mshnet", resolution="256", empty=0.0, by_area=True),
        Protocol("dnanet", resolution="256", empty=0.0, by_area=True),
    )
}


def protocols_named(names: Iterable[str]) -> list[Protocol]:
    """The declarations of names, each once.

    Raises:
        ConfigError: unknown name, or none.
    """
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in PROTOCOLS:
            raise ConfigError(f"protocols: {name!r} is unknown. Nearest: {nearest(name, PROTOCOLS)}")
    if not chosen:
        raise ConfigError(f"protocols: name at least one of {', '.join(PROTOCOLS)}")
    return [PROTOCOLS[name] for name in chosen]


def columns(protocol: Protocol, views: Mapping[View, Array], *, empty: float | None = None) -> Columns:
    """What each image adds under a protocol.

    Args:
        protocol: the declaration.
        views: (images, fields of :class:`ImageCounts`) for each of its views.
        empty: nIoU of an image whose mask and prediction are both empty, instead of the protocol's; NaN leaves such
            images out.
    """
    overlap, detection = (_fields(views[view]) for view in protocol.views)
    union = overlap["predicted"] + overlap["labelled"] - overlap["intersection"]
    both_empty = protocol.empty if empty is None else empty
    value = np.nan if both_empty is None else both_empty
    iou = np.where(union > 0, overlap["intersection"] / np.maximum(union, 1), value)
    counted = detection["targets"] > 0 if protocol.relative else np.ones(len(union), bool)
    false = detection["false_alarm_pixels_by_area" if protocol.by_area else "false_alarm_pixels"]
    wanted = {
        key: detection[key] * counted
        for key in ("pixels", "predicted", "labelled", "intersection", "targets", "detected", "false_alarms")
    }
    scored = (
        np.full(len(union), np.nan)
        if protocol.empty is None and empty is None
        else np.where(np.isnan(iou), 0, 1)
    )
    return {
        "images": np.ones(len(union)),
        "iou_intersection": overlap["intersection"],
        "iou_union": union,
        "iou_of_images": np.nan_to_num(iou),
        "images_of_niou": scored.astype(float),
        **wanted,
        "false_alarm_pixels": false * counted,
        **{
            key: detection[key] * counted
            for key in ImageCounts._fields
            if key.startswith(("targets_", "detected_"))
        },
    }


def _fields(counts: Array) -> Columns:
    return {name: counts[:, k] for k, name in enumerate(ImageCounts._fields)}
