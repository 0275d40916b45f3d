"""The settings of scoring saved predictions, which check themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omegaconf import MISSING

from sam_spl.config import is_name, require, require_choice, require_resamples, require_side
from sam_spl.data.config import check_pattern
from sam_spl.foreign import brief

Names = list[str]  # in the class below ``list`` is a key


@dataclass
class ScoreConfig:
    """Score masks or probability maps of any method as sam-spl test scores a network.

    Predictions are PNG (0 to 255, or 0 and 1), NPY or MAT files (probabilities, or logits), named like the
    images.
    """

    predictions: str = MISSING  # folder of PNG, NPY or MAT files
    masks: str = MISSING  # folder of masks
    list: str | None = None  # file with names of images, one a line; null: all masks
    name: str | None = None  # of the method; null: the folder's
    output: str | None = None  # folder to write into; null: scores/NAME
    protocols: Names = field(default_factory=lambda: ["native"])  # the first is compared with the others
    image_size: int = 256  # side that protocols at the network's input are scored at
    resize: bool = False  # resize predictions to their masks
    scale: float | None = None  # what stands for 1 in image files; null: 255, or 1 if none is larger
    logits: bool = False  # NPY and MAT files hold logits
    bootstrap: int = 1000  # resamples of the images for 95 % intervals; 0: none
    group: str | None = None  # pattern in names of images that are not independent, as dataset.group
    empty: str | None = None  # one | zero | skip: nIoU of a correctly empty image; null: the protocol's rule
    fa_budget: float = 10.0  # of Pd at Fa, in 1e-6 per pixel

    def __post_init__(self) -> None:
        check_pattern("group", self.group)
        require_choice(self.empty, "empty", (None, "one", "zero", "skip"))
        name = self.name
        require(name is None or is_name(name), "name", brief(name), "give a name that can be a folder's")
        require_side(self.image_size, "image_size", least=1)
        require_resamples(self.bootstrap)
        require(0 < self.fa_budget < math.inf, "fa_budget", self.fa_budget, "must be above 0")
        require(self.scale is None or 0 < self.scale < math.inf, "scale", self.scale, "must be above 0")
