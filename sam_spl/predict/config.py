"""The settings of ``sam-spl predict``, which check themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from sam_spl.config import LARGEST_SIDE, SMALLEST_SIDE, require, require_choice, require_folder
from sam_spl.errors import ConfigError
from sam_spl.foreign import brief

ENGINES = ("auto", "torch", "onnxruntime", "openvino")
RANGES = ("auto", "full", "minmax", "percentile")
SAVED = ("mask", "overlay", "prob", "npy")


@dataclass
class PredictConfig:
    """Find targets in images and videos: masks, overlays, a table of detections and a COCO file."""

    input: list[str] = MISSING  # images, folders with all below, patterns, videos, TIFF stacks
    weights: str = MISSING  # weights file, run folder, or FILE.onnx of sam-spl export
    output: str = MISSING  # folder to write into; where an earlier run was interrupted, this one goes on
    threshold: float | None = None  # target is what is more probable; null: the weights' own, else 0.5
    min_area: int = 1  # regions of fewer pixels do not count
    top: int | None = None  # at most so many detections a frame, those with the highest peaks
    tta: bool = False  # average over flips and turns, for up to eight times the time
    batch_size: int | None = None  # frames predicted together; null: 1 on a CPU, else 4
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps; FILE.onnx computes on the CPU
    precision: str = "auto"  # auto | fp32 | tf32 | bf16 | fp16
    engine: str = "auto"  # torch; of FILE.onnx onnxruntime | openvino; auto: of these the first installed
    compile: str = "auto"  # auto (on a CPU, where it pays) | true | false, of networks with a square input
    range: str = (
        "auto"  # how values get to [0, 1]: full | minmax | percentile; auto: full for 8 bits, else minmax
    )
    save: list[str] = field(default_factory=lambda: ["mask", "overlay"])  # mask | overlay | prob | npy
    track: bool = False  # one number for each target over the frames of a video, stack or folder
    image_size: str = (
        "auto"  # side that frames are squeezed to; auto: as trained; none: each frame's own size
    )
    tile: str = "auto"  # side of the tiles that large frames are cut into; none: no tiles
    dataset: str | None = None  # set that published weights of SAM-SPL were trained on
    train_size: int | None = None  # of published DATransNet weights: 256, for IRSTD-1k 512
    model: str | None = None  # module:Class, where the weights' network is your own
    max_megapixels: float = 150.0  # larger images are refused before they are decoded
    overwrite: bool = False  # replace what an earlier run left in the output folder

    def __post_init__(self) -> None:
        require_choice(self.range, "range", RANGES)
        require_choice(self.precision, "precision", ("auto", "fp32", "tf32", "bf16", "fp16"))
        require_choice(self.engine, "engine", ENGINES)
        require_choice(self.compile, "compile", ("auto", "true", "false"))
        for one in self.save:
            require_choice(one, "save", SAVED)
        for key in ("min_area", "top", "batch_size"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, value, "give a whole number from 1")
        inside = self.threshold is None or 0 <= self.threshold < 1
        require(inside, "threshold", self.threshold, "give a number from 0 to below 1")
        require(self.max_megapixels > 0, "max_megapixels", self.max_megapixels, "must be above 0")
        require_folder(self.output, "output")
        side(self.image_size, "image_size")
        side(self.tile, "tile")


def side(text: str, key: str) -> int | Literal["auto"] | None:
    """What ``auto``, ``none`` or a number of pixels means: ``"auto"``, None or the number.

    Raises:
        ConfigError: something else.
    """
    if text == "auto":
        return "auto"
    if text.lower() in ("none", "null"):
        return None
    if re.fullmatch(r"[0-9]{2,4}", text) and SMALLEST_SIDE <= int(text) <= LARGEST_SIDE:
        return int(text)
    raise ConfigError(
        f"{key}: {brief(text, quoted=False)} is not valid, give auto, none or a number of pixels from "
        f"{SMALLEST_SIDE} to {LARGEST_SIDE}."
    )
