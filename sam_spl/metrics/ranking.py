"""Several methods in order of a figure, and which of the orders chance alone does not explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sam_spl.metrics.comparison import compare_runs
from sam_spl.metrics.figures import FIGURES, Array, Columns
from sam_spl.metrics.resampling import LEVEL, Figures, Interval


@dataclass(frozen=True)
class Place:
    """A method in a ranking.

    Attributes:
        name: of the method.
        runs: how many were trained.
        mean: of the figure over runs; NaN where it is undefined.
        interval: 95 %, over images and, where there are several, over runs.
    """

    name: str
    runs: int
    mean: float
    interval: Interval | None


@dataclass(frozen=True)
class Ranking:
    """Methods by a figure.

    Attributes:
        figure: its key.
        places: the best first; methods whose figure is undefined last.
        p: (places, places), symmetric: of the difference of two, adjusted for the number of pairs.
    """

    figure: str
    places: tuple[Place, ...]
    p: Array

    def supported(self, better: int, worse: int) -> bool:
        """Whether the data support that of two places the better is the better method.

        With 95 % confidence all orders of a ranking that are said to be supported hold.
        """
        return better < worse and bool(self.p[better, worse] <= 1 - LEVEL)


def rank(
    methods: Mapping[str, Sequence[Columns]],
    figure: str,
    figures: Figures,
    *,
    fixed: Sequence[str] = (),
    groups: Sequence[str] | None = None,
    resamples: int = 10000,
    seed: int = 0,
) -> Ranking:
    """Order methods that were tested on the same images, and test each pair.

    A pair is compared as :func:`~sam_spl.metrics.comparison.compare_runs` does: the same images are drawn for
    both, and runs of a method are draws of their own. Of m (m - 1) / 2 pairs some would differ by chance:
    Holm's method adjusts p so that the chance of any wrong order among those called supported is 5 % at most.

    Args:
        methods: by name what each image adds, (images,) arrays, for each run.
        figure: key of the figure, one that ``figures`` gives.
        figures: ratios of sums.
        fixed: names of methods without training, whose one run has no spread to be unsure of.
        groups: the group of each image; None: each by itself.
        resamples: how often images are drawn again; p is 2 / (resamples + 1) at least.
        seed: of the drawing.
    """

    def only(sums: Columns) -> Mapping[str, Array]:
        return {figure: figures(sums)[figure]}

    few = max(resamples // 10, 100)  # as for intervals elsewhere
    alone = {
        name: compare_runs(runs, [], only, groups=groups, resamples=few, seed=seed)[figure]
        for name, runs in methods.items()
    }
    sign = -1.0 if FIGURES[figure].higher_is_better else 1.0
    names = sorted(methods, key=lambda name: _last_if_undefined(sign * alone[name].value))
    places = [Place(name, len(methods[name]), alone[name].value, alone[name].interval) for name in names]

    pairs = list(combinations(range(len(names)), 2))
    found = []
    for pair in pairs:
        sides = [list(methods[names[k]]) for k in pair]
        if max(map(len, sides)) > 1:  # a second, equal run says that there is no spread
            sides = [side * 2 if names[k] in fixed else side for k, side in zip(pair, sides, strict=True)]
        a, b = sides
        compared = compare_runs(a, b, only, groups=groups, resamples=resamples, seed=seed)
        found.append(compared[figure].p)
    p = np.ones((len(names), len(names)))
    for (i, j), adjusted in zip(pairs, holm(found), strict=True):
        p[i, j] = p[j, i] = adjusted
    return Ranking(figure, tuple(places), p)


def holm(p: Sequence[float]) -> list[float]:
    """Values p of several tests, adjusted: those up to a level are wrong together no more often than that.

    Holm, Scandinavian Journal of Statistics 6, 1979: the smallest of m is multiplied by m, the next by m - 1,
    and so on, none to less than the one before.
    """
    order = np.argsort(p, kind="stable")
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = largest
    return adjusted


def _last_if_undefined(value: float) -> tuple[bool, float]:
    return bool(np.isnan(value)), value
