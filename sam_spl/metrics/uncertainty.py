"""What chance can do: intervals of figures over images and runs, and tests of differences.

Images are drawn, not pixels, and where images are not independent (frames of a sequence, copies of one picture) whole
groups of them: every function takes the group of each image. Images in a group count as one unit, whose counts are
their sums.

What cannot be computed speaks against certainty and significance: a resample in which a figure is undefined lies
beyond both ends of its interval, an exchange in which it is undefined counts as a difference at least as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from sam_spl.metrics.figures import SHARES
from sam_spl.metrics.protocols import Array, Columns

Figures = Callable[[Columns], Mapping[str, Array]]  # of sums to ratios, any leading shape
Interval = tuple[float, float]
LEVEL = 0.95  # of confidence
_CHUNK = 200  # resamples at a time, to bound memory
_FEW = 30  # events; below, a share's interval is Wilson's
_MOST_SEEDS = 1000
_ROUNDING = 1e-12  # what differs by less is equal


def intervals(
    columns: Columns,
    figures: Figures,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """95 % intervals over images, for one run.

    Figures are ratios of sums and skewed, and a percentile bootstrap of Fa holds the truth nine times in ten only. So
    each resample's deviation is divided by its own standard error (the bootstrap-t; standard errors by the delta
    method), except for:

    - shares of counted things (:data:`~sam_spl.metrics.figures.SHARES`) with fewer than 30 events or non-events, 0 and
      1 included: Wilson's interval. Its count is effective: that of independent draws with the standard error found.
      At 0 and 1, where none is found, the things in a unit count as one draw that is as heavy as they are many
      (Kish: (sum of weights)^2 / sum of squared weights).
    - figures of curves, which are no smooth functions of sums: the percentile bootstrap, which holds the truth less
      often (average precision about nine times in ten on 200 images).

    Args:
        columns: what each image adds, (images, ...) arrays.
        figures: ratios of sums, which do not change when all sums double; in [0, 1].
        groups: the group of each image; None: each by itself.
        resamples: how often images are drawn again; 0: no intervals.
        seed: of the drawing.

    Returns:
        Lower and upper bound of each figure. None where it is undefined, or where the data say nothing of its spread:
        a bound that lies in the undefined resamples (more than 2.5 % of them), Fa of exactly 0, a single unit, or
        bounds that are all of [0, 1].
    """
    columns = grouped(columns, groups)
    units = len(next(iter(columns.values())))
    if not units or not resamples:
        return {}
    if any(column.ndim > 1 for column in columns.values()):
        return _percentiles(columns, figures, resamples, seed)
    found: dict[str, Interval | None] = {}
    for name, of in _draw([columns], np.ones(1), figures, resamples, seed).items():
        error = of.image_variance**0.5
        found[name] = _wilson(name, of.value, columns, error)
        if found[name] is None and error > 0:
            low, high = _edges(of.pivots)
            found[name] = _inside(of.value - high * error, of.value - low * error)
    return found


def paired_test(
    a: Columns,
    b: Columns,
    figures: Figures,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 10000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Are two results on the same images different? Two-sided test by approximate randomization.

    If they were not, it would not matter which of the two an image's counts came from: they are exchanged at random,
    ``resamples`` times, and p is the share of exchanges that give a difference at least as large. It speaks of these
    two results only; what training again would change, it cannot know.

    Args:
        a: what each image adds, of the first result.
        b: of the second, in the same order of images.
        figures: ratios of sums.
        groups: the group of each image, exchanged as a whole; None: each by itself.
        resamples: how often.
        seed: of the exchanges.

    Returns:
        Of each figure the difference a - b and p; None where it is undefined.
    """
    a, b = grouped(a, groups), grouped(b, groups)
    measured_a, measured_b = (figures({name: column.sum(0) for name, column in of.items()}) for of in (a, b))
    units = len(next(iter(a.values())))
    rng = np.random.default_rng(seed)
    at_least = dict.fromkeys(measured_a, 0)
    for start in range(0, resamples, _CHUNK):
        exchanged = rng.random((min(_CHUNK, resamples - start), units)) < 0.5
        sums_a, sums_b = {}, {}
        for name in a:
            moved = np.tensordot(exchanged.astype(float), b[name] - a[name], 1)
            sums_a[name], sums_b[name] = a[name].sum(0) + moved, b[name].sum(0) - moved
        of_a, of_b = figures(sums_a), figures(sums_b)
        for name in at_least:
            observed = abs(measured_a[name] - measured_b[name])
            smaller = np.abs(of_a[name] - of_b[name]) < observed - 1e-12  # false where undefined
            at_least[name] += int((~smaller).sum())
    return {
        name: None
        if np.isnan(measured_a[name] - measured_b[name])
        else (float(measured_a[name] - measured_b[name]), (1 + at_least[name]) / (1 + resamples))
        for name in at_least
    }


