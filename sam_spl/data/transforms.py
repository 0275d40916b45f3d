"""Training transforms: (image, mask, random generator) -> (image, mask), before normalisation.

Images keep their type and value range; masks are boolean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sam_spl.data.copy_paste import CopyPaste
from sam_spl.data.sources import Source
from sam_spl.registry import Registry
from sam_spl.resize import (
    Image,
    Mask,
    long_side,
    resize_covered,
    resize_image,
    resize_mask,
    resize_touched,
    target_pixels,
)

Transform = Callable[[Image, Mask, np.random.Generator], tuple[Image, Mask]]


@dataclass(frozen=True)
class Compose:
    """One transform after the other."""

    transforms: Sequence[Transform]

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        for transform in self.transforms:
            image, mask = transform(image, mask, rng)
        return image, mask


@dataclass(frozen=True)
class Resize:
    """DATransNet's transform: resize to a square, the mask nearest."""

    image_size: int
    rule: str = "pillow"

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        size = (self.image_size, self.image_size)
        return resize_image(image, size, self.rule), resize_mask(mask, size, self.rule)


@dataclass(frozen=True)
class ResizeFlip:
    """SAM-SPL's transform for NUDT-SIRST: a square, flips and transposition, each with probability 0.5.

    The mask is interpolated too, and every pixel above zero counts.
    """

    image_size: int
    rule: str = "pillow"

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        size = (self.image_size, self.image_size)
        return flip(resize_image(image, size, self.rule), resize_touched(mask, size, self.rule), rng)


@dataclass(frozen=True)
class ScaleCrop:
    """SAM-SPL's transform for other sets: flip, long side to 0.5 ... 2 times the size, pad, crop, blur."""

    image_size: int
    rule: str = "pillow"
    scale: tuple[float, float] = (0.5, 2.0)

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        if rng.random() < 0.5:
            image, mask = _both(image, mask, lambda of: cv2.flip(of, 1))

        low, high = (round(bound * self.image_size) for bound in self.scale)
        size = long_side(mask.shape, int(rng.integers(low, high + 1)))
        image, mask = resize_image(image, size, self.rule), resize_mask(mask, size, self.rule)
        image, mask = pad_to(image, mask, self.image_size)
        image, mask = random_crop(image, mask, self.image_size, rng)

        if rng.random() < 0.5:
            image = blur(image, radius=rng.random())
        return image, mask


@dataclass(frozen=True)
class ResizeCrop:
    """UIU-Net's transform: a square of 10/9 of the size, upside-down flip with probability 0.5, a crop."""

    image_size: int
    rule: str = "pillow"

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        side = round(self.image_size * 10 / 9)  # 320 of 288
        size = side, side
        image, mask = resize_image(image, size, self.rule), resize_mask(mask, size, self.rule)
        if rng.random() < 0.5:
            image, mask = _both(image, mask, lambda of: cv2.flip(of, 0))
        return random_crop(image, mask, self.image_size, rng)


@dataclass(frozen=True)
class RandomCrop:
    """SCTransNet's transform: a crop at the image's own scale, flips and transposition with probability 0.5.

    A crop is taken with probability 0.5, else only if it shows a target, else drawn again. Smaller images are
    padded at the right and the bottom: as published with the training set's mean, here with the image's
    median, which is background.

    Args:
        image_size: side of the crop in pixels.
    """

    image_size: int

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        if min(mask.shape) < self.image_size:
            background = np.atleast_1d(np.median(image, axis=(0, 1))).tolist()
            image, mask = pad_to(image, mask, self.image_size, background)
        while True:
            crop = random_crop(image, mask, self.image_size, rng)
            if rng.random() < 0.5 or crop[1].any():
                return flip(*crop, rng)


