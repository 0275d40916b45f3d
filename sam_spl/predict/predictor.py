"""Use a trained network on images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sam_spl.data.known import dataset_file, network_input
from sam_spl.data.normalise import Normalise, normalise_of
from sam_spl.data.reading import as_image
from sam_spl.errors import ConfigError
from sam_spl.models.registry import channels_of
from sam_spl.predict.detections import Detection, Regions, describe, regions
from sam_spl.predict.engines import is_exported, load_exported
from sam_spl.predict.maps import Size, check_finite, probabilities
from sam_spl.predict.tiling import predict_tiled
from sam_spl.resize import Image, resize_image, resize_logits
from sam_spl.runtime import World, pick_device, place, promise_float32
from sam_spl.weights.formats import find_weights
from sam_spl.weights.loading import load_model

log = logging.getLogger(__name__)

Tile = int | Literal["auto"] | None

_SMALLEST = 32  # side in pixels that every network takes
_TILE = 1024  # side of the tiles of a network without a size of its own,
_WHOLE = 2**21  # which sees frames of up to so many pixels whole: full HD, for which DATransNet takes 3.2 GB


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network finds in an image.

    ``mask`` and ``detections`` are computed when they are first asked for. For another threshold without
    another prediction: ``dataclasses.replace(prediction, threshold=0.3)``.

    Attributes:
        image: as data sets have it: (H, W) or RGB (H, W, 3); uint8, uint16 or float32 in [0, 1].
        prob: (H, W), the probability in [0, 1] that a pixel is target.
        threshold: pixels with a larger probability are target.
        min_area: regions of fewer pixels do not count.
        top: only that many regions count: those with the highest peaks. None: all.
    """

    image: Image
    prob: NDArray[np.float32]
    threshold: float = 0.5
    min_area: int = 1
    top: int | None = None

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W), the pixels of the regions that count."""
        return self._regions.mask()

    @cached_property
    def detections(self) -> list[Detection]:
        """The regions that count, in raster order."""
        return describe(self._regions, self.prob, self.image, threshold=self.threshold)

    @cached_property
    def _regions(self) -> Regions:
        return regions(self.prob, threshold=self.threshold, min_area=self.min_area, top=self.top)


class Predictor:
    """From an image to a probability map of its size, and the targets in it.

    A network that was trained on images squeezed to a square of S pixels sees each image squeezed so, as in
    testing. Where that shrinks a frame, targets shrink too, by width and height differently, and a warning,
    once for each size of frame, says so. A target of 3x3 pixels in 1920x1080 would be 0.4 x 0.7 pixels at
    256x256, and hard to find: frames with a side above 2 S are cut into overlapping tiles of S x S at their
    own scale. A network without such a size sees frames of up to 2**21 pixels (full HD) whole and larger ones
    in tiles of 1024, which bounds the memory. See :func:`sam_spl.predict.tiling.predict_tiled`.

    Args:
        model: the network.
        normalise: as in training.
        image_size: the network's square input in pixels; None for the image's own size.
        world: device and precision.
        resize: how images get to ``image_size``, one of :data:`sam_spl.resize.RULES`.
        threshold: pixels with a larger probability are target.
        min_area: regions of fewer pixels do not count.
        top: only that many regions count: those with the highest peaks. None: all.
        tta: average the probabilities of an image's eight symmetries, for eight times the time. A frame with
            unequal sides that is squeezed to a square has four, its flips: turned, its targets would be
            stretched as no training image was.
        tile: side of the tiles in pixels, for frames with a larger side; None for none; auto: as above.
        calibration: where the weights' threshold comes from, as they describe it; None where they do not.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        normalise: Normalise,
        image_size: int | None,
        world: World,
        resize: str = "pillow",
        *,
        threshold: float = 0.5,
        min_area: int = 1,
        top: int | None = None,
        tta: bool = False,
        tile: Tile = "auto",
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        is_number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
        if not is_number or not 0 <= threshold <= 1:
            raise ConfigError(f"threshold: {threshold!r} is not valid, give a number from 0 to 1.")
        self.image_size = None if image_size is None else _whole("image_size", image_size, 1, "None")
        self.threshold, self.min_area = float(threshold), _whole("min_area", min_area, 1)
        self.top = None if top is None else _whole("top", top, 1, "None")
        self.tile = tile if tile is None or tile == "auto" else _whole("tile", tile, 32, "None or auto")
        self.model = place(model, world.device).eval()
        self.normalise, self.world, self.resize, self.tta = normalise, world, resize, tta
        self.calibration = calibration
        self._told: set[Size] = set()  # sizes of frames that a warning was given for

    def __call__(self, image: Any) -> Prediction:
        """Predict one image.

        Args:
            image: an image file's path, a PIL image of grey values, RGB or a palette, or an array of uint8,
                uint16 or floats in [0, 1], of shape (H, W), (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4). Alpha
                is dropped.

        Raises:
            InputError: an image of another kind, other values, a file that cannot be read, or an answer that
                is not finite.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[Any]) -> list[Prediction]:
        """Predict several images, those that the network sees at one size together.

        That is faster on a GPU. The length of the list bounds the memory. Probabilities may differ from those
        of single images in the last digits.

        Args:
            images: each as for a single image.

        Raises:
            InputError: as for a single image.
        """
        stored = [as_image(image) for image in images]
        return [
            Prediction(image, prob, self.threshold, self.min_area, self.top)
            for image, prob in zip(stored, self._maps(stored), strict=True)
        ]

    def _maps(self, images: Sequence[Image]) -> list[NDArray[np.float32]]:
        """The probability map of each image, averaged over its symmetries."""
        names = ["the image"] if len(images) == 1 else [f"image {k + 1}" for k in range(len(images))]
        if not self.tta:
            return self._predict(images, names)
        sums = [np.zeros(image.shape[:2], np.float32) for image in images]
        counts = [8 if self._may_turn(*image.shape[:2]) else 4 for image in images]
        for turns, mirrored in product(range(4), (False, True)):
            chosen = [k for k, count in enumerate(counts) if count == 8 or turns % 2 == 0]
            seen = [np.rot90(images[k][:, ::-1] if mirrored else images[k], turns) for k in chosen]
            made = self._predict([np.ascontiguousarray(one) for one in seen], [names[k] for k in chosen])
            for k, prob in zip(chosen, made, strict=True):
                back = np.rot90(prob, -turns)
                sums[k] += back[:, ::-1] if mirrored else back
        for total, count in zip(sums, counts, strict=True):
            total /= count
        return sums

    @torch.inference_mode()
    def _predict(self, images: Sequence[Image], names: Sequence[str]) -> list[NDArray[np.float32]]:
        maps: dict[int, NDArray[np.float32]] = {}
        together: dict[Size, list[int]] = {}  # numbers of the images that the network sees at each size
        for k, image in enumerate(images):
            height, width = image.shape[:2]
            tile = self.tile_of(height, width)
            self._tell_of_shrinking(*((height, width) if tile is None else (tile, tile)))
            if tile is None:
                side = self.image_size
                together.setdefault((side, side) if side else (height, width), []).append(k)
            else:
                maps[k] = self._predict_tiled(image, tile, names[k])
        for numbers in together.values():
            logits = self._logits([images[k] for k in numbers], [names[k] for k in numbers])
            sizes = [(place, images[k].shape[:2]) for place, k in enumerate(numbers)]
            maps.update(zip(numbers, probabilities(logits, sizes), strict=True))
        return [maps[k] for k in range(len(images))]

    def _predict_tiled(self, image: Image, tile: int, name: str) -> NDArray[np.float32]:
        square = self.image_size is not None

        def logits_of(pieces: list[Image]) -> Tensor:
            height, width = pieces[0].shape[:2]
            if square:  # of a frame that is narrower than a tile
                pieces = [_padded(piece, tile) for piece in pieces]
            logits = self._logits(pieces, [name] * len(pieces))
            return resize_logits(logits, (tile, tile) if square else (height, width))[:, :height, :width]

        # A GPU waits for small tiles one by one; a CPU gains nothing from several.
        together = 1 if self.world.device.type == "cpu" else max(1, _WHOLE // tile**2)
        return predict_tiled(image, tile, logits_of, aligned=not square, together=together)

    def _logits(self, images: Sequence[Image], names: Sequence[str]) -> Tensor:
        """Float32 logits (B, h, w): of the network's square input, or of images that have one size."""
        side, (height, width) = self.image_size, images[0].shape[:2]
        if side:
            seen = [resize_image(image, (side, side), self.resize) for image in images]
        else:
            seen = [_padded(image, _SMALLEST) for image in images]
        x = torch.stack([self.normalise(image) for image in seen]).to(self.world.device)
        with self.world.autocast():
            logits = self.model(x.contiguous(memory_format=torch.channels_last))[0]
        check_finite(logits, names)
        logits = logits[:, 0].float()
        if not side and min(height, width) < _SMALLEST:
            return resize_logits(logits, (x.shape[2], x.shape[3]))[:, :height, :width]
        return logits

    def tile_of(self, height: int, width: int) -> int | None:
        """Side of the tiles for a frame; None: it is seen whole."""
        longer, side = max(height, width), self.image_size
        if self.tile == "auto":
            tiled = height * width > _WHOLE if side is None else longer > 2 * side
            return (side or _TILE) if tiled else None
        return self.tile if self.tile is not None and longer > self.tile else None

    def _may_turn(self, height: int, width: int) -> bool:
        """Whether the network sees a frame at the same scale by rows and by columns."""
        squeezed = self.image_size is not None and self.tile_of(height, width) is None
        return height == width or not squeezed

    def _tell_of_shrinking(self, height: int, width: int) -> None:
        side = self.image_size
        if side is None or max(height, width) <= side or (height, width) in self._told:
            return
        self._told.add((height, width))
        log.warning(
            "%dx%d is shrunk to %dx%d: a 3x3 target becomes %.1f x %.1f pixels. Load with tile=%d for tiles "
            "at the frame's own scale, or with image_size=None for the frame's own size",
            *(width, height, side, side, 3 * side / width, 3 * side / height, side),
        )


