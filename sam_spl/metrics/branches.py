"""The components of a map above every threshold at once, from its peaks and the passes between them.

Each pixel leads to the highest of its neighbours and so to a peak; what leads to one peak is its basin. A
pass is a pixel whose higher neighbours fall into several parts: there basins meet. Falling from the highest
threshold, a component begins at each peak; where two meet, that of the lower peak becomes part of the other.
So a peak stands for one component from its own level down to the pass where it ends, which is its branch of
the merge tree.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]

#: The neighbours of a pixel, (row, column), in raster order; neighbour k has bit 2**k in codes.
_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def _parts() -> NDArray[np.int8]:
    """Code of neighbours -> one neighbour of each part that they form without the centre, -1 for no more."""
    first = np.full((256, 4), -1, np.int8)
    for code in range(256):
        ring = np.zeros((3, 3), np.uint8)
        for k, (y, x) in enumerate(_AROUND):
            ring[1 + y, 1 + x] = code >> k & 1
        number, labels = cv2.connectedComponents(ring, connectivity=8)
        around = [labels[1 + y, 1 + x] for y, x in _AROUND]
        first[code, : number - 1] = [around.index(part) for part in range(1, number)]
    return first


_PARTS = _parts()


class States(NamedTuple):
    """A component above one threshold each, (N,).

    Attributes:
        steps: the threshold k: pixels of a level above k.
        areas: pixels.
        x: sum of their columns.
        y: sum of their rows.
    """

    steps: Whole
    areas: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def states(level: NDArray[np.uint8]) -> States:
    """Every component above every threshold.

    Args:
        level: (H, W); 0 is above no threshold.
    """
    basin, tops, passes = _basins(level)
    ends, into = _merge(len(tops), *passes)
    used = np.flatnonzero(level)
    at, high = basin[used], level.ravel()[used]
    # A pixel appears below its level, in the component that its peak belongs to by then.
    at = _survivor(at, high, ends, into)

    lives = tops - ends  # thresholds that a peak has a component at, ends <= k < tops
    starts = np.concatenate([[0], lives.cumsum()])
    slots = (starts[:-1] + tops)[at] - high
    ended = np.flatnonzero((ends > 0) & (lives > 0))
    grown = (starts[:-1] + tops)[into[ended]] - ends[ended]  # where what ends becomes part of another
    size = int(starts[-1])
    columns = np.tile(np.arange(level.shape[1], dtype=float), level.shape[0])
    rows = np.repeat(np.arange(level.shape[0], dtype=float), level.shape[1])
    sums = []
    for values in (None, columns[used], rows[used]):
        added = np.bincount(slots, values, size).astype(float, copy=False)
        own = np.diff(_sums(added)[starts])
        whole = own.copy()
        child, ancestor = ended, into[ended]
        while len(child):
            whole += np.bincount(ancestor, own[child], len(tops))
            on = ends[ancestor] > 0
            child, ancestor = child[on], into[ancestor[on]]
        added += np.bincount(grown, whole[ended], size)
        total = _sums(added)
        sums.append(total[1:] - np.repeat(total[starts[:-1]], lives))
    steps = np.repeat(tops + starts[:-1], lives) - 1 - np.arange(size)
    return States(steps, *sums)


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the first k, k from 0 on; whole numbers, so exact."""
    return np.concatenate([[0.0], values.cumsum()])


