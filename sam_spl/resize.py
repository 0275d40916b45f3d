"""The one place that resizes images, masks and logits.

There are two rules, and a protocol, a recipe or a weights file names the one that it uses:

- ``pillow``: images antialiased (the bilinear filter widens with the shrinking factor), masks nearest at
  pixel centres, source index ``floor((i + 0.5) scale)``. What SAM-SPL, DNANet and MSHNet are published with,
  and the default.
- ``opencv``: images by ``INTER_LINEAR``, which loses most targets of one pixel when it shrinks fourfold;
  masks by ``INTER_NEAREST``, source index ``floor(i scale)``, which displaces them against their images by
  half a pixel of the result. A fault of DATransNet's published training, there to reproduce it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image = NDArray[Any]
Mask = NDArray[np.bool_]

# INTER_NEAREST_EXACT equals Pillow's nearest, exact ties included; torch's nearest-exact differs in ties.
_NEAREST = {"pillow": cv2.INTER_NEAREST_EXACT, "opencv": cv2.INTER_NEAREST}
RULES = tuple(_NEAREST)


def resize_image(image: Image, size: tuple[int, int], rule: str = "pillow") -> Image:
    """An image at another size, bilinear; antialiased except under ``opencv``.

    Args:
        image: uint8, uint16 or float32, (H, W) or (H, W, C).
        size: (H, W).
        rule: one of :data:`RULES`.

    Returns:
        The same type, within one grey level of Pillow's (or equal to OpenCV's) result.
    """
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    if rule == "opencv" or not shrinks:  # the two filters are one when no axis shrinks
        return cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=cv2.INTER_LINEAR)
    if size[1] != image.shape[1]:  # first along the rows, rounded, then along the columns, as Pillow does
        image = cv2.transpose(_resize_rows(cv2.transpose(np.ascontiguousarray(image)), size[1]))
    return _resize_rows(image, size[0])


def _resize_rows(image: Image, height: int) -> Image:
    """An image (H, W) or (H, W, C) with another number of rows, antialiased; a row as it is read is one line.

    PyTorch computes four interleaved channels at once. Neighbours in a row do not mix here, so four of them
    are as good as channels: a third to a half of the time of the image in one call, with equal results.
    """
    if height == image.shape[0]:
        return image

    import torch  # takes seconds, and counting predictions needs none of it
    import torch.nn.functional as F

    lines = image.reshape(len(image), -1)
    if more := -lines.shape[1] % 4:
        lines = cv2.copyMakeBorder(lines, 0, 0, 0, more, cv2.BORDER_CONSTANT)
    if image.dtype == np.uint16:  # which torch does not interpolate
        lines = lines.astype(np.float32)
    lines = np.require(lines, requirements=["C", "W"])  # PyTorch warns of arrays that cannot be written to
    x = torch.from_numpy(lines).view(1, len(lines), -1, 4).permute(0, 3, 1, 2)  # (1, 4, H, W C / 4)
    x = F.interpolate(x, size=(height, x.shape[3]), mode="bilinear", antialias=True)
    out = x.permute(0, 2, 3, 1).reshape(height, -1).numpy()
    if image.dtype == np.uint16:
        out = np.rint(out).astype(np.uint16)
    return np.ascontiguousarray(out[:, : out.shape[1] - more]).reshape(height, *image.shape[1:])


def resize_mask(mask: Mask, size: tuple[int, int], rule: str = "pillow") -> Mask:
    """A mask (H, W) at another size, nearest: each pixel takes the value of one of the source."""
    if mask.shape == size:
        return mask
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    return cv2.resize(pixels, size[::-1], interpolation=_NEAREST[rule]).view(np.bool_)


def resize_touched(mask: Mask, size: tuple[int, int], rule: str = "pillow") -> Mask:
    """A mask (H, W) at another size: target is where the interpolated mask is above zero."""
    return mask if mask.shape == size else _interpolated(mask, size, rule) > 0


def resize_covered(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask (H, W) at another size: target is what a target covers at least half; no target is lost."""
    if mask.shape == size:
        return mask
    covered = _interpolated(mask, size, "pillow") >= 128
    if size[0] >= mask.shape[0] and size[1] >= mask.shape[1]:
        return covered
    # A target that covers half of no pixel keeps the pixels that it lies in.
    rows, columns = (
        at * new // old for at, new, old in zip(target_pixels(mask), size, mask.shape, strict=True)
    )
    near = cv2.dilate(covered.view(np.uint8), np.ones((3, 3), np.uint8)) if len(rows) else covered
    lost = near[rows, columns] == 0
    covered[rows[lost], columns[lost]] = True
    return covered


def target_pixels(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the target pixels, like ``np.nonzero``, but faster for few targets."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    rows, columns = np.nonzero(mask[top : top + height, left : left + width])
    return rows + top, columns + left


def _interpolated(mask: Mask, size: tuple[int, int], rule: str) -> NDArray[np.uint8]:
    """A mask of 0 and 255, resized like an image. Only rows and columns with targets are computed."""
    out = np.zeros(size, np.uint8)
    _, top, _, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    if not height:
        return out
    band = slice(top, top + height)
    wide = resize_image(mask[band].view(np.uint8) * np.uint8(255), (height, size[1]), rule)
    left, _, width, _ = cv2.boundingRect(wide)
    high = np.zeros((mask.shape[0], width), np.uint8)
    high[band] = wide[:, left : left + width]
    out[:, left : left + width] = resize_image(high, (size[0], width), rule) if width else 0
    return out


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (..., C, H, W) at another size, bilinear between the network's own grid points."""
    if logits.shape[-2:] == size:
        return logits
    import torch.nn.functional as F

    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


def long_side(size: tuple[int, int], to: int) -> tuple[int, int]:
    """(H, W) with the longer side at ``to`` pixels and the aspect kept, rounded as SAM-SPL does."""
    scale = to / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))
