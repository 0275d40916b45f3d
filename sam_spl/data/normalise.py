"""From the values of an image as it is stored to what a network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