@dataclass(frozen=True)
class TargetCrop:
    """A crop at the scale that testing sees, mostly around a target, and the square's symmetries.

    Background pixels are a thousand times as frequent as target pixels; crops around targets raise their
    share. A crop of three quarters of the side halves the time. The crop is cut out before it is resized.

    Args:
        crop: side of the crop in pixels.
        image_size: side that testing resizes to; None where it keeps each image's own size.
        rule: how images are resized. A mask pixel is target when a target covers half of it, and no target
            is lost.
        scale: the image is resized by a further exp(u), u uniform in [-scale, scale].
        on_target: probability that the crop is drawn around a target pixel.
    """

    crop: int
    image_size: int | None = None
    rule: str = "pillow"
    scale: float = 0.0
    on_target: float = 0.8

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        factor = math.exp(rng.uniform(-self.scale, self.scale))
        own = mask.shape
        to = [
            round(side * factor) for side in ((self.image_size, self.image_size) if self.image_size else own)
        ]
        # What of the source the crop shows, in its pixels.
        seen = [max(1, min(side, round(self.crop * side / new))) for side, new in zip(own, to, strict=True)]

        rows, columns = target_pixels(mask)
        free = [side - part for side, part in zip(own, seen, strict=True)]  # where the window may begin
        corner = [int(rng.integers(0, most + 1)) for most in free]
        if len(rows) and rng.random() < self.on_target:
            k = rng.integers(len(rows))
            for axis, (centre, part) in enumerate(zip((rows[k], columns[k]), seen, strict=True)):
                margin = min(8, part // 4)
                corner[axis] = int(np.clip(centre - rng.integers(margin, part - margin), 0, free[axis]))
        window = tuple(slice(start, start + part) for start, part in zip(corner, seen, strict=True))
        size = min(self.crop, to[0]), min(self.crop, to[1])
        image, mask = resize_image(image[window], size, self.rule), resize_covered(mask[window], size)
        return flip(*reflect_to(image, mask, self.crop), rng)


def flip(image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Vertical flip, horizontal flip and transposition, each with probability 0.5."""
    up, left, turned = rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5
    if up or left:
        image, mask = _both(image, mask, lambda of: cv2.flip(of, -1 if up and left else int(left)))
    if turned:
        image, mask = _both(image, mask, cv2.transpose)
    return image, mask


def pad_to(image: Image, mask: Mask, size: int, grey: Sequence[float] = (0,)) -> tuple[Image, Mask]:
    """Right and bottom up to ``size``: ``grey`` of each channel (one of grey images), and no target."""
    bottom, right = max(0, size - mask.shape[0]), max(0, size - mask.shape[1])
    if not bottom and not right:
        return image, mask
    border = 0, bottom, 0, right, cv2.BORDER_CONSTANT
    image = cv2.copyMakeBorder(image, *border, value=list(grey))
    return image, cv2.copyMakeBorder(mask.view(np.uint8), *border, value=[0]).view(np.bool_)


def reflect_to(image: Image, mask: Mask, size: int) -> tuple[Image, Mask]:
    """Mirror the right and the bottom up to ``size``, targets too."""
    bottom, right = max(0, size - mask.shape[0]), max(0, size - mask.shape[1])
    if not bottom and not right:
        return image, mask
    border = 0, bottom, 0, right, cv2.BORDER_REFLECT
    return _both(image, mask, lambda of: cv2.copyMakeBorder(of, *border))


def _both(image: Image, mask: Mask, change: Callable[[Image], Image]) -> tuple[Image, Mask]:
    """What OpenCV makes of image and mask. It copies whole pixels, ten times as fast as NumPy does."""
    return change(image), change(mask.view(np.uint8)).view(np.bool_)


def random_crop(image: Image, mask: Mask, size: int, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A square of ``size`` anywhere inside."""
    top = int(rng.integers(0, mask.shape[0] - size + 1))
    left = int(rng.integers(0, mask.shape[1] - size + 1))
    window = slice(top, top + size), slice(left, left + size)
    return image[window], mask[window]


def blur(image: Image, radius: float) -> Image:
    """Gaussian blur with a standard deviation of ``radius`` pixels."""
    if radius < 1e-3:
        return image
    return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), radius)


#: The values of ``dataset.augment`` and ``trainer.augment``: from image size and resize rule to a transform.
AUGMENTATIONS: Registry[Callable[[int, str], Transform]] = Registry(
    "trainer.augment",
    {
        "resize": Resize,
        "resize_flip": ResizeFlip,
        "scale_crop": ScaleCrop,
        "resize_crop": ResizeCrop,
        "random_crop": lambda size, rule: RandomCrop(size),
        "target_crop": lambda size, rule: TargetCrop(size * 3 // 4 // 32 * 32 or size, size, rule),
        "native_crop": lambda size, rule: TargetCrop(size, None, rule, scale=0.2),
    },
)


def build_transform(
    name: str,
    image_size: int,
    source: Source,
    *,
    copy_paste: float = 0.0,
    seed: int = 0,
    resize: str = "pillow",
) -> Transform:
    """The training transform ``name`` at ``image_size``.

    Args:
        name: one of :data:`AUGMENTATIONS`, or a user's own as ``module:object`` or ``file.py:object``:
            called with image size and resize rule, it returns a transform.
        image_size: side of the square samples in pixels.
        source: images that copy-paste cuts targets from.
        copy_paste: probability of copy-paste after the transform; 0 leaves it out.
        seed: chooses the images that targets are cut from, where there are very many.
        resize: one of :data:`sam_spl.resize.RULES`.

    Raises:
        ConfigError: unknown name.
    """
    transform = AUGMENTATIONS[name](image_size, resize)
    if copy_paste > 0:
        return Compose([transform, CopyPaste.from_source(source, probability=copy_paste, seed=seed)])
    return transform
