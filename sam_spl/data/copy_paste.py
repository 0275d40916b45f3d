"""Copy-paste: more targets per image, cut out of the training images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sam_spl.data.sources import Source
    from sam_spl.resize import Image, Mask

_MARGIN = 2  # background pixels kept around a target, so that a pasted edge looks like a target's edge
_MOST_IMAGES = 2000  # that chips are cut from, to bound memory and start-up on large sets


@dataclass(frozen=True)
class CopyPaste:
    """Paste rectangles cut around targets at random positions, in image and mask.

    The published chips come from the whole set, test images too, which leaks; cut them from the training
    split.

    Args:
        chips: (image, mask) rectangles.
        probability: of pasting anything.
        most: number of chips, drawn uniformly from 1 to this.
    """

    chips: list[tuple[Image, Mask]]
    probability: float = 0.5
    most: int = 100
    _forms: dict[tuple[int, Any, int], Image] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_source(cls, source: Source, *, probability: float = 0.5, seed: int = 0) -> CopyPaste:
        """Cut one chip around every target of ``source`` (of a random 2000 images where there are more)."""
        indices = np.arange(len(source))
        if len(indices) > _MOST_IMAGES:
            indices = np.random.default_rng(seed).choice(indices, _MOST_IMAGES, replace=False)
        return cls([chip for index in indices for chip in cut(*source.load(int(index)))], probability)

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        if not self.chips or rng.random() >= self.probability:
            return image, mask
        image, mask = image.copy(), mask.copy()
        indices = rng.integers(len(self.chips), size=int(rng.integers(1, self.most + 1)))
        free = np.array([image.shape[:2]]) - self._sizes[indices]  # (n, 2), where a chip may begin
        fits = (free >= 0).all(1)
        corners = rng.integers(0, free[fits] + 1).tolist()  # the same numbers as one call each
        for index, (top, left) in zip(indices[fits].tolist(), corners, strict=True):
            chip, chip_mask = self._chip(index, image), self.chips[index][1]
            h, w = chip_mask.shape
            image[top : top + h, left : left + w] = chip
            mask[top : top + h, left : left + w] = chip_mask
        return image, mask

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """(H, W) of every chip."""
        return np.array([mask.shape for _, mask in self.chips])

    def _chip(self, index: int, image: Image) -> Image:
        """A chip in the form of the image, made once for each kind of image."""
        form = index, image.dtype, image.ndim
        if form not in self._forms:
            self._forms[form] = _like(self.chips[index][0], image)
        return self._forms[form]


def cut(image: Image, mask: Mask) -> list[tuple[Image, Mask]]:
    """A rectangle of image and mask around each target (8-connected component)."""
    number, _, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=8
    )
    chips = []
    for left, top, width, height, _ in stats[1:number]:
        window = (
            slice(max(0, top - _MARGIN), top + height + _MARGIN),
            slice(max(0, left - _MARGIN), left + width + _MARGIN),
        )
        chips.append((image[window].copy(), mask[window].copy()))
    return chips


def _like(chip: Image, image: Image) -> Image:
    """The chip with the image's channels and depth: sets mix grey with colour, and 8 with 16 bits."""
    if chip.dtype != image.dtype:
        chip = (chip.astype(np.uint16) * 257) if image.dtype == np.uint16 else (chip // 257).astype(np.uint8)
    if chip.ndim == 2 and image.ndim == 3:
        return np.repeat(chip[..., None], 3, axis=2)
    if chip.ndim == 3 and image.ndim == 2:
        return chip.mean(-1).astype(image.dtype)
    return chip
