"""Pictures of several networks: their ranking, and what they score for their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam_spl.errors import ConfigError
from sam_spl.files import atomic
from sam_spl.metrics.figures import FIGURES
from sam_spl.metrics.ranking import Ranking
from sam_spl.metrics.resampling import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

_BLUE, _GREEN, _GREY = "#0072b2", "#009e73", "#d5d9de"
#: Okabe's and Ito's, which colour-blind people tell apart; then the same with another marker.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "os^D"


@dataclass(frozen=True)
class Point:
    """A network in a plot.

    Attributes:
        name: beside the point.
        seconds: of one image.
        value: of the figure, a ratio.
        interval: of it.
    """

    name: str
    seconds: float
    value: float
    interval: Interval | None


def save(figure: Figure, path: str | Path) -> Path:
    """Write a picture of the kind that its name ends with.

    Raises:
        ConfigError: of another kind than PNG, PDF and SVG.
        InputError: it cannot be written.
    """
    path = Path(path).expanduser()
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf", "svg"):
        raise ConfigError(f"{path}: is no picture's name. Give one that ends in .png, .pdf or .svg.")
    with atomic(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=200)
    return path


def ranking_plot(found: Ranking) -> Figure:
    """Means with intervals, and beside them which orders are supported.

    On the right, a filled square says that the row's network is better than the column's; an empty one, with
    p, that their order is open.
    """
    from matplotlib.figure import Figure

    about, count = FIGURES[found.figure], len(found.places)
    cells = 0.5 * count  # inches
    picture = Figure(figsize=(5.5 + cells, 1.4 + 0.42 * count), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True, width_ratios=(5, cells))
    for row, place in enumerate(found.places):
        if place.interval is not None:
            left.plot([about.scale * edge for edge in place.interval], [row, row], color=_BLUE, linewidth=2)
        left.plot([about.scale * place.mean], [row], "o", color=_BLUE)
        for column in range(row + 1, count):
            told = found.supported(row, column)
            right.add_patch(_square(column, row, _GREEN if told else _GREY, filled=told))
            p = found.p[row, column]
            text = "<.01" if p < 0.01 else f"{p:.2f}"
            right.text(
                column, row, text, ha="center", va="center", fontsize=7, color="white" if told else "black"
            )
    names = [f"{k + 1}  {place.name}" for k, place in enumerate(found.places)]
    left.set_yticks(range(count), names)
    left.set_xlabel(f"{about.heading}, 95 % intervals")
    left.grid(axis="x", color=_GREY)
    right.set_xticks(range(count), [str(k + 1) for k in range(count)])
    right.set_xlim(0.4, count - 0.4)
    right.set_ylim(count - 0.4, -0.6)
    right.set_xlabel("better than (filled), with p")
    right.tick_params(left=False)
    return picture


def value_over_time(points: Sequence[Point], figure: str, title: str) -> Figure:
    """A figure over the time of one image, logarithmic.

    Args:
        points: of the networks.
        figure: key of the figure.
        title: the images and the machine.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    about = FIGURES[figure]
    picture = Figure(figsize=(8, 4.5), layout="constrained")
    axes = picture.subplots()
    for place, one in enumerate(sorted(points, key=lambda point: -point.value)):
        x, y = 1e3 * one.seconds, about.scale * one.value
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place // len(_COLOURS) % len(_MARKERS)]
        if one.interval is not None:
            low, high = (about.scale * edge for edge in one.interval)
            axes.plot([x, x], [low, high], color=colour, linewidth=2, alpha=0.35)
        # Several may be fast and good alike: names beside the points would hide each other.
        axes.plot([x], [y], marker, color=colour, label=f"{one.name}  {about.text(one.value)}")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # two networks may be within a power of ten
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.1)
    axes.set_title(title, fontsize=8)
    axes.set_xlabel("ms an image")
    axes.set_ylabel(about.heading)
    axes.grid(color=_GREY, linewidth=0.5)
    picture.legend(
        loc="outside right upper",
        fontsize=8,
        frameon=False,
        title="bars: 95 % intervals\nover seeds and images",
        title_fontsize=8,
        alignment="left",
    )
    return picture


def _square(x: float, y: float, colour: str, *, filled: bool) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (x - 0.42, y - 0.42), 0.84, 0.84, facecolor=colour if filled else "none", edgecolor=colour
    )
