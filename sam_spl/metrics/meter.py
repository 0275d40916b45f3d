"""Per-image counts over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sam_spl.metrics.dataset_counts import Counter, DatasetCounts, Mask, Prob
from sam_spl.metrics.protocols import PROTOCOLS, Protocol

Rows = NDArray[np.float64]


class Meter:
    """Collects the rows of a :class:`~sam_spl.metrics.dataset_counts.Counter`.

    ``update`` takes the image's index in the data set, so that every figure can be traced to its images and
    an image that two processes scored is counted once.

    Args:
        protocols: what to count for.
        detailed: count for hIoU and for curves as well.
    """

    def __init__(
        self, protocols: Sequence[Protocol] = (PROTOCOLS["native"],), *, detailed: bool = False
    ) -> None:
        self.counter = Counter(protocols, detailed=detailed)
        self._rows: list[list[float]] = []

    @property
    def resolutions(self) -> list[str]:
        """The resolutions that ``update`` needs a map at."""
        return self.counter.resolutions

    def update(
        self, indices: Sequence[int], probs: Sequence[Mapping[str, Prob]], masks: Sequence[Mask]
    ) -> None:
        """Add images: indices, probability maps by resolution, and masks (H, W) at the images' own sizes."""
        for image in zip(indices, probs, masks, strict=True):
            self.add(self.counter.row(*image))

    def add(self, row: list[float]) -> None:
        """Add an image by its row, which may have been counted in another thread."""
        self._rows.append(row)

    def counts(self, gather: Callable[[Rows], Sequence[Rows]] | None = None) -> DatasetCounts:
        """The counts by name, in the order of the data set.

        Args:
            gather: from this process's rows to those of every process, as
                :meth:`sam_spl.runtime.World.gather`; None where there is one process.
        """
        rows = np.array(self._rows, np.float64).reshape(-1, self.counter.width)
        return self.counter.unpack(rows if gather is None else np.concatenate(gather(rows)))
