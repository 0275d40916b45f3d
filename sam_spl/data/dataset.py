"""What a sample is: reading, caching and batching images with their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sam_spl.data.known import IMAGENET_MEAN, IMAGENET_STD
from sam_spl.data.layout import Item
from sam_spl.errors import InputError
from sam_spl.resize import Image, Mask, resize_image, resize_mask

Transform = Callable[[Image, Mask, np.random.Generator], tuple[Image, Mask]]

_ROUNDING = 1e-4  # by which resized floats may leave [0, 1]

#: Decoded images are kept in memory up to this many bytes per process.
CACHE_BYTES = 4 * 2**30


class Source(Protocol):
    """Images with masks, by index: a folder's, or generated ones."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What the image is called in results."""
        ...

    def load(self, index: int) -> tuple[Image, Mask]:
        """The image as stored and its mask."""
        ...


class FolderSource:
    """Image files with mask files, decoded once and kept while they fit into ``cache_bytes``.

    Args:
        items: from :func:`sam_spl.data.layout.find_split`.
        cache_bytes: 0 reads from disk each time.

    Raises:
        InputError: (while the cache fills) an image or mask cannot be read, or their sizes differ.
    """

    def __init__(self, items: Sequence[Item], cache_bytes: int = CACHE_BYTES) -> None:
        self.items = list(items)
        self._cache: list[tuple[Image, Mask]] | None = None
        if self.items:
            image, mask = read_pair(self.items[0])
            if (image.nbytes + mask.nbytes) * len(self.items) <= cache_bytes:
                with ThreadPoolExecutor(4) as pool:
                    self._cache = list(pool.map(read_pair, self.items))

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """The stem that image and list share."""
        return self.items[index].name

    def load(self, index: int) -> tuple[Image, Mask]:
        """From memory, or from disk. Do not write into the arrays."""
        return self._cache[index] if self._cache is not None else read_pair(self.items[index])


class Joined:
    """Several sources, one after the other; ``prefixes`` of their images' names keep equal ones apart."""

    def __init__(self, sources: Sequence[Source], prefixes: Sequence[str] | None = None) -> None:
        prefixes = prefixes or [""] * len(sources)
        self._at = [
            (source, index, prefix)
            for source, prefix in zip(sources, prefixes, strict=True)
            for index in range(len(source))
        ]

    def __len__(self) -> int:
        return len(self._at)

    def name(self, index: int) -> str:
        """As its own source calls it, behind the prefix."""
        source, inner, prefix = self._at[index]
        return prefix + source.name(inner)

    def load(self, index: int) -> tuple[Image, Mask]:
        """As its own source loads it."""
        source, inner, _ = self._at[index]
        return source.load(inner)


