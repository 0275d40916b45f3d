"""Use a trained network on images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sam_spl.data.catalog import normalise_of
from sam_spl.data.dataset import Image, Normalise
from sam_spl.engine.distributed import World, pick_device, pick_precision, promise_float32
from sam_spl.engine.evaluator import check_finite, probability
from sam_spl.models.checkpoints import load_model
from sam_spl.resize import resize_image


class Predictor:
    """From an image as stored to a probability map of its size.

    Args:
        model: the network.
        normalise: as in training.
        image_size: the network's square input in pixels; None for the image's own size.
        world: device and precision.
        resize: how images get to ``image_size``, one of :data:`sam_spl.resize.RULES`.
    """

    def __init__(
        self, model: nn.Module, normalise: Normalise, image_size: int | None, world: World, resize: str = "pillow"
    ) -> None:
        self.model = model.to(world.device, memory_format=torch.channels_last).eval()
        self.normalise, self.image_size, self.world, self.resize = normalise, image_size, world, resize

    @torch.inference_mode()
    def __call__(self, image: Image) -> NDArray[np.float32]:
        """Predict one image.

        Args:
            image: uint8 or uint16, (H, W) or RGB (H, W, 3).

        Returns:
            (H, W), the probability in [0, 1] that a pixel is target.

        Raises:
            InputError: the network's answer is not finite.
        """
        size = image.shape[:2] if self.image_size is None else (self.image_size, self.image_size)
        x = self.normalise(resize_image(image, size, self.resize))[None].to(self.world.device)  # type: ignore[arg-type]
        with self.world.autocast():
            logits = self.model(x.contiguous(memory_format=torch.channels_last))[0]
        check_finite(logits, ["the image"])
        return probability(logits[0].float(), image.shape[:2])  # type: ignore[arg-type]


def load(file: str | Path, device: str = "auto", precision: str = "auto") -> Predictor:
    """A predictor from a weights file that describes itself (or a run folder).

    Published weights say nothing of normalisation and size: ImageNet's and 256 are assumed.

    Raises:
        InputError: as :func:`sam_spl.models.checkpoints.load_model`, or no such device.
    """
    model, description = load_model(file, mean=Normalise.mean, std=Normalise.std, image_size=256, resize="pillow")
    chosen = pick_device(device)
    promise_float32()
    world = World(0, 1, chosen, pick_precision(precision, chosen))
    normalise = normalise_of(description, model.in_channels)  # type: ignore[arg-type]
    return Predictor(model, normalise, description["image_size"], world, description["resize"])