def load(
    file: str | Path,
    device: str = "auto",
    precision: str = "auto",
    *,
    engine: str = "auto",
    dataset: str | None = None,
    train_size: int | None = None,
    image_size: int | Literal["auto"] | None = "auto",
    network: str | type[nn.Module] | None = None,
    threshold: float | None = None,
    min_area: int = 1,
    top: int | None = None,
    tta: bool = False,
    tile: Tile = "auto",
) -> Predictor:
    """A predictor from a weights file, a run folder or an exported file.

    Files of this toolkit state all that is needed. Published ones do not:

    Args:
        file: as :func:`sam_spl.weights.formats.read_weights`, or FILE.onnx of ``sam-spl export``.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16, fp16, or tf32 on CUDA; of FILE.onnx as
            :func:`sam_spl.predict.engines.load_exported`.
        engine: what computes: torch, or for FILE.onnx onnxruntime or openvino; auto: of the latter the first
            that is installed.
        dataset: the set that published SAM-SPL weights were trained on, by any of its names: their images are
            normalised (and resized) as its recipe has it. None: as for any further set, with a warning.
        train_size: of published DATransNet weights, 256, or 512 for IRSTD-1k.
        image_size: side in pixels that images are squeezed to; None predicts each at its own size; auto does
            what the network was trained for.
        network: of files whose network is your own: its class or ``module:Class``.
        threshold: pixels with a larger probability are target; None: what the file states, else 0.5.
        min_area: regions of fewer pixels do not count.
        top: only that many regions count, those with the highest peaks; None: all.
        tta: average over symmetries, as :class:`Predictor`.
        tile: side of the tiles of large frames, as :class:`Predictor`.

    Raises:
        InputError: as :func:`sam_spl.weights.loading.load_model`, or no such device.
        ConfigError: no such data set, an engine that is not installed or not for this file, or a value out of
            range.
    """
    if image_size is not None and image_size != "auto":
        image_size = _whole("image_size", image_size, 1, "None or auto")
    settings = None if dataset is None else dataset_file(dataset)
    promise_float32()
    model, description, world = open_network(
        file,
        World(0, 1, pick_device(device)),
        settings,
        engine=engine,
        precision=precision,
        train_size=train_size,
        network=network,
    )
    return Predictor(
        model,
        normalise_of(description, channels_of(model)),
        description["image_size"] if image_size == "auto" else image_size,
        world,
        description["resize"],
        threshold=description.get("threshold", 0.5) if threshold is None else threshold,
        min_area=min_area,
        top=top,
        tta=tta,
        tile=tile,
        calibration=description.get("calibration"),
    )