@dataclass(frozen=True)
class Normalise:
    """From stored values to the network's input.

    Attributes:
        mean: per channel or one for all, on a scale of [0, 1] for the image's full range.
        std: likewise.
        channels: 3 repeats grey images; 1 averages colours.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3

    def __call__(self, image: Image) -> Tensor:
        """What :func:`as_array` takes to float32 (channels, H, W).

        Raises:
            InputError: as :func:`as_array`.
        """
        image = as_array(image)
        full = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)
        if image.ndim == 3 and self.channels == 1:
            red, green, blue = (image[..., channel] for channel in range(3))
            image = (np.add(red, green, dtype=np.float32) + blue) / np.float32(3)
        x = np.empty((self.channels, *image.shape[:2]), np.float32)
        for channel, plane in enumerate(x):  # in two passes, straight from the stored type
            mean, std = (values[channel % len(values)] for values in (self.mean, self.std))
            stored = image if image.ndim == 2 else image[..., channel]
            np.multiply(stored, np.float32(1 / (full * std)), out=plane)
            plane -= np.float32(mean / std)
        return torch.from_numpy(x)


class TrainingSet(Dataset[dict[str, Any]]):
    """Augmented samples of one size; an index is ``(epoch, i)``, and fixes every random choice with the seed.

    So the data of an epoch do not depend on how many workers load them or at which epoch a run was resumed.

    Sample: ``image`` float (C, S, S) normalised, ``mask`` float (1, S, S) in {0, 1}, ``name``, ``size`` stored (H, W).
    """

    def __init__(self, source: Source, transform: Transform, normalise: Normalise, seed: int) -> None:
        self.source, self.transform, self.normalise, self.seed = source, transform, normalise, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        image, mask = self.source.load(index)
        size = mask.shape
        image, mask = self.transform(image, mask, np.random.default_rng((self.seed, epoch, index)))
        return {
            "image": self.normalise(image),
            "mask": torch.from_numpy(np.ascontiguousarray(mask))[None].float(),
            "name": self.source.name(index),
            "size": size,
        }


class EvaluationSet(Dataset[dict[str, Any]]):
    """Images at the size the network sees them, masks as they are stored.

    Sample: ``image`` float (C, S, S) normalised, or at its own size with ``image_size=None``; ``mask`` bool array
    (H, W) at the image's own size; ``index``; ``name``; ``size`` (H, W).

    Args:
        source: images with masks.
        image_size: side of the square that images are resized to; None for their own size.
        normalise: of the network.
        resize: how, one of :data:`sam_spl.resize.RULES`.
    """

    def __init__(
        self, source: Source, image_size: int | None, normalise: Normalise, resize: str = "pillow"
    ) -> None:
        self.source, self.image_size, self.normalise, self.resize = source, image_size, normalise, resize

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask = self.source.load(index)
        size = mask.shape if self.image_size is None else (self.image_size, self.image_size)
        return {
            "image": self.normalise(resize_image(image, size, self.resize)),
            "mask": mask,
            "index": index,
            "name": self.source.name(index),
            "size": mask.shape,
        }


class EpochSampler(Sampler[tuple[int, int]]):
    """A process's share ``(epoch, i)`` of an epoch shuffled by seed and epoch, the same number for every process.

    Every process steps together when training, so up to ``world - 1`` images of the shuffled epoch are left out.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        self.epoch = 0

    def __len__(self) -> int:
        return self.length // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for index in order[self.rank : len(self) * self.world : self.world]:
            yield self.epoch, int(index)


def collate_training(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Batch of one size: ``image`` (B, C, H, W), ``mask`` (B, 1, H, W), lists of ``name`` and ``size``."""
    batch: dict[str, Any] = {key: [sample[key] for sample in samples] for key in samples[0]}
    batch["image"], batch["mask"] = torch.stack(batch["image"]), torch.stack(batch["mask"])
    return batch


def collate_evaluation(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Batch whose masks keep their own sizes: ``image`` (B, C, H, W), the rest as lists."""
    batch: dict[str, Any] = {key: [sample[key] for sample in samples] for key in samples[0]}
    batch["image"] = torch.stack(batch["image"])
    return batch


def read_pair(item: Item) -> tuple[Image, Mask]:
    """Read an image and its mask.

    Raises:
        InputError: unreadable, or of different sizes.
    """
    image, mask = read_image(item.image), read_mask(item.mask)
    if item.resize_mask and image.shape[:2] != mask.shape:
        mask = resize_mask(mask, image.shape[:2])
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"dataset: the mask {item.mask} is {mask.shape[1]}x{mask.shape[0]}, its image {item.image.name} "
            f"{image.shape[1]}x{image.shape[0]} (width x height). Mend the mask, or have it resized: "
            f"dataset.odd_masks=[{item.name}]"
        )
    return image, mask


