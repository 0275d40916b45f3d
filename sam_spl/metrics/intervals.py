"""Intervals of figures over images, for one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from sam_spl.metrics.figures import SHARES, Columns
from sam_spl.metrics.resampling import LEVEL, Figures, Interval, draw, draws, edges, grouped, inside

_FEW = 30  # events; below, a share's interval is Wilson's


def intervals(
    columns: Columns,
    figures: Figures,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """95 % intervals over images, for one run.

    Figures are ratios of sums and skewed, and a percentile bootstrap of Fa holds the truth nine times in ten
    only. So each resample's deviation is divided by its own standard error (the bootstrap-t; standard errors
    by the delta method), except for:

    - shares of counted things (:data:`~sam_spl.metrics.figures.SHARES`) with fewer than 30 events or
      non-events, 0 and 1 included: Wilson's interval. Its count is effective: that of independent draws with
      the standard error found. At 0 and 1, where none is found, the things in a unit count as one draw that
      is as heavy as they are many (Kish: (sum of weights)^2 / sum of squared weights).
    - figures of curves, which are not smooth functions of sums: the percentile bootstrap, which holds the
      truth less often (average precision about nine times in ten on 200 images).

    Args:
        columns: what each image adds, (images, ...) arrays.
        figures: ratios of sums, which do not change when all sums double; in [0, 1].
        groups: the group of each image; None: each by itself.
        resamples: how often images are drawn again; 0: no intervals.
        seed: of the drawing.

    Returns:
        Lower and upper bound of each figure. None where it is undefined, or where the data say nothing of its
        spread: a bound that lies in the undefined resamples (more than 2.5 % of them), Fa of exactly 0, a
        single unit, or bounds that are all of [0, 1].
    """
    columns = grouped(columns, groups)
    units = len(next(iter(columns.values())))
    if not units or not resamples:
        return {}
    if any(column.ndim > 1 for column in columns.values()):
        return _percentiles(columns, figures, resamples, seed)
    found: dict[str, Interval | None] = {}
    for name, of in draw([columns], np.ones(1), figures, resamples, seed).items():
        error = of.image_variance**0.5
        found[name] = _wilson(name, of.value, columns, error)
        if found[name] is None and error > 0:
            low, high = edges(of.pivots)
            found[name] = inside(of.value - high * error, of.value - low * error)
    return found


def _wilson(name: str, value: float, columns: Columns, error: float) -> Interval | None:
    """Wilson's interval of a share with few events; None for others, and without a second unit."""
    counted = [column for column in SHARES.get(name, ()) if column in columns]
    if not counted or not 0 <= value <= 1:  # another figure, or NaN
        return None
    weights = np.sum([columns[column] for column in counted], 0)
    if (weights > 0).sum() < 2:
        return None
    if 0 < value < 1 and error > 0:
        count = value * (1 - value) / error**2
        width = float(stdtrit(len(weights) - 1, (1 + LEVEL) / 2))
    else:
        count = float(weights.sum() ** 2 / (weights**2).sum())
        width = float(stdtrit(1e9, (1 + LEVEL) / 2))
    if error > 0 and count * min(value, 1 - value) >= _FEW:
        return None
    square = width**2 / count
    middle = (value + square / 2) / (1 + square)
    half = (square * (value * (1 - value) + square / 4)) ** 0.5 / (1 + square)
    return inside(middle - half, middle + half)


def _percentiles(columns: Columns, figures: Figures, resamples: int, seed: int) -> dict[str, Interval | None]:
    value = figures({name: column.sum(0) for name, column in columns.items()})
    units = len(next(iter(columns.values())))
    drawn = [
        figures({name: np.tensordot(counts, column, 1) for name, column in columns.items()})
        for counts in draws(units, resamples, seed)
    ]
    found: dict[str, Interval | None] = {}
    for name in value:
        low, high = edges(np.concatenate([chunk[name] for chunk in drawn]))
        flat = {key: column for key, column in columns.items() if column.ndim == 1}
        certain = value[name] in (0, 1)
        found[name] = (_wilson(name, float(value[name]), flat, 0.0) if certain else None) or inside(low, high)
    return found
