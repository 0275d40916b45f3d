"""How sure a figure is: intervals over images, and a paired test between two results on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from sam_spl.metrics.protocols import Array, Columns

Figures = Callable[[Columns], Mapping[str, Array]]  # of sums to ratios, any leading shape
_CHUNK = 200  # resamples at a time, to bound memory


def intervals(
    columns: Columns, figures: Figures, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Percentile bootstrap: the images drawn anew with replacement, ``resamples`` times.

    Args:
        columns: what each image adds, (images, ...) arrays.
        figures: ratios of sums.
        resamples: how often.
        level: of confidence.
        seed: of the drawing.

    Returns:
        Lower and upper bound of each figure; None where it is undefined.
    """
    drawn = [figures(sums) for sums in _resampled(columns, resamples, seed)]
    bounds: dict[str, tuple[float, float] | None] = {}
    for name in drawn[0] if drawn else ():
        values = np.concatenate([chunk[name] for chunk in drawn])
        values = values[~np.isnan(values)]
        edges = np.quantile(values, ((1 - level) / 2, (1 + level) / 2)) if len(values) else ()
        bounds[name] = (float(edges[0]), float(edges[1])) if len(edges) else None
    return bounds


def paired_test(
    a: Columns, b: Columns, figures: Figures, *, resamples: int = 10000, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Are two results on the same images different? Two-sided test by approximate randomization.

    If they were not, it would not matter which of the two an image's counts came from: they are exchanged at random,
    ``resamples`` times, and p is the share of exchanges that give a difference at least as large.

    Args:
        a: what each image adds, of the first result.
        b: of the second, in the same order of images.
        figures: ratios of sums.
        resamples: how often.
        seed: of the exchanges.

    Returns:
        Of each figure the difference a - b and p; None where it is undefined.
    """
    measured_a, measured_b = (figures({name: column.sum(0) for name, column in of.items()}) for of in (a, b))
    images = len(next(iter(a.values())))
    rng = np.random.default_rng(seed)
    at_least = dict.fromkeys(measured_a, 0)
    for start in range(0, resamples, _CHUNK):
        exchanged = rng.random((min(_CHUNK, resamples - start), images)) < 0.5
        sums_a, sums_b = {}, {}
        for name in a:
            moved = np.tensordot(exchanged.astype(float), b[name] - a[name], 1)
            sums_a[name], sums_b[name] = a[name].sum(0) + moved, b[name].sum(0) - moved
        of_a, of_b = figures(sums_a), figures(sums_b)
        for name in at_least:
            observed = abs(measured_a[name] - measured_b[name])
            at_least[name] += int((np.abs(of_a[name] - of_b[name]) >= observed - 1e-12).sum())
    return {
        name: None
        if np.isnan(measured_a[name] - measured_b[name])
        else (float(measured_a[name] - measured_b[name]), (1 + at_least[name]) / (1 + resamples))
        for name in at_least
    }


def _resampled(columns: Columns, resamples: int, seed: int) -> Iterator[Columns]:
    """Sums over resampled images, (resamples, ...) arrays, in chunks."""
    images = len(next(iter(columns.values())))
    if not images:
        return
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        drawn = rng.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(float)
        yield {name: np.tensordot(weights, column, 1) for name, column in columns.items()}
