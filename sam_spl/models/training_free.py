"""Detectors without weights: filters that leave small targets, with the decision rule of their papers.

Called like networks: the image goes in normalised, one logit map comes out. Their parameters are all in their
YAML files, so testing and predicting take their names in place of a weights file.

The papers' decision is an adaptive threshold on the filtered map s of an image: a pixel is target where
``s > mean(s) + k std(s)``. The logit is that rule in units of the map's own spread,
``(s - mean(s)) / std(s) - k``, so that probability 0.5 decides as the paper does, and the curves of a test go
through k - 10 to k + 10. A map without any spread (a constant image) has no target. The papers choose k by
scene; the default k, and the sizes of windows, were chosen by IoU on SIRST's training images.
"""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sam_spl.errors import ConfigError

Grey = NDArray[np.float32]


class TrainingFree(nn.Module):
    """The frame of a detector that is computed image by image, on the CPU.

    Args:
        k: of the threshold mean + k std.

    Shape:
        - image: (B, 1, H, W), any H and W
        - returns: one logit map (B, 1, H, W), in a list
    """

    in_channels = 1
    trainable = False
    #: What it sees of an image, as weights files state it: values / 255, at the image's own size.
    input: ClassVar[dict[str, Any]] = {"mean": [0.0], "std": [1.0], "image_size": None, "resize": "pillow"}

    def __init__(self, k: float) -> None:
        super().__init__()
        if not 0 < k < float("inf"):
            raise ConfigError(f"model.k: {k} is not valid, give a number above 0.")
        self.k = k

    def forward(self, image: Tensor) -> list[Tensor]:
        grey = image.detach().float().cpu().numpy()[:, 0]
        logits = np.stack([self._decide(self.filtered(np.ascontiguousarray(one))) for one in grey])
        return [torch.from_numpy(logits)[:, None].to(image.device)]

    def filtered(self, image: Grey) -> Grey:
        """The map (H, W) of what is like a target: the larger the more."""
        raise NotImplementedError

    def _decide(self, saliency: Grey) -> Grey:
        of = saliency.astype(np.float64)  # float32 would find a spread in the rounding of constant maps
        spread = of.std()
        flat = spread <= 1e-6 * max(np.abs(of).max(), 1e-6)
        scaled = np.zeros_like(of) if flat else (of - of.mean()) / spread
        return (scaled - self.k).astype(np.float32)


class TopHat(TrainingFree):
    """New white top-hat (Bai & Zhou, Pattern Recognition 43(6), 2010).

    The image minus its new opening: dilation by the margin between two squares, which looks at what surrounds
    a target and not at the target itself, then erosion by a square between them in size. Negative values
    are 0: there the new opening lies above the image (the paper's modified transformation, which takes the
    lower of both). A target that the inner square covers stays whole; edges vanish.

    Args:
        inner: side of the inner square in pixels: above the size of a target.
        base: side of the eroding square, from ``inner`` to ``outer``.
        outer: side of the outer square.
        k: of the threshold mean + k std.
    """

    def __init__(self, *, inner: int = 15, base: int = 15, outer: int = 19, k: float = 15.0) -> None:
        super().__init__(k)
        for key, side in (("inner", inner), ("base", base), ("outer", outer)):
            _require_odd(key, side, 1)
        if not inner < outer or not inner <= base <= outer:
            raise ConfigError(
                f"model.inner, model.base, model.outer: {inner}, {base}, {outer} are not valid, give "
                "inner <= base <= outer, and inner < outer."
            )
        gap = (outer - inner) // 2
        self.margin = np.ones((outer, outer), np.uint8)
        self.margin[gap:-gap, gap:-gap] = 0
        self.base = np.ones((base, base), np.uint8)

    def filtered(self, image: Grey) -> Grey:
        # OpenCV's borders by default add nothing to a maximum or a minimum.
        opened = cv2.erode(cv2.dilate(image, self.margin), self.base)
        return np.maximum(image - opened, 0)


class MaxMedian(TrainingFree):
    """Max-median filter (Deshpande, Er, Venkateswarlu & Chan, Proc. SPIE 3809, 1999).

    The background at a pixel is the largest of four medians, of the lines through it along the row, the
    column and both diagonals; what the image has above it is left. A target disappears where it fills more
    than half of a line. Edges stay background, since one of the lines runs along them.

    Args:
        size: pixels of a line, odd; 2N + 1 in the paper.
        k: of the threshold mean + k std.
    """

    def __init__(self, *, size: int = 21, k: float = 15.0) -> None:
        super().__init__(k)
        _require_odd("size", size, 3)
        self.size = size

    def filtered(self, image: Grey) -> Grey:
        background = np.max([self._median(image, *step) for step in ((0, 1), (1, 0), (1, 1), (1, -1))], 0)
        return np.maximum(image - background, 0)

    def _median(self, image: Grey, down: int, right: int) -> Grey:
        """Of the line in one direction; beyond the border the nearest pixel counts."""
        half, (height, width) = self.size // 2, image.shape
        padded = np.pad(image, half, mode="edge")
        line = [
            padded[half + t * down : half + t * down + height, half + t * right : half + t * right + width]
            for t in range(-half, half + 1)
        ]
        return np.partition(np.stack(line), half, axis=0)[half]


class MPCM(TrainingFree):
    """Multiscale patch-based contrast measure (Wei, You & Li, Pattern Recognition 58, 2016).

    At scale l the surroundings of a pixel are 3 x 3 patches of l x l pixels. The mean of the middle one
    differs by d_i = m_T - m_i from that of each of the eight others. Of two that lie opposite each other the
    product d_i d_(i+4) is positive where the middle is above both, or below both. The contrast is the least
    of the four products, and over scales the largest is taken. Bright and dark targets count alike, as in
    the paper.

    Args:
        scales: sides l of the patches in pixels, odd.
        k: of the threshold mean + k std.
    """

    def __init__(self, *, scales: tuple[int, ...] = (3, 5, 7, 9), k: float = 6.0) -> None:
        super().__init__(k)
        if not scales:
            raise ConfigError("model.scales: [] is not valid, give at least one side of a patch in pixels.")
        for scale in scales:
            _require_odd("scales", scale, 1)
        self.scales = tuple(scales)

    def filtered(self, image: Grey) -> Grey:
        contrast: Grey = np.max([self._contrast(image, scale) for scale in self.scales], 0)
        return contrast

    def _contrast(self, image: Grey, side: int) -> Grey:
        height, width = image.shape
        mean = cv2.blur(image, (side, side), borderType=cv2.BORDER_REPLICATE)
        around = np.pad(mean, side, mode="edge")

        def difference(down: int, right: int) -> Grey:
            top, left = side * (1 + down), side * (1 + right)
            return mean - around[top : top + height, left : left + width]

        pairs = ((-1, -1), (-1, 0), (-1, 1), (0, 1))  # the other of each pair lies opposite
        least: Grey = np.min([difference(y, x) * difference(-y, -x) for y, x in pairs], 0)
        return least


def _require_odd(key: str, side: int, least: int) -> None:
    if side < least or side % 2 == 0:
        raise ConfigError(f"model.{key}: {side} is not valid, give an odd number of pixels from {least}.")
