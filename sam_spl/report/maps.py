"""Maps over an image as figures of a paper: panels with titles and colour bars, in vectors and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam_spl.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 7.16  # inches, of two columns of a paper
_SERIES = ("#0072b2", "#d55e00")
#: Lightness rises with the value, so that a copy in grey keeps the order; changes have white at 0.
_COLOURS = {
    "image": "gray",
    "feature": "viridis",
    "share": "viridis",
    "matrix": "viridis",
    "change": "RdBu_r",
}
_LARGEST = 1024  # cells of a map's side that a figure holds; finer ones are below what print shows


@dataclass(frozen=True, eq=False)
class Panel:
    """One place of a figure.

    Attributes:
        title: ``$..$`` is set as mathematics.
        values: (h, w); of ``channels`` (series, C).
        kind: ``image`` or one of :data:`sam_spl.models.maps.Kind`.
        covers: rows and columns of the image that ``values`` lie over; None for what lies over none.
        shared: panels of one figure with the same word have one colour scale.
        labels: of the series.
    """

    title: str
    values: NDArray[Any]
    kind: str
    covers: tuple[float, float] | None = None
    shared: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plate:
    """One figure: its name in files, title, a note on how it was made, and rows of panels or empty places.

    ``size`` is (H, W) of the image in pixels, which every map is drawn over.
    """

    name: str
    title: str
    note: str
    size: tuple[int, int]
    rows: Sequence[Sequence[Panel | None]]


def save_plate(plate: Plate, folder: Path, stem: str, formats: Sequence[str]) -> list[Path]:
    """Write ``STEM_NAME.FORMAT`` into ``folder``, each whole or not at all.

    Args:
        plate: the figure.
        folder: to write into.
        stem: what the names of the files begin with.
        formats: of ``png``, ``pdf`` and ``svg``.
    """
    from matplotlib import rc_context

    figure, written = draw(plate), []
    for form in formats:
        path = folder / f"{stem}_{plate.name}.{form}"
        # Journals take TrueType fonts in a PDF, and not matplotlib's default.
        with atomic(path) as temporary, rc_context({"pdf.fonttype": 42}):
            figure.savefig(temporary, format=form, dpi=300)
        written.append(path)
    return written


def draw(plate: Plate) -> Figure:
    """The figure of a plate."""
    from matplotlib.figure import Figure  # a second to import

    columns, aspect = max(map(len, plate.rows)), min(2, plate.size[0] / plate.size[1])
    if all(one is None or one.kind == "matrix" for row in plate.rows for one in row):
        aspect = 0.3  # of nothing that lies over the image
    row_height = _WIDTH / columns * 0.8 * aspect + 0.3
    lines = 1 + plate.note.count("\n")
    figure = Figure(
        figsize=(_WIDTH, row_height * len(plate.rows) + 0.25 + 0.14 * lines), layout="constrained"
    )
    figure.suptitle(plate.title, fontsize=10)
    figure.supxlabel(plate.note, fontsize=7)
    axes = figure.subplots(len(plate.rows), columns, squeeze=False)
    ranges = _shared_ranges(plate)
    for row, panels in zip(axes, plate.rows, strict=True):
        for axis, panel in zip(row, [*panels, *[None] * (columns - len(panels))], strict=True):
            if panel is None:
                axis.set_axis_off()
                continue
            axis.set_title(panel.title, fontsize=7, pad=3)
            if panel.kind == "channels":
                _bars(axis, panel)
            else:
                _show(axis, panel, plate.size, ranges.get(panel.shared, _range(panel)))
    return figure


def _show(axis: Axes, panel: Panel, size: tuple[int, int], limits: tuple[float, float]) -> None:
    step = max(1, -(-max(panel.values.shape) // _LARGEST))
    options: dict[str, Any] = {"aspect": "auto"}
    if panel.covers is not None:
        options = {"extent": (0, panel.covers[1], panel.covers[0], 0)}
    shown = axis.imshow(
        panel.values[::step, ::step],
        cmap=_COLOURS[panel.kind],
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        **options,
    )
    axis.set(xticks=[], yticks=[])
    if panel.covers is not None:
        axis.set(xlim=(0, size[1]), ylim=(size[0], 0))
    if panel.kind != "image":
        bar = axis.figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02)
        bar.ax.tick_params(labelsize=5, length=1.5, pad=1)
        bar.ax.locator_params(nbins=4)
        bar.outline.set_linewidth(0.4)


def _bars(axis: Axes, panel: Panel) -> None:
    """A number for each channel, in order of the channels, series beside each other."""
    for series, (values, colour) in enumerate(zip(panel.values, _SERIES, strict=False)):
        label = panel.labels[series] if panel.labels else None
        axis.bar(np.arange(len(values)) + 0.4 * series, values, width=0.4, color=colour, label=label)
    axis.axhline(0, color="black", linewidth=0.4)
    axis.set_xlabel("channel", fontsize=5, labelpad=1)
    axis.tick_params(labelsize=5, length=1.5, pad=1)
    if panel.labels:  # above the bars, where there are none
        axis.set_ylim(top=1.3 * max(float(panel.values.max()), 0) + 0.15 * float(np.ptp(panel.values)))
        axis.legend(fontsize=5, frameon=False, handlelength=0.8, ncols=2, columnspacing=1, loc="upper center")


def _shared_ranges(plate: Plate) -> dict[str, tuple[float, float]]:
    groups: dict[str, list[tuple[float, float]]] = {}
    for panel in (one for row in plate.rows for one in row if one is not None and one.shared):
        groups.setdefault(panel.shared, []).append(_range(panel))
    return {
        word: (min(low for low, _ in all_), max(high for _, high in all_)) for word, all_ in groups.items()
    }


def _range(panel: Panel) -> tuple[float, float]:
    """The values that the ends of the colours stand for."""
    if panel.kind == "share":
        return 0.0, 1.0
    low, high = float(panel.values.min()), float(panel.values.max())
    if panel.kind == "change":
        reach = max(-low, high)
        return -reach, reach
    return low, high
