"""Use a trained network on images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sam_spl.data.known import dataset_file, network_input
from sam_spl.data.normalise import Normalise, normalise_of
from sam_spl.data.reading import as_image
from sam_spl.errors import ConfigError
from sam_spl.models.registry import channels_of
from sam_spl.predict.maps import check_finite, probability
from sam_spl.resize import Image, resize_image
from sam_spl.runtime import World, pick_device, place, promise_float32
from sam_spl.weights.loading import load_model

log = logging.getLogger(__name__)


class Predictor:
    """From an image to a probability map of its size.

    A network that was trained on images squeezed to a square sees each image squeezed so, as in testing.
    Where that shrinks a frame, targets shrink too, by width and height differently: a target of 3x3 pixels in
    1920x1080 is 0.4 x 0.7 pixels at 256x256, and hard to find. A warning, once for each size of frame, says
    so. Cut such frames into tiles of about the network's size, or predict at their own size
    (``image_size=None``), which costs time.

    Args:
        model: the network.
        normalise: as in training.
        image_size: the network's square input in pixels; None for the image's own size.
        world: device and precision.
        resize: how images get to ``image_size``, one of :data:`sam_spl.resize.RULES`.
    """

    def __init__(
        self,
        model: nn.Module,
        normalise: Normalise,
        image_size: int | None,
        world: World,
        resize: str = "pillow",
    ) -> None:
        self.model = place(model, world.device).eval()
        self.normalise, self.image_size, self.world, self.resize = normalise, image_size, world, resize
        self._told: set[tuple[int, int]] = set()  # sizes of frames that a warning was given for

    def __call__(self, image: Any) -> NDArray[np.float32]:
        """Predict one image.

        Args:
            image: an image file's path, a PIL image of grey values, RGB or a palette, or an array of uint8,
                uint16 or floats in [0, 1], of shape (H, W), (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4). Alpha
                is dropped.

        Returns:
            (H, W), the probability in [0, 1] that a pixel is target.

        Raises:
            InputError: an image of another kind, other values, a file that cannot be read, or an answer that
                is not finite.
        """
        image = as_image(image)
        self._tell_of_shrinking(*image.shape[:2])
        return self.predict_stored(image)

    @torch.inference_mode()
    def predict_stored(self, image: Image) -> NDArray[np.float32]:
        """Predict an image as data sets hold it, as testing does."""
        size = image.shape[:2] if self.image_size is None else (self.image_size, self.image_size)
        x = self.normalise(resize_image(image, size, self.resize))[None].to(self.world.device)
        with self.world.autocast():
            logits = self.model(x.contiguous(memory_format=torch.channels_last))[0]
        check_finite(logits, ["the image"])
        return probability(logits[0].float(), image.shape[:2])

    def _tell_of_shrinking(self, height: int, width: int) -> None:
        side = self.image_size
        if side is None or max(height, width) <= side or (height, width) in self._told:
            return
        self._told.add((height, width))
        log.warning(
            "%dx%d is shrunk to %dx%d: a 3x3 target becomes %.1f x %.1f pixels. Predict tiles of about %d "
            "pixels, or load with image_size=None for the frame's own size",
            *(width, height, side, side, 3 * side / width, 3 * side / height, side),
        )


def load(
    file: str | Path,
    device: str = "auto",
    precision: str = "auto",
    *,
    dataset: str | None = None,
    train_size: int | None = None,
    image_size: int | Literal["auto"] | None = "auto",
    network: str | type[nn.Module] | None = None,
) -> Predictor:
    """A predictor from a weights file or a run folder.

    Files of this toolkit state all that is needed. Published ones do not:

    Args:
        file: as :func:`sam_spl.weights.formats.read_weights`.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16, fp16, or tf32 on CUDA.
        dataset: the set that published SAM-SPL weights were trained on, by any of its names: their images are
            normalised (and resized) as its recipe has it. None: as for any further set, with a warning.
        train_size: of published DATransNet weights, 256, or 512 for IRSTD-1k.
        image_size: side in pixels that images are squeezed to; None predicts each at its own size; auto does
            what the network was trained for.
        network: of files whose network is your own: its class or ``module:Class``.

    Raises:
        InputError: as :func:`sam_spl.weights.loading.load_model`, or no such device.
        ConfigError: no such data set, or no such size.
    """
    if image_size is not None and image_size != "auto":
        whole = isinstance(image_size, int | np.integer) and not isinstance(image_size, bool)
        if not whole or image_size < 1:
            raise ConfigError(
                f"image_size: {image_size!r} is not valid, give a number of pixels, None or auto."
            )
        image_size = int(image_size)
    settings = None if dataset is None else dataset_file(dataset)
    model, description = load_network(file, settings, train_size=train_size, network=network)
    size = description["image_size"] if image_size == "auto" else image_size
    chosen = pick_device(device)
    promise_float32()
    world = World(0, 1, chosen).at(precision)
    normalise = normalise_of(description, channels_of(model))
    return Predictor(model, normalise, size, world, description["resize"])


def load_network(
    file: str | Path,
    dataset: Mapping[str, Any] | None = None,
    *,
    train_size: int | None = None,
    network: str | type[nn.Module] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a weights file and all that is needed to use it: one rule for testing and prediction.

    Published weights of SAM-SPL (and plain state dicts) do not state the normalisation and the size of the
    network's input. Then those of the data set are taken, as the published code does, and a warning says
    which. DATransNet's recipe is one for all sets: values / 255, images at their own size.

    Args:
        file: as :func:`sam_spl.weights.loading.load_model`.
        dataset: settings of a data set, from its file or the command line; None for a set without its own.
        train_size: of DATransNet weights that do not state it.
        network: of files whose network is your own: its class or ``module:Class``.

    Returns:
        The model in evaluation mode and its description, with ``mean``, ``std``, ``image_size`` and
        ``resize``.

    Raises:
        InputError: as :func:`sam_spl.weights.loading.load_model`.
    """
    model, description = load_model(file, network=network, train_size=train_size)
    known = network_input({} if dataset is None else dataset)
    unstated = {key: value for key, value in known.items() if key not in description}
    if unstated:
        log.warning(
            "%s does not state its network's input, taken as for %s: %s",
            file,
            "a set without its own (dataset= names another)" if dataset is None else dataset["title"],
            ", ".join(f"{key} {value}" for key, value in unstated.items()),
        )
    return model, {**unstated, **description}