@dataclass(frozen=True)
class Comparison:
    """A figure's mean over the runs of one method, or the difference of two methods' means.

    Attributes:
        value: the mean, or that of the first minus that of the second.
        means: of each method.
        interval: 95 %, over images and, where there are several, over runs; in [0, 1], of a difference in [-1, 1].
            None where it is undefined or all of that.
        first_larger: probability that a run of the first lies above one of the second on other images: the share of
            pairs of runs and resamples of images, ties as half, undefined ones not. 0 for one method.
        first_smaller: that it lies below, likewise.
        image_variance: of ``value``, from the choice of images; what runs share only, where there are several.
        run_variance: of one run's figure on these images, by method; empty where no method has several runs.
    """

    value: float
    means: tuple[float, ...]
    interval: Interval | None
    first_larger: float
    first_smaller: float
    image_variance: float
    run_variance: tuple[float, ...]

    @property
    def spread_known(self) -> bool:
        """Whether anything follows for more runs: of runs that agree to the digit by chance nothing does."""
        return self.interval is not None and min(self.run_variance, default=0.0) > 0

    def seeds(self, width: float) -> int | None:
        """Runs of each method until the 95 % interval is value +- ``width`` or narrower, other things equal.

        None where no number of runs does it, the images alone leaving more, or where runs' spread is unknown.
        """
        for count in range(2, _MOST_SEEDS + 1) if self.spread_known else ():
            variance = self.image_variance + sum(self.run_variance) / count
            runs = sum((of / count) ** 2 / (count - 1) for of in self.run_variance)
            freedom = min(variance**2 / runs, 1e9)
            if stdtrit(freedom, (1 + LEVEL) / 2) * variance**0.5 <= width:
                return count
        return None


def compare_runs(
    a: Sequence[Columns],
    b: Sequence[Columns],
    figures: Figures,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """The mean over one method's runs, or the difference of two methods, with an interval over runs and images.

    All runs were tested on the same images. Two levels of chance add up:

    - runs: on these images the figures of runs are independent draws, so their mean has a Student t with (runs - 1)
      degrees of freedom; for two methods both together with Welch's. A plain bootstrap of three runs has two thirds
      of their variance, and takes too little even of that for extremes.
    - images: the same ones are drawn for every run of both methods, and the deviation studentised as in
      :func:`intervals`. Its variance is that of what runs have in common: what each run does to single images is in
      the spread of runs already, and subtracted.

    The interval has the quantiles of the sum of the two, taken as independent (as Behrens and Fisher do: with few runs
    somewhat wide rather than narrow). One run beside several has the spread of the others; with one run a side there
    is none, and the interval speaks of these weights only.

    Args:
        a: what each image adds, (images,) arrays, for each run of a method.
        b: of another method, on the same images in the same order; empty for the mean of ``a``.
        figures: as for :func:`intervals`.
        groups: the group of each image; None: each by itself.
        resamples: how often images are drawn again.
        seed: of the drawing.
    """
    runs = [grouped(run, groups) for run in (*a, *b)]
    weights = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / max(len(b), 1))])
    sides = [slice(0, len(a)), *([slice(len(a), len(runs))] if b else [])]
    return {name: _compared(of, sides) for name, of in _draw(runs, weights, figures, resamples, seed).items()}


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
class _Drawn:
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


