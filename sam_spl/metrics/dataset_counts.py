"""What each image of a data set adds, counted image by image."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_spl.metrics.counts import ImageCounts, count_image
from sam_spl.metrics.curves import CURVE_FIELDS, STEPS, curve_counts
from sam_spl.metrics.figures import Columns
from sam_spl.metrics.hiou import HierarchicalCounts, count_hierarchical
from sam_spl.metrics.protocols import PROTOCOLS, Protocol, View
from sam_spl.metrics.target import components
from sam_spl.resize import resize_mask

Prob = NDArray[np.floating[Any]]  # (H, W) in [0, 1]
Mask = NDArray[np.bool_]
OWN = View("own")
THRESHOLD = 0.5
_HEAD = 4  # a row begins with the image's index, and its mask's height, width and fingerprint


@dataclass(frozen=True)
class DatasetCounts:
    """What every image of a data set adds; sums of rows are counts of the data set.

    Attributes:
        indices: (images,) of the images in their data set.
        views: view -> (images, fields of :class:`ImageCounts`).
        hierarchical: (images, fields of :class:`HierarchicalCounts`), at the images' own size; None if not
            counted.
        curves: (images, 200, 5) by threshold, likewise.
        masks: (images, 3), height and width of each mask as stored and a fingerprint of its content; None if
            the counts were made without masks.
    """

    indices: NDArray[np.int64]
    views: dict[View, NDArray[np.float64]] = field(repr=False)
    hierarchical: NDArray[np.float64] | None = field(default=None, repr=False)
    curves: NDArray[np.float64] | None = field(default=None, repr=False)
    masks: NDArray[np.int64] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, counts: Iterable[ImageCounts]) -> DatasetCounts:
        """The counts of images at their own size."""
        rows = np.array([tuple(count) for count in counts], float).reshape(-1, len(ImageCounts._fields))
        return cls(np.arange(len(rows)), {OWN: rows})

    def __len__(self) -> int:
        return len(self.indices)

    def images(self, view: View = OWN) -> list[ImageCounts]:
        """The counts of each image."""
        return [ImageCounts(*row) for row in self.views[view].astype(np.int64).tolist()]

    def hierarchical_columns(self) -> Columns:
        """:class:`HierarchicalCounts` by name."""
        assert self.hierarchical is not None
        return {name: self.hierarchical[:, k] for k, name in enumerate(HierarchicalCounts._fields)}


class Counter:
    """Counts an image under several protocols: one row of numbers, to be added, gathered and unpacked again.

    Args:
        protocols: what to count for. Each image is labelled once for each resolution and threshold among
            them.
        detailed: count for hIoU and for curves as well, at the images' own size.
    """

    def __init__(
        self, protocols: Sequence[Protocol] = (PROTOCOLS["native"],), *, detailed: bool = False
    ) -> None:
        self.views = list(
            dict.fromkeys([*([OWN] if detailed else []), *(v for p in protocols for v in p.views)])
        )
        self.detailed = detailed

    @property
    def resolutions(self) -> list[str]:
        """The resolutions that :meth:`row` needs a map at."""
        return list(dict.fromkeys(view.resolution for view in self.views))

    @property
    def width(self) -> int:
        """Numbers in a row."""
        details = len(HierarchicalCounts._fields) + STEPS * len(CURVE_FIELDS) if self.detailed else 0
        return _HEAD + len(self.views) * len(ImageCounts._fields) + details

    def row(self, index: int, probs: Mapping[str, Prob], mask: Mask) -> list[float]:
        """The row of one image: its index, its probability maps by resolution, its mask at its own size."""
        row: list[float] = [
            float(index),
            *map(float, mask.shape),
            float(zlib.crc32(np.packbits(mask).tobytes())),
        ]
        details: list[float] = []
        places = dict.fromkeys(view._replace(relative=False) for view in self.views)
        masks = {at: resize_mask(mask, probs[at.resolution].shape, at.resize) for at in places}
        targets = {at: components(of) for at, of in masks.items()}
        for view in self.views:
            prob, at = probs[view.resolution], view._replace(relative=False)
            pred = (prob / max(prob.max(initial=0), 1e-38) if view.relative else prob) > THRESHOLD
            found = components(pred)
            row += count_image(pred, masks[at], predictions=found, targets=targets[at])
            if self.detailed and view == OWN:
                curves = curve_counts(prob, mask, targets[at])
                details = [*count_hierarchical(found, targets[at]), *curves.ravel().tolist()]
        return [*row, *details]

    def unpack(self, rows: NDArray[np.float64]) -> DatasetCounts:
        """Rows by name, in the order of the data set; of an image counted twice one."""
        rows = np.asarray(rows, np.float64).reshape(-1, self.width)
        indices, first = np.unique(rows[:, 0].astype(np.int64), return_index=True)
        masks = rows[first, 1:_HEAD].astype(np.int64)
        rows, fields = rows[first, _HEAD:], len(ImageCounts._fields)
        views = {view: rows[:, k * fields : (k + 1) * fields] for k, view in enumerate(self.views)}
        if not self.detailed:
            return DatasetCounts(indices, views, masks=masks)
        hierarchical, curves = np.split(
            rows[:, len(self.views) * fields :], [len(HierarchicalCounts._fields)], axis=1
        )
        return DatasetCounts(
            indices, views, hierarchical, curves.reshape(-1, STEPS, len(CURVE_FIELDS)), masks
        )