def open_network(
    file: str | Path,
    world: World,
    dataset: Mapping[str, Any] | None = None,
    *,
    engine: str = "auto",
    precision: str = "auto",
    train_size: int | None = None,
    network: str | type[nn.Module] | None = None,
) -> tuple[nn.Module, dict[str, Any], World]:
    """The network of a weights file or an exported file: one rule for testing and prediction.

    Args:
        file: as :func:`load`.
        world: this process.
        dataset: as :func:`load_network`.
        engine: as :func:`load`.
        precision: as :func:`load`.
        train_size: as :func:`load_network`.
        network: as :func:`load_network`.

    Returns:
        The network on the CPU, its description as of :func:`load_network`, and this process at the device and
        precision that it computes with: exported files compute on the CPU.

    Raises:
        InputError: as :func:`load_network` and :func:`sam_spl.predict.engines.load_exported`.
        ConfigError: an engine that is not installed or not for this file, or that has no such precision.
    """
    path = find_weights(file)
    if is_exported(path):
        exported, description = load_exported(path, engine, precision=precision)
        if world.device.type != "cpu":
            log.warning("%s: exported files compute on the CPU, not on %s", path, world.device)
        return exported, description, replace(world, device=torch.device("cpu")).at("fp32")
    if engine not in ("auto", "torch"):
        output = path.with_suffix(".onnx")
        raise ConfigError(
            f"engine: {engine} runs exported files, and {path} is a weights file. Run: sam-spl export {path} "
            f"--output {output}, and give --weights {output}."
        )
    model, description = load_network(file, dataset, train_size=train_size, network=network)
    return model, description, world.at(precision)


