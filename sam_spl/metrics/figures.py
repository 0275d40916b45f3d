"""Every figure: what it is called, its unit, which way is better, how it is written, and its formula.

Tables, the report, result files and comparisons take all of this from :data:`FIGURES`. Formulas take summed
counts, with any leading shape; those of curves are in :mod:`sam_spl.metrics.curves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_spl.metrics.counts import SIZE_CLASSES

Array = NDArray[np.float64]
Columns = dict[str, Array]  # name -> what each image adds, (images,), or sums, any shape

#: Unit -> how many of it are 1, decimals, and how it is written behind a number.
_UNITS = {"%": (100.0, 2, " %"), "1e-6": (1e6, 2, " x 1e-6"), "": (1.0, 4, "")}


@dataclass(frozen=True)
class Figure:
    """One figure of a result.

    Attributes:
        key: in Python and in result files, where values are plain ratios, not in ``unit``.
        title: as printed.
        definition: one sentence.
        unit: %, 1e-6 or none.
        higher_is_better: false where lower is.
        note: what a reader must know of it, beside the number.
    """

    key: str
    title: str
    definition: str
    unit: str = "%"
    higher_is_better: bool = True
    note: str = ""

    @property
    def scale(self) -> float:
        """Times this a ratio is in :attr:`unit`."""
        return _UNITS[self.unit][0]

    @property
    def decimals(self) -> int:
        """Digits behind the point, in :attr:`unit`."""
        return _UNITS[self.unit][1]

    def describe(self) -> dict[str, Any]:
        """For result files and the report; values times ``scale`` are in ``unit``."""
        return {key: value for key, value in asdict(self).items() if key != "key"} | {
            "scale": self.scale,
            "decimals": self.decimals,
        }

    @property
    def heading(self) -> str:
        """Title and unit, for a column of a table."""
        return f"{self.title} {self.unit}".rstrip()

    def text(self, value: float | None) -> str:
        """A ratio in :attr:`unit`, without it; a dash where it is undefined (None or NaN)."""
        return "-" if value is None or np.isnan(value) else f"{self.scale * value:.{self.decimals}f}"

    def full(self, value: float | None, bounds: Sequence[float] | None = None) -> str:
        """A ratio with its unit and its interval, where there is one."""
        text = self.text(value)
        if text == "-":
            return text
        between = f" [{self.text(bounds[0])}, {self.text(bounds[1])}]" if bounds else ""
        return f"{text}{_UNITS[self.unit][2]}{between}"


_BEST = "best threshold on these images"
_ALL = "over thresholds of these images"

#: Adding a figure is adding a line here and its formula.
FIGURES = {
    figure.key: figure
    for figure in (
        Figure("iou", "IoU", "Intersection over union of target pixels, summed over the data set."),
        Figure("niou", "nIoU", "Mean over images of the image's own IoU."),
        Figure("f1", "F1", "2 x hit pixels / (predicted + target pixels), summed over the data set."),
        Figure("precision", "precision", "Hit pixels / predicted pixels."),
        Figure("recall", "recall", "Hit pixels / target pixels."),
        Figure(
            "pixel_accuracy", "pixel accuracy", "Hit pixels / target pixels (the field's use of the word)."
        ),
        Figure("pd", "Pd", "Detected targets / targets."),
        Figure("fa", "Fa", "False-alarm pixels / all pixels.", unit="1e-6", higher_is_better=False),
        Figure("pd_by_size", "Pd by size", "Detected targets / targets of a size class, in pixels."),
        Figure(
            "pd_at_fa",
            "Pd at Fa",
            "Highest Pd of any threshold whose Fa stays within the budget.",
            note=_BEST,
        ),
        Figure("auc_target", "ROC area of targets", "Area below Pd over Fa.", unit="", note=_ALL),
        Figure(
            "auc_pixel",
            "ROC area of pixels",
            "Area below recall over false-positive rate.",
            unit="",
            note=_ALL,
        ),
        Figure(
            "ap_target", "AP of targets", "Average precision of predicted components.", unit="", note=_ALL
        ),
        Figure("ap_pixel", "AP of pixels", "Average precision of predicted pixels.", unit="", note=_ALL),
        Figure("hiou", "hIoU", "seg_iou x loc_iou (arXiv 2509.16888)."),
        Figure("seg_iou", "seg IoU", "Mean IoU of matched pairs of target and prediction."),
        Figure(
            "seg_mrg_err",
            "seg mrg err",
            "Of matched pairs, predicted pixels on other targets / union.",
            higher_is_better=False,
        ),
        Figure(
            "seg_itf_err",
            "seg itf err",
            "Of matched pairs, predicted pixels on background / union.",
            higher_is_better=False,
        ),
        Figure(
            "seg_pcp_err", "seg pcp err", "Of matched pairs, missed pixels / union.", higher_is_better=False
        ),
        Figure(
            "loc_iou",
            "loc IoU",
            "Matched pairs / (matched pairs + unmatched predictions + unmatched targets).",
        ),
        Figure(
            "loc_itf_err",
            "loc itf err",
            "Predictions that no target could match, of loc_iou's whole.",
            higher_is_better=False,
        ),
        Figure(
            "loc_pcp_err",
            "loc pcp err",
            "Targets that no prediction could match, of loc_iou's whole.",
            higher_is_better=False,
        ),
        Figure(
            "loc_m2s_err",
            "loc m2s err",
            "Predictions whose possible targets were matched to others, of loc_iou's whole.",
            higher_is_better=False,
        ),
        Figure(
            "loc_s2m_err",
            "loc s2m err",
            "Targets whose possible predictions were matched to others, of loc_iou's whole.",
            higher_is_better=False,
        ),
    )
}

#: The figures that every table shows, in this order.
MAIN = tuple(FIGURES[key] for key in ("iou", "niou", "f1", "pd", "fa"))

_LOWER = (1, *(bound + 1 for bound in SIZE_CLASSES))
#: Name of a size class -> ending of its columns.
_SIZE_CLASSES = {
    **{f"{low} to {high}": f"to_{high}" for low, high in zip(_LOWER, SIZE_CLASSES, strict=False)},
    f"{_LOWER[-1]} and more": f"above_{SIZE_CLASSES[-1]}",
}
_MATCHES = ("matched", "lone_predictions", "lone_targets", "further_predictions", "further_targets")

#: Figures that are shares of counted things, and the columns that count them. Fa is none here: of images
#: without a false alarm nothing follows for how large one would be.
SHARES: dict[str, tuple[str, ...]] = {
    "iou": ("iou_union",),
    "niou": ("images_of_niou",),
    "f1": ("predicted", "labelled"),
    "precision": ("predicted",),
    "recall": ("labelled",),
    "pixel_accuracy": ("labelled",),
    "pd": ("targets",),
    "pd_at_fa": ("targets",),
    **{name: (f"targets_{ending}",) for name, ending in _SIZE_CLASSES.items()},
    "hiou": _MATCHES,
    **dict.fromkeys(("seg_iou", "seg_mrg_err", "seg_itf_err", "seg_pcp_err"), ("matched",)),
    **dict.fromkeys(("loc_iou", "loc_itf_err", "loc_pcp_err", "loc_m2s_err", "loc_s2m_err"), _MATCHES),
}


def figures(sums: Mapping[str, Any]) -> dict[str, Array]:
    """Ratios of summed :func:`~sam_spl.metrics.scores.columns`; NaN where there is nothing to divide by."""
    recall = ratio(sums["intersection"], sums["labelled"])
    return {
        "iou": ratio(sums["iou_intersection"], sums["iou_union"]),
        "niou": ratio(sums["iou_of_images"], sums["images_of_niou"]),
        "f1": ratio(2 * sums["intersection"], sums["predicted"] + sums["labelled"]),
        "precision": ratio(sums["intersection"], sums["predicted"]),
        "recall": recall,
        "pixel_accuracy": recall,
        "pd": ratio(sums["detected"], sums["targets"]),
        "fa": ratio(sums["false_alarm_pixels"], sums["pixels"]),
    }


def pd_by_size(sums: Mapping[str, Any]) -> dict[str, Array]:
    """Pd of the targets of each size class; keys as ``1 to 9``, ``82 and more`` pixels."""
    return {
        name: ratio(sums[f"detected_{ending}"], sums[f"targets_{ending}"])
        for name, ending in _SIZE_CLASSES.items()
    }


def hierarchical_figures(sums: Mapping[str, Any]) -> dict[str, Array]:
    """The figure hIoU and its error split, from summed :class:`~sam_spl.metrics.hiou.HierarchicalCounts`."""
    matched = sums["matched"]
    predictions = sums["lone_predictions"] + sums["further_predictions"]
    whole = matched + predictions + sums["lone_targets"] + sums["further_targets"]
    parts = {
        "seg_iou": ratio(sums["iou"], matched),
        "seg_mrg_err": ratio(sums["merged"], matched),
        "seg_itf_err": ratio(sums["interference"], matched),
        "seg_pcp_err": ratio(sums["missed"], matched),
        "loc_iou": ratio(matched, whole),
        "loc_itf_err": ratio(sums["lone_predictions"], whole),
        "loc_pcp_err": ratio(sums["lone_targets"], whole),
        "loc_m2s_err": ratio(sums["further_predictions"], whole),
        "loc_s2m_err": ratio(sums["further_targets"], whole),
    }
    # Without a match there is no overlap, so hIoU is 0 wherever there was something to match.
    return {
        "hiou": np.where(
            np.isnan(parts["loc_iou"]), np.nan, np.nan_to_num(parts["seg_iou"]) * parts["loc_iou"]
        ),
        **parts,
    }


def ratio(part: Any, whole: Any) -> Array:
    """Part over whole; NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(
        part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0
    )
