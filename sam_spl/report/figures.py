"""Pictures for papers, each as PNG and PDF: a qualitative grid, ROC, PR and response surfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from sam_spl.files import atomic
from sam_spl.metrics.curves import HALF, probabilities
from sam_spl.metrics.figures import FIGURES
from sam_spl.metrics.target import components, match
from sam_spl.report.page import Sample
from sam_spl.report.render import margins, stretch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HIT, _MISSED, _FALSE = "#009e73", "#e69f00", "#d55e00"
_INSET = 12  # pixels around a target that an inset shows, at least


def write_figures(folder: Path, details: Mapping[str, Any], samples: Sequence[Sample]) -> list[Path]:
    """Write ``roc pr grid surfaces`` with endings ``.png .pdf`` into ``folder``.

    Args:
        folder: to write into.
        details: of a report, with curves.
        samples: images of the grid and the surfaces, a row each.
    """
    figures = roc_and_pr(details)
    if samples:
        figures |= {"grid": grid(samples), "surfaces": surfaces(samples)}
    written = []
    for name, figure in figures.items():
        for form in ("png", "pdf"):
            path = folder / f"{name}.{form}"
            with atomic(path) as temporary:
                figure.savefig(temporary, format=form, dpi=200)
            written.append(path)
    return written


def roc_and_pr(details: Mapping[str, Any]) -> dict[str, Figure]:
    """``roc`` and ``pr``, each of targets and of pixels.

    Args:
        details: of a report, with curves.
    """
    # At threshold 0 nearly all is predicted, as one component that detects nothing: no point of a drawn
    # curve.
    target = {key: values[1:] for key, values in details["target_curve"].items()}
    pixel = details["pixel_curve"]
    areas = details["curves"]
    return {
        "roc": _curves(
            ("targets", target["fa"], target["pd"], "Fa per pixel", "Pd", _area("auc_target", areas)),
            (
                "pixels",
                pixel["fpr"],
                pixel["tpr"],
                "false positive rate",
                "recall",
                _area("auc_pixel", areas),
            ),
            log=True,
        ),
        "pr": _curves(
            ("targets", target["pd"], target["precision"], "Pd", "precision", _area("ap_target", areas)),
            ("pixels", pixel["tpr"], pixel["precision"], "recall", "precision", _area("ap_pixel", areas)),
        ),
    }


def grid(samples: Sequence[Sample]) -> Figure:
    """A row an image: image, mask and prediction, targets boxed, the smallest enlarged in a corner."""
    heights = [sample.mask.shape[0] / sample.mask.shape[1] for sample in samples]
    figure = _figure(7.2, 2.35 * sum(heights) + 0.3)
    axes = figure.subplots(len(samples), 3, squeeze=False, height_ratios=heights)
    for row, sample in zip(axes, samples, strict=True):
        targets, predictions = components(sample.mask), components(sample.level > HALF)
        matched = match(targets, predictions)
        false = sorted(set(range(len(predictions))) - set(matched.tolist()))
        boxes = [(box, _HIT if k >= 0 else _MISSED) for box, k in zip(targets.boxes, matched, strict=True)]
        everything = boxes + [(predictions.boxes[k], _FALSE) for k in false]
        panels = (stretch(sample.image), sample.mask, sample.level > HALF)
        for axis, panel, outlined in zip(row, panels, (everything, boxes, everything), strict=True):
            _show(axis, panel)
            around = margins(np.array([box for box, _ in outlined], np.int32).reshape(-1, 4))
            for (box, colour), margin in zip(outlined, around, strict=True):
                _box(axis, box, margin, colour)
            if len(targets):
                smallest = int(np.argmin(targets.areas))
                _inset(axis, panel, targets.boxes[smallest], _HIT if matched[smallest] >= 0 else _MISSED)
        row[0].set_ylabel(sample.name, fontsize=7)
    for axis, title in zip(axes[0], ("image", "ground truth", "prediction"), strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def surfaces(samples: Sequence[Sample]) -> Figure:
    """For each image three surfaces over its pixels: grey value, mask and response."""
    figure = _figure(8.4, 2.5 * len(samples) + 0.3)
    for row, sample in enumerate(samples):
        maps = {
            "image": stretch(sample.image) / 255,
            "ground truth": sample.mask.astype(float),
            "response": probabilities(sample.level),
        }
        for column, (title, values) in enumerate(maps.items()):
            axis = figure.add_subplot(len(samples), 3, 3 * row + column + 1, projection="3d")
            # The largest value of each cell is drawn, so that peaks survive the coarser grid.
            cell = max(1, max(values.shape) // 80)
            height, width = (side // cell * cell for side in values.shape)
            coarse = values[:height, :width].reshape(height // cell, cell, width // cell, cell).max((1, 3))
            y, x = np.mgrid[: coarse.shape[0], : coarse.shape[1]] * cell
            axis.plot_surface(x, y, coarse, cmap="viridis", vmin=0, vmax=1, rstride=1, cstride=1, linewidth=0)
            axis.set(zlim=(0, 1), xticks=[], yticks=[], zticks=[0, 0.5, 1])
            axis.tick_params(labelsize=6)
            axis.view_init(elev=35, azim=-60)
            axis.set_title(f"{title}\n{sample.name}" if column == 0 else title, fontsize=8)
    return figure


def _curves(*panels: tuple[str, Sequence[Any], Sequence[Any], str, str, str], log: bool = False) -> Figure:
    """A panel each: title, x, y (None where undefined), their labels, and a line below the title."""
    figure = _figure(7.2, 3.4)
    columns = figure.subplots(1, len(panels))
    for axis, (title, xs, ys, x_label, y_label, about) in zip(columns, panels, strict=True):
        defined = [(x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None]
        points = [(x, y) for x, y in defined if x > 0 or not log]
        axis.plot(*(zip(*points, strict=True) if points else ([], [])), color="#0072b2")
        axis.set(xlabel=x_label, ylabel=y_label, ylim=(0, 1.02))
        axis.set_title(f"{title}\n{about}", fontsize=8)
        if log:
            axis.set_xscale("log")
        else:
            axis.set_xlim(0, 1.02)
        axis.grid(alpha=0.3)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # a second to import, and most runs draw none

    return Figure(figsize=(width, height), layout="constrained")


def _show(axis: Axes, panel: Any) -> None:
    axis.imshow(panel, cmap="gray", interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def _box(axis: Axes, box: Any, margin: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    corner, both = (
        (left - 0.5 - margin, top - 0.5 - margin),
        2 * margin,
    )  # pixels are centred on whole numbers
    axis.add_patch(
        Rectangle(corner, width + both, height + both, fill=False, edgecolor=colour, linewidth=0.9)
    )


def _inset(axis: Axes, panel: Any, box: Any, colour: str) -> None:
    """The surroundings of a target, enlarged into the corner that is farthest from it."""
    left, top, width, height = (int(value) for value in box)
    reach = max(_INSET, width, height)
    x, y = left + width // 2, top + height // 2
    grey = np.asarray(panel).astype(np.uint8)
    padded = cv2.copyMakeBorder(grey, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    crop = padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
    right, bottom = x < panel.shape[1] / 2, y < panel.shape[0] / 2
    inset = axis.inset_axes((0.66 if right else 0.01, 0.01 if bottom else 0.66, 0.33, 0.33))
    inset.imshow(
        crop, cmap="gray", interpolation="nearest", vmin=0, vmax=255 if panel.dtype == np.uint8 else 1
    )
    inset.set(xticks=[], yticks=[])
    for spine in inset.spines.values():
        spine.set(color=colour, linewidth=1.2)


def _area(key: str, areas: Mapping[str, Any]) -> str:
    figure = FIGURES[key]
    return f"{figure.title} {figure.full(areas[key])}, {figure.note}"
