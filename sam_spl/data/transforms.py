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
from sam_spl.data.dataset import Image, Mask, Source, Transform, resize
from sam_spl.errors import ConfigError, nearest


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
    """DATransNet's transform: resize to a square, the mask nearest, and nothing more."""

    image_size: int

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        size = (self.image_size, self.image_size)
        if mask.shape != size:
            mask = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        return resize(image, self.image_size), mask


@dataclass(frozen=True)
class ResizeFlip:
    """SAM-SPL's transform for NUDT-SIRST: resize to a square, flips and transposition, each with probability 0.5.

    The mask is interpolated too, and every pixel above zero counts.
    """

    image_size: int

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        size = (self.image_size, self.image_size)
        image = resize(image, self.image_size)
        if mask.shape != size:
            mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0
        return flip(image, mask, rng)


@dataclass(frozen=True)
class ScaleCrop:
    """SAM-SPL's transform for every other set: flip, long side to 0.5 ... 2 times the size, pad, crop, blur."""

    image_size: int
    scale: tuple[float, float] = (0.5, 2.0)

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]

        low, high = (round(bound * self.image_size) for bound in self.scale)
        image, mask = resize_long_side(image, mask, int(rng.integers(low, high + 1)))
        image, mask = pad_to(image, mask, self.image_size)
        image, mask = random_crop(image, mask, self.image_size, rng)

        if rng.random() < 0.5:
            image = blur(image, radius=rng.random())
        return image, mask


@dataclass(frozen=True)
class TargetCrop:
    """A crop at the scale that testing sees, mostly around a target, and the square's symmetries.

    Background is a thousand times as frequent as target; crops around targets raise their share. A crop of three
    quarters of the side costs half the time.

    Args:
        crop: side of the crop in pixels.
        image_size: side that testing resizes to; None where it keeps each image's own size.
        scale: the image is resized by a further exp(u), u uniform in [-scale, scale].
        on_target: probability that the crop is drawn around a target pixel.
    """

    crop: int
    image_size: int | None = None
    scale: float = 0.0
    on_target: float = 0.8

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        factor = math.exp(rng.uniform(-self.scale, self.scale))
        height, width = (self.image_size, self.image_size) if self.image_size else mask.shape
        image, mask = resize_pair(image, mask, (round(height * factor), round(width * factor)))
        image, mask = reflect_to(image, mask, self.crop)

        rows, columns = np.nonzero(mask)
        if len(rows) and rng.random() < self.on_target:
            k, margin = rng.integers(len(rows)), min(8, self.crop // 4)
            top, left = (
                int(np.clip(centre - rng.integers(margin, self.crop - margin), 0, side - self.crop))
                for centre, side in zip((rows[k], columns[k]), mask.shape, strict=True)
            )
            window = slice(top, top + self.crop), slice(left, left + self.crop)
            image, mask = image[window], mask[window]
        else:
            image, mask = random_crop(image, mask, self.crop, rng)
        return flip(image, mask, rng)


def flip(image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Vertical flip, horizontal flip and transposition, each with probability 0.5: the square's eight symmetries."""
    if rng.random() < 0.5:
        image, mask = image[::-1], mask[::-1]
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if rng.random() < 0.5:
        image, mask = image.swapaxes(0, 1), mask.T
    return image, mask


def resize_long_side(image: Image, mask: Mask, long_side: int) -> tuple[Image, Mask]:
    """Keep the aspect; bilinear, the mask nearest."""
    height, width = mask.shape
    scale = long_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(np.ascontiguousarray(mask).view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return image, mask


def resize_pair(image: Image, mask: Mask, size: tuple[int, int]) -> tuple[Image, Mask]:
    """Resize to ``size`` (H, W): a mask pixel is target when half of it is. Targets that would vanish stay."""
    if mask.shape == size:
        return image, mask
    width_height = size[::-1]
    image = cv2.resize(image, width_height, interpolation=cv2.INTER_LINEAR)
    smaller = cv2.resize(mask.astype(np.float32), width_height, interpolation=cv2.INTER_LINEAR) >= 0.5
    if mask.any() and not smaller.any():
        smaller = cv2.resize(mask.astype(np.float32), width_height, interpolation=cv2.INTER_AREA) > 0
    return image, smaller


def pad_to(image: Image, mask: Mask, size: int) -> tuple[Image, Mask]:
    """Zeros at the right and the bottom up to ``size``."""
    bottom, right = max(0, size - mask.shape[0]), max(0, size - mask.shape[1])
    if bottom or right:
        image = np.pad(image, ((0, bottom), (0, right), *[(0, 0)] * (image.ndim - 2)))
        mask = np.pad(mask, ((0, bottom), (0, right)))
    return image, mask


def reflect_to(image: Image, mask: Mask, size: int) -> tuple[Image, Mask]:
    """Mirror the right and the bottom up to ``size``, targets too."""
    bottom, right = max(0, size - mask.shape[0]), max(0, size - mask.shape[1])
    if bottom or right:
        image = np.pad(image, ((0, bottom), (0, right), *[(0, 0)] * (image.ndim - 2)), mode="symmetric")
        mask = np.pad(mask, ((0, bottom), (0, right)), mode="symmetric")
    return image, mask


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


#: ``dataset.augment`` and ``trainer.augment`` choose one of these by name.
AUGMENTATIONS: dict[str, Callable[[int], Transform]] = {
    "resize": Resize,
    "resize_flip": ResizeFlip,
    "scale_crop": ScaleCrop,
    "target_crop": lambda image_size: TargetCrop(image_size * 3 // 4 // 32 * 32 or image_size, image_size),
    "native_crop": lambda image_size: TargetCrop(image_size, scale=0.2),
}


def build_transform(name: str, image_size: int, source: Source, *, copy_paste: float = 0.0, seed: int = 0) -> Transform:
    """The training transform ``name`` at ``image_size``.

    Args:
        name: one of :data:`AUGMENTATIONS`.
        image_size: side of the square samples in pixels.
        source: the training images, which copy-paste cuts its chips from.
        copy_paste: probability of copy-paste after the transform; 0 leaves it out.
        seed: chooses the images that chips are cut from, where there are very many.

    Raises:
        ConfigError: unknown name.
    """
    if name not in AUGMENTATIONS:
        raise ConfigError(f"trainer.augment: {name!r} is unknown. Nearest: {nearest(name, AUGMENTATIONS)}")
    transform = AUGMENTATIONS[name](image_size)
    if copy_paste > 0:
        return Compose([transform, CopyPaste.from_source(source, probability=copy_paste, seed=seed)])
    return transform
