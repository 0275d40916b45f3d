"""Drawing images again: what a figure could have been on other images.

Images are drawn, not pixels, and where images are not independent (frames of a sequence, copies of one
picture) whole groups of them: every function takes the group of each image. Images in a group count as one
unit, whose counts are their sums.

What cannot be computed counts against certainty and significance: a resample in which a figure is undefined
lies beyond both ends of its interval, an exchange in which it is undefined counts as a difference at least as
large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sam_spl.metrics.figures import Array, Columns

Figures = Callable[[Columns], Mapping[str, Array]]  # of sums to ratios, any leading shape
Interval = tuple[float, float]
LEVEL = 0.95  # of confidence
CHUNK = 200  # resamples at a time, to bound memory


def grouped(columns: Columns, groups: Sequence[str] | None) -> Columns:
    """What each group of images adds, in the order in which groups first appear."""
    if groups is None:
        return columns
    position = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    at = np.array([position[name] for name in groups], np.int64)
    sums = {}
    for name, column in columns.items():
        sums[name] = np.zeros((len(position), *column.shape[1:]))
        np.add.at(sums[name], at, column)
    return sums


@dataclass(frozen=True)
class Drawn:
    """A figure (a weighted sum over runs) and what resampling the units does to it."""

    value: float
    runs: Array  # (runs,)
    influence: Array  # (units, runs): what each unit adds to the deviation of each run's figure
    weights: Array  # (runs,)
    drawn: Array  # (resamples, runs)
    pivots: Array  # (resamples,): deviation from value over its standard error

    @property
    def image_variance(self) -> float:
        """Of ``value``, by the delta method."""
        units = len(self.influence)
        return float(((self.influence @ self.weights) ** 2).sum() * units / (units - 1)) if units > 1 else 0.0


def draw(
    runs: Sequence[Columns], weights: Array, figures: Figures, resamples: int, seed: int
) -> dict[str, Drawn]:
    """Resample the units, the same for all runs."""
    stacked = {name: np.stack([run[name] for run in runs], 1) for name in runs[0]}  # (units, runs)
    total = {name: column.sum(0) for name, column in stacked.items()}
    values, slopes = figures(total), _slopes(figures, total, total)
    units = len(next(iter(stacked.values())))
    pivots: dict[str, list[Array]] = {name: [] for name in values}
    drawn: dict[str, list[Array]] = {name: [] for name in values}
    for counts in draws(units, resamples, seed):
        sums = {name: np.tensordot(counts, column, 1) for name, column in stacked.items()}
        again, steep = figures(sums), _slopes(figures, sums, total)
        for name, value in again.items():
            # Ratios do not change when all sums double, so influences add up to 0 without being centred.
            influence = sum(
                (slope * weights) @ stacked[column].T for column, slope in steep[name].items() if slope.any()
            )
            variance = (counts * np.square(influence)).sum(1) * units / max(units - 1, 1)
            with np.errstate(divide="ignore", invalid="ignore"):
                pivots[name].append((value - values[name]) @ weights / np.sqrt(variance))
            drawn[name].append(value)
    return {
        name: Drawn(
            float(values[name] @ weights),
            values[name],
            np.sum([slope * stacked[column] for column, slope in slopes[name].items()], 0),
            weights,
            np.concatenate(drawn[name]),
            np.concatenate(pivots[name]),
        )
        for name in values
    }


def _slopes(figures: Figures, sums: Columns, scale: Columns) -> dict[str, dict[str, Array]]:
    """Figure -> column -> derivative of the figure by the column's sum, by central differences."""
    slopes: dict[str, dict[str, Array]] = {}
    for column, whole in scale.items():
        step = 1e-4 * np.where(whole > 0, whole, 1.0)
        above = figures({**sums, column: sums[column] + step})
        below = figures({**sums, column: sums[column] - step})
        for name in above:
            slopes.setdefault(name, {})[column] = (above[name] - below[name]) / (2 * step)
    return slopes


def draws(units: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each unit is drawn, (resamples, units), in chunks."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        drawn = rng.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(float)


def edges(values: Array) -> tuple[float, float]:
    """The quantiles of a 95 % interval; an undefined value lies beyond both."""
    values, undefined = values.ravel(), np.isnan(values).ravel()
    outside = (len(values) - 1) * (1 - LEVEL) / 2
    low = np.partition(np.where(undefined, -np.inf, values), int(outside))[int(outside)]
    last = int(np.ceil(len(values) - 1 - outside))
    high = np.partition(np.where(undefined, np.inf, values), last)[last]
    return float(low), float(high)


def inside(low: float, high: float, least: float = 0.0) -> Interval | None:
    """Bounds of a figure in [least, 1]; None where they are undefined or say nothing."""
    if not np.isfinite((low, high)).all():
        return None
    low, high = max(float(low), least), min(float(high), 1.0)
    return (low, high) if low < high and (low, high) != (least, 1.0) else None