def _draw(
    runs: Sequence[Columns], weights: Array, figures: Figures, resamples: int, seed: int
) -> dict[str, _Drawn]:
    """Resample the units, the same for all runs."""
    stacked = {name: np.stack([run[name] for run in runs], 1) for name in runs[0]}  # (units, runs)
    total = {name: column.sum(0) for name, column in stacked.items()}
    values, slopes = figures(total), _slopes(figures, total, total)
    units = len(next(iter(stacked.values())))
    pivots: dict[str, list[Array]] = {name: [] for name in values}
    drawn: dict[str, list[Array]] = {name: [] for name in values}
    for counts in _counts(units, resamples, seed):
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
        name: _Drawn(
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


def _compared(of: _Drawn, sides: Sequence[slice]) -> Comparison:
    counts = np.array([side.stop - side.start for side in sides])
    several = counts > 1
    between, own = (np.zeros(len(sides)) for _ in range(2))
    for k, side in enumerate(sides):
        if several[k]:
            own[k] = _own(of.influence[:, side])
            if np.ptp(of.runs[side]) > _ROUNDING:
                between[k] = of.runs[side].var(ddof=1)
    between[~several], own[~several] = (
        between.sum(),
        own.sum(),
    )  # one run has the spread of the other method's
    of_runs, freedoms = between / counts, np.where(several, counts, counts.max()) - 1
    images = of.image_variance - float((own / counts).sum())
    if images <= _ROUNDING * of.image_variance:
        images = 0.0
    # The sum of both deviations, each by its quantiles.
    deviations = of.pivots[:, None] * images**0.5 if images else np.zeros((1, 1))
    if of_runs.any():
        freedom = of_runs.sum() ** 2 / (of_runs**2 / freedoms).sum()
        deviations = deviations + of_runs.sum() ** 0.5 * stdtrit(freedom, (np.arange(100) + 0.5) / 100)
    low, high = _edges(deviations)
    larger = smaller = 0.0
    if len(sides) == 2:
        first, second = of.drawn[:, sides[0], None], of.drawn[:, None, sides[1]]
        ties = 0.5 * (first == second)
        larger, smaller = float(((first > second) + ties).mean()), float(((first < second) + ties).mean())
    known = len(of.influence) > 1 and high - low > _ROUNDING
    return Comparison(
        of.value,
        tuple(float(of.runs[side].mean()) for side in sides),
        _inside(of.value - high, of.value - low, least=1.0 - len(sides)) if known else None,
        larger,
        smaller,
        images,
        tuple(between.tolist()) if several.any() else (),
    )


def _own(influence: Array) -> float:
    """Of a run's variance over images the part that it does not share with the other runs of its method."""
    units, runs = influence.shape
    alone = influence - influence.mean(1, keepdims=True)
    return float((alone**2).sum() / (runs - 1) * units / max(units - 1, 1))


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
    return _inside(middle - half, middle + half)


def _percentiles(columns: Columns, figures: Figures, resamples: int, seed: int) -> dict[str, Interval | None]:
    value = figures({name: column.sum(0) for name, column in columns.items()})
    units = len(next(iter(columns.values())))
    drawn = [
        figures({name: np.tensordot(counts, column, 1) for name, column in columns.items()})
        for counts in _counts(units, resamples, seed)
    ]
    found: dict[str, Interval | None] = {}
    for name in value:
        low, high = _edges(np.concatenate([chunk[name] for chunk in drawn]))
        flat = {key: column for key, column in columns.items() if column.ndim == 1}
        certain = value[name] in (0, 1)
        found[name] = (_wilson(name, float(value[name]), flat, 0.0) if certain else None) or _inside(
            low, high
        )
    return found


def _counts(units: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each unit is drawn, (resamples, units), in chunks."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        drawn = rng.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(float)


def _edges(values: Array) -> tuple[float, float]:
    """The quantiles of a 95 % interval; an undefined value lies beyond both."""
    values, undefined = values.ravel(), np.isnan(values).ravel()
    outside = (len(values) - 1) * (1 - LEVEL) / 2
    low = np.partition(np.where(undefined, -np.inf, values), int(outside))[int(outside)]
    last = int(np.ceil(len(values) - 1 - outside))
    high = np.partition(np.where(undefined, np.inf, values), last)[last]
    return float(low), float(high)


def _inside(low: float, high: float, least: float = 0.0) -> Interval | None:
    """Bounds of a figure in [least, 1]; None where they are undefined or say nothing."""
    if not np.isfinite((low, high)).all():
        return None
    low, high = max(float(low), least), min(float(high), 1.0)
    return (low, high) if low < high and (low, high) != (least, 1.0) else None