def as_image(image: Any) -> Image:
    """Any image as data sets hold it: equal values become equal arrays, whether given as path, PIL image or array.

    PIL and OpenCV, which reads paths, do not always decode a file to equal values: PIL keeps 8 of the 16 bits of colour
    files, and the two convert some colour spaces differently. Files of floats are taken as PIL images and arrays only.

    Args:
        image: an image file's path; a PIL image of mode 1, L, LA, P, PA, RGB, RGBA, I, I;16 or F; or what
            :func:`as_array` takes.

    Returns:
        uint8, uint16 or float32 in [0, 1]; (H, W) where the image is grey in fact, else RGB (H, W, 3).

    Raises:
        InputError: not readable as an image, or another mode or kind of array.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    return _grey_if_grey(
        as_array(_of_pil(image) if isinstance(image, PIL.Image.Image) else np.asarray(image))
    )


def as_array(image: NDArray[Any]) -> Image:
    """Check an array and drop alpha.

    Args:
        image: uint8, uint16 or floats in [0, 1]; (H, W), (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4).

    Returns:
        uint8, uint16 or float32, (H, W) or (H, W, 3).

    Raises:
        InputError: another shape, another type (booleans are no brightness), or floats outside [0, 1].
    """
    if image.ndim == 3 and image.shape[2] in (1, 4):
        image = image[..., 0] if image.shape[2] == 1 else image[..., :3]
    if not image.size or (image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3)):
        raise InputError(
            f"image: shape {image.shape} is no image. Give (H, W), RGB (H, W, 3) or RGBA (H, W, 4)."
        )
    if image.dtype.kind == "f":
        low, high = image.min(), image.max()
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN too
            raise InputError(
                f"image: floats from {low:g} to {high:g} are not in [0, 1]. Divide them by their full scale, or give "
                "uint8 or uint16."
            )
        return image.astype(np.float32, copy=False)
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise InputError(
            f"image: values of type {image.dtype} have no known scale. Give uint8, uint16 or floats in [0, 1]."
        )
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _of_pil(image: PIL.Image.Image) -> NDArray[Any]:
    """The values of a PIL image, as reading its file gives them: of 16 bits, floats, grey or RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)  # PIL opens some 16-bit files with 32 bits
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise InputError(
                f"image: PIL mode I with values from {values.min()} to {values.max()} is not of 16 bits."
            )
        return values.astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        known = "LA" if image.mode == "La" else "RGB"  # to which PIL converts it
        raise InputError(
            f'image: PIL mode {image.mode} has no one meaning in grey or RGB. Give image.convert("{known}").'
        )
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _grey_if_grey(image: Image) -> Image:
    """(H, W) where the three channels are equal."""
    if image.ndim == 3 and (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all():
        image = image[..., 0]
    return np.ascontiguousarray(image)


def read_image(path: Path, stored: NDArray[Any] | None = None) -> Image:
    """uint8 or uint16, (H, W) where the file is grey in fact, else RGB (H, W, 3); alpha is dropped.

    Args:
        path: the file.
        stored: what :func:`decode` gave for it, where that is known.

    Raises:
        InputError: not readable as an image of 8 or 16 bits.
    """
    image = decode(path) if stored is None else stored
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"image: {path} holds {image.dtype} values. Save it with 8 or 16 bits per channel.")
    return _grey_if_grey(image[..., 2::-1] if image.ndim == 3 else image)


def read_mask(path: Path) -> Mask:
    """Boolean (H, W): above half of full scale, or above 0 where the file knows only 0 and 1; any colour counts.

    Full scale is 255, or 65535 in a 16-bit file that has values above 255.

    Raises:
        InputError: not readable as an image.
    """
    return binarise(decode(path))


def binarise(mask: NDArray[Any]) -> Mask:
    """What :func:`read_mask` does with the stored values, (H, W) or (H, W, C)."""
    if mask.ndim == 3:
        mask = mask[..., :3].max(-1)
    largest = mask.max(initial=0)
    return mask > (0 if largest <= 1 else 127 if largest <= 255 else 32767)


def decode(path: Path) -> NDArray[Any]:
    """The stored values, (H, W) or (H, W, C) in OpenCV's order of channels.

    Raises:
        InputError: not readable as an image.
    """
    # imdecode over imread: it takes any file name, and a missing file is told from a broken one.
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"image: cannot read {path}: {error.strerror or error}.") from error
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise InputError(f"image: {path} is no image that can be read (damaged?). Replace it.")
    return image