def load_network(
    file: str | Path,
    dataset: Mapping[str, Any] | None = None,
    *,
    train_size: int | None = None,
    network: str | type[nn.Module] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a weights file, on the CPU, and all that is needed to use it.

    Published weights of SAM-SPL (and plain state dicts) do not state the normalisation and the size of the
    network's input. Then those of the data set are taken, as the published code does, and a warning says
    which; where that code has constants of its own for this set, those. DATransNet's recipe is one for all
    sets: values / 255, images at their own size.

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
    known |= _published_normalisation(model, dataset)
    unstated = {key: value for key, value in known.items() if key not in description}
    if unstated:
        log.warning(
            "%s does not state its network's input, taken as for %s: %s",
            file,
            "a set without its own (dataset= names another)" if dataset is None else dataset["title"],
            ", ".join(f"{key} {value}" for key, value in unstated.items()),
        )
    return model, {**unstated, **description}


def _published_normalisation(model: nn.Module, dataset: Mapping[str, Any] | None) -> dict[str, Any]:
    """Mean and std that a network's published code has for a set, unless the command line says others."""
    constants = getattr(getattr(model, "published", None), "normalisation", {})
    if dataset is None or dataset.get("name") not in constants:
        return {}
    own, said = network_input(dataset_file(dataset["name"])), network_input(dataset)
    if any(own[key] != said[key] for key in ("mean", "std")):
        return {}
    mean, std = constants[dataset["name"]]
    return {"mean": [mean], "std": [std]}


def _whole(key: str, value: Any, least: int, others: str = "") -> int:
    """``value`` as an int, which may be NumPy's.

    Raises:
        ConfigError: it is not a whole number, or below ``least``.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"{key}: {value!r} is not valid, give a whole number from {least} up{others and f', {others}'}."
        )
    return int(value)


def _padded(image: Image, least: int) -> Image:
    """An image with at least so many rows and columns: the last ones are repeated, as networks pad."""
    height, width = image.shape[:2]
    down, right = max(0, least - height), max(0, least - width)
    if not down and not right:
        return image
    padded: Image = cv2.copyMakeBorder(np.ascontiguousarray(image), 0, down, 0, right, cv2.BORDER_REPLICATE)
    return padded
