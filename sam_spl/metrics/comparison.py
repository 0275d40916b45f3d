"""Whether two methods differ by more than chance: over images, and over runs where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from sam_spl.metrics.figures import Array, Columns
from sam_spl.metrics.resampling import (
    CHUNK,
    LEVEL,
    Drawn,
    Figures,
    Interval,
    draw,
    edges,
    grouped,
    inside,
)

_MOST_SEEDS = 1000
_ROUNDING = 1e-12  # what differs by less is equal


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

    If they were not, it would not matter which of the two an image's counts came from: they are exchanged at
    random, ``resamples`` times, and p is the share of exchanges that give a difference at least as large. It
    is about these two results only, and says nothing about training again.

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
    for start in range(0, resamples, CHUNK):
        exchanged = rng.random((min(CHUNK, resamples - start), units)) < 0.5
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
        interval: 95 %, over images and, where there are several, over runs; in [0, 1], of a difference in
            [-1, 1]. None where it is undefined or all of that.
        first_larger: probability that a run of the first lies above one of the second on other images: the
            share of pairs of runs and resamples of images, ties as half, undefined ones not. 0 for one
            method.
        first_smaller: that it lies below, likewise.
        image_variance: of ``value``, from the choice of images; what runs share only, where there are
            several.
        run_variance: of one run's figure on these images, by method; empty where no method has several runs.
        p: that ``value`` is not 0, two-sided: 1 less the level of the interval that just reaches 0. 1 where
            there is no interval.
    """

    value: float
    means: tuple[float, ...]
    interval: Interval | None
    first_larger: float
    first_smaller: float
    image_variance: float
    run_variance: tuple[float, ...]
    p: float

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
    """The mean of one method's runs, or the difference of two methods, with intervals over runs and images.

    All runs were tested on the same images. Two levels of chance add up:

    - runs: on these images the figures of runs are independent draws, so their mean has a Student t with
      (runs - 1) degrees of freedom; for two methods both together with Welch's. A plain bootstrap of three
      runs has two thirds of their variance, and takes too little even of that for extremes.
    - images: the same ones are drawn for every run of both methods, and the deviation studentised as in
      :func:`intervals`. Its variance is that of what runs have in common: what each run does to single images
      is in the spread of runs already, and subtracted.

    The interval has the quantiles of the sum of the two, taken as independent (as Behrens and Fisher do: with
    few runs somewhat wide rather than narrow). One run beside several has the spread of the others; with one
    run a side there is none, and the interval is about these weights only.

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
    return {name: _compared(of, sides) for name, of in draw(runs, weights, figures, resamples, seed).items()}


def _compared(of: Drawn, sides: Sequence[slice]) -> Comparison:
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
    of_images = of.pivots * images**0.5 if images else np.zeros_like(of.pivots)
    deviations, freedom = of_images[:, None], 1.0
    if of_runs.any():
        freedom = float(of_runs.sum() ** 2 / (of_runs**2 / freedoms).sum())
        deviations = deviations + of_runs.sum() ** 0.5 * stdtrit(freedom, (np.arange(100) + 0.5) / 100)
    low, high = edges(deviations)
    larger = smaller = 0.0
    if len(sides) == 2:
        first, second = of.drawn[:, sides[0], None], of.drawn[:, None, sides[1]]
        ties = 0.5 * (first == second)
        larger, smaller = float(((first > second) + ties).mean()), float(((first < second) + ties).mean())
    known = len(of.influence) > 1 and high - low > _ROUNDING
    return Comparison(
        of.value,
        tuple(float(of.runs[side].mean()) for side in sides),
        inside(of.value - high, of.value - low, least=1.0 - len(sides)) if known else None,
        larger,
        smaller,
        images,
        tuple(between.tolist()) if several.any() else (),
        _p(of.value, of_images, float(of_runs.sum()) ** 0.5, freedom) if known else 1.0,
    )


def _p(value: float, of_images: Array, of_runs: float, freedom: float) -> float:
    """The share of deviations (of images, plus a Student t times ``of_runs``) as far as ``value``."""
    if of_runs:
        above, below = (stdtr(freedom, sign * (of_images - value) / of_runs) for sign in (1, -1))
    else:
        above, below = ((sign * (of_images - value) >= 0).astype(float) for sign in (1, -1))
    tails = [
        (1 + np.where(np.isnan(of_images), 1.0, side).sum()) / (1 + len(side)) for side in (above, below)
    ]
    return 1.0 if np.isnan(value) else float(min(1.0, 2 * min(tails)))


def _own(influence: Array) -> float:
    """Of a run's variance over images the part that it does not share with the other runs of its method."""
    units, runs = influence.shape
    alone = influence - influence.mean(1, keepdims=True)
    return float((alone**2).sum() / (runs - 1) * units / max(units - 1, 1))
