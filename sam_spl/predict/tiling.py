"""Large frames in overlapping tiles, whose logits are blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_spl.resize import Image

_MOST_OVERLAP = 128  # pixels: more costs time, and targets are a tenth of it
_STRIDES = 32  # of networks, which pad to its multiples


@dataclass(frozen=True)
class Span:
    """The rows, or the columns, of a tile.

    Attributes:
        start: the first.
        stop: behind the last.
        weight: (stop - start,), of the tile's answer among those of all tiles; these sum up to 1 everywhere.
    """

    start: int
    stop: int
    weight: NDArray[np.float32]

    @property
    def where(self) -> slice:
        """This part of a frame."""
        return slice(self.start, self.stop)


def spans(length: int, tile: int, grid: int) -> list[Span]:
    """Cover one axis of a frame with tiles.

    Neighbours share at least a quarter of a tile, at most 128 pixels (more where the last tile would not fit
    otherwise). Beside an inner edge of a tile a network sees padding instead of the frame: along a quarter of
    what is shared the weight is 0. From there it rises linearly to 1 along the next half. At the edge of the
    frame it is 1.

    Args:
        length: of the axis, in pixels.
        tile: the most that a tile has, at least 32 pixels.
        grid: tiles start at multiples of it, and the last one may be shorter by ``grid - 1``; at most a
            quarter of ``tile``.
    """
    if length <= tile:
        return [Span(0, length, np.ones(length, np.float32))]
    step = (tile - min(tile // 4, _MOST_OVERLAP)) // grid * grid
    count = 1 - (tile - length) // step
    # Evenly spread, then rounded up to the grid: two rounded starts are not farther apart than a step.
    starts = [-(k * (tile - length) // ((count - 1) * grid)) * grid for k in range(count)]
    covers = [(start, min(start + tile, length)) for start in starts]

    margin = (tile - step) // 4
    rise = np.clip((np.arange(tile) + 0.5 - margin) / (tile - step - 2 * margin), 0, 1)
    weights, total = [], np.zeros(length)
    for start, stop in covers:
        weight = np.ones(stop - start)
        if start > 0:
            weight = rise[: stop - start].copy()
        if stop < length:
            weight = np.minimum(weight, rise[stop - start - 1 :: -1])
        weights.append(weight)
        total[start:stop] += weight
    return [
        Span(start, stop, (weight / total[start:stop]).astype(np.float32))
        for (start, stop), weight in zip(covers, weights, strict=True)
    ]


def predict_tiled(
    image: Image,
    tile: int,
    logits_of: Callable[[list[Image]], Tensor],
    *,
    aligned: bool,
    together: int = 1,
) -> NDArray[np.float32]:
    """Predict a frame in tiles.

    Beside the frame and its map, memory holds one batch of tiles and what the network needs for it.

    Args:
        image: (H, W) or (H, W, 3).
        tile: side of the tiles in pixels, at least 32; those of a smaller frame are its own height or width.
        logits_of: the network: from B pieces of one size (h, w) to logits (B, h, w).
        aligned: tiles start at multiples of 32 (of a quarter of a tile below 128), so that a network pools
            the same pixels in a tile as in the frame; the last ones of a row and of a column are up to 31
            pixels smaller. False: all tiles have their full size.
        together: how many tiles go through the network at once.

    Returns:
        (H, W), the probability: the sigmoid of the weighted mean of the tiles' logits.
    """
    height, width = image.shape[:2]
    grid = min(_STRIDES, tile // 4) if aligned else 1
    logits = np.zeros((height, width), np.float32)
    tiles = product(spans(height, tile, grid), spans(width, tile, grid))
    for batch in _batches(tiles, together):
        answers = logits_of([image[rows.where, columns.where] for rows, columns in batch]).cpu().numpy()
        for (rows, columns), answer in zip(batch, answers, strict=True):
            logits[rows.where, columns.where] += rows.weight[:, None] * columns.weight * answer
    torch.from_numpy(logits).sigmoid_()
    return logits


def _batches(tiles: Iterator[tuple[Span, Span]], most: int) -> Iterator[Sequence[tuple[Span, Span]]]:
    """Tiles of one size that follow each other, up to ``most``."""
    for _, same in groupby(tiles, key=lambda tile: [len(span.weight) for span in tile]):
        alike = list(same)
        yield from (alike[k : k + most] for k in range(0, len(alike), most))