def _basins(level: NDArray[np.uint8]) -> tuple[Whole, Whole, tuple[Whole, Whole, Whole]]:
    """Peaks, what leads to them, and where they meet.

    Returns:
        (H x W,) the peak that each pixel leads to, by number, of those whose level is above 0; (peaks,) their
        levels, which rise; and passes: two peaks each, and the level at which they meet, which falls.
    """
    height, width = level.shape
    bits = (level.size - 1).bit_length()
    # Unique heights, so that flat regions have a highest pixel as well. As floats, which dilate takes.
    kind = np.dtype(np.float32 if bits + 8 <= 24 else np.float64)  # of 24 and 53 bits
    heights = level.astype(kind) * (1 << bits) + np.arange(level.size, dtype=kind).reshape(level.shape)
    highest = cv2.dilate(heights, np.ones((3, 3), np.uint8))
    leads = (highest.astype(np.int64) & ((1 << bits) - 1)).ravel()
    while not np.array_equal(further := leads[leads], leads):
        leads = further
    peaks = np.flatnonzero((highest == heights) & (level > 0))
    peaks = peaks[np.argsort(level.ravel()[peaks], kind="stable")]
    number = np.zeros(level.size, np.int64)
    number[peaks] = np.arange(len(peaks))
    basin = number[leads]

    around = np.full((height + 2, width + 2), -1, kind)
    around[1:-1, 1:-1] = heights
    code = np.zeros(level.shape, np.uint8)
    for k, (y, x) in enumerate(_AROUND):
        code |= (around[1 + y : 1 + y + height, 1 + x : 1 + x + width] > heights).view(np.uint8) << k
    code[level == 0] = 0
    steps = np.array([y * width + x for y, x in _AROUND])
    several = np.flatnonzero((_PARTS[:, 1] >= 0)[code])
    parts = _PARTS[code.ravel()[several]]
    first = basin[several + steps[parts[:, 0]]]
    pairs = []
    for part in parts.T[1:]:
        there = np.flatnonzero(part >= 0)
        pairs.append((first[there], basin[several[there] + steps[part[there]]], several[there]))
    a, b, where = (np.concatenate(of) for of in zip(*pairs, strict=True))
    met = level.ravel()[where]
    order = np.argsort(255 - met, kind="stable")
    return basin, level.ravel()[peaks].astype(np.int64), (a[order], b[order], met[order].astype(np.int64))


def _merge(number: int, a: Whole, b: Whole, met: Whole) -> tuple[Whole, Whole]:
    """Where the component of each peak ends, and in which other.

    In rounds, as Boruvka's: the highest pass of a component is where it first meets another, and of the two
    that meet there the one with the lower peak ends. Peaks are numbered as they rise.

    Args:
        number: of peaks.
        a: (passes,) a peak on one side of each pass, highest pass first.
        b: on the other side.
        met: the level of each.

    Returns:
        (peaks,) the level of the pass where each ends, 0 for never; and a peak whose component is still there
        below it, the peak itself for one that never ends.
    """
    ends, into = np.zeros(number, np.int64), np.arange(number)
    live = into.copy()
    leads = into.copy()  # to the peak that the rounds so far have joined each to
    highest, other = np.empty(number, np.int64), np.empty(number, np.int64)
    while len(apart := np.flatnonzero(a != b)):
        a, b, met = a[apart], b[apart], met[apart]
        falling = np.arange(len(a))[::-1]
        highest[live] = other[live] = len(a)
        highest[a[::-1]] = falling  # of several the last write stays: the highest pass
        other[b[::-1]] = falling
        at = np.minimum(highest[live], other[live])
        meeting = at < len(a)  # the others have met all they can
        live, at = live[meeting], at[meeting]
        meets = a[at] + b[at] - live
        lower = meets > live
        ending, live = live[lower], live[~lower]
        ends[ending], into[ending] = met[at[lower]], meets[lower]
        goal = meets[lower]
        leads[ending] = goal
        while not np.array_equal(further := leads[goal], goal):
            leads[ending] = goal = further
        a, b = leads[a], leads[b]
    ended = np.flatnonzero(ends)
    into[ended] = _survivor(into[ended], ends[ended], ends, into)
    return ends, into


def _survivor(at: Whole, level: NDArray[np.integer], ends: Whole, into: Whole) -> Whole:
    """The peaks whose components hold, below a level, what those of the peaks ``at`` held above it."""
    at = at.copy()
    over = np.flatnonzero(ends[at] >= level)
    while len(over):
        at[over] = into[at[over]]
        over = over[ends[at[over]] >= level[over]]
    return at
