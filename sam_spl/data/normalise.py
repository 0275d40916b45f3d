"""From the values of an image as it is stored to what a network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam_spl.data.config import DatasetConfig
from sam_spl.data.known import IMAGENET_MEAN, IMAGENET_STD
from sam_spl.data.reading import as_array
from sam_spl.errors import ConfigError
from sam_spl.resize import Image


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
        scale, offset = self._factors(image.dtype.name)
        if image.ndim == 3 and self.channels == 1:
            red, green, blue = (image[..., channel] for channel in range(3))
            image = (np.add(red, green, dtype=np.float32) + blue) / np.float32(3)
        x = np.empty((self.channels, *image.shape[:2]), np.float32)
        for channel, plane in enumerate(x):  # in two passes, straight from the stored type
            stored = image if image.ndim == 2 else image[..., channel]
            np.multiply(stored, np.float32(scale[channel]), out=plane)
            plane -= np.float32(offset[channel])
        return torch.from_numpy(x)

    def batch(self, images: Tensor) -> Tensor:
        """What ``__call__`` gives for each image, computed on the device of ``images``; equal on a CPU.

        Args:
            images: checked by :func:`as_array`, of one type: uint8, uint16 or float32; grey (B, H, W) or RGB
                (B, H, W, 3).

        Returns:
            float32 (B, channels, H, W), channels last in memory.
        """
        scale, offset = _on(images.device, *self._factors(str(images.dtype).removeprefix("torch.")))
        x = images.float()
        if self.channels == 1:
            if x.ndim == 4:  # a tensor of 3, since CUDA divides by a number as it multiplies by a rounded 1/3
                x = (x[..., 0] + x[..., 1] + x[..., 2]) / x.new_full((), 3)
            return (x[:, None] * scale).sub_(offset)
        x = x[..., None] if x.ndim == 3 else x
        return (x * scale).sub_(offset).permute(0, 3, 1, 2)

    def _factors(self, dtype: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of each channel: what a stored value of that type is multiplied by, then what is subtracted."""
        full = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
        mean, std = (
            [values[channel % len(values)] for channel in range(self.channels)]
            for values in (self.mean, self.std)
        )
        return tuple(1 / (full * s) for s in std), tuple(m / s for m, s in zip(mean, std, strict=True))


@lru_cache(maxsize=64)
def _on(device: torch.device, *values: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Float32 tensors on a device, made once: each copy from the host would wait for the device."""
    return tuple(torch.tensor(one, dtype=torch.float32, device=device) for one in values)


def normalise_of(settings: Mapping[str, Any] | DatasetConfig, channels: int) -> Normalise:
    """The normalisation of a data set for a network of ``channels``.

    A network of one channel takes the mean of three values: they are equal where a set has its own, and
    ImageNet's (0.485, 0.456, 0.406) are of colours that an infrared image does not have.

    Raises:
        ConfigError: mean and std have neither one value nor one per channel.
    """
    values = settings if isinstance(settings, Mapping) else vars(settings)
    mean, std = tuple(values["mean"]), tuple(values["std"])
    if channels == 1 and len(mean) == len(std) == 3:
        mean, std = (fmean(mean),), (fmean(std),)
    if len(mean) != len(std) or len(mean) not in (1, channels) or min(std) <= 0:
        raise ConfigError(
            f"dataset.mean, dataset.std: {mean} and {std} need 1 or {channels} values, std above 0"
        )
    return Normalise(mean, std, channels)
