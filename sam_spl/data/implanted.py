"""Frames of a camera with generated targets in them: training images for a camera without labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sam_spl.data.pairing import Files
from sam_spl.data.reading import read_image, read_mask
from sam_spl.data.targets import Targets
from sam_spl.data.varied import VariedSource
from sam_spl.errors import InputError
from sam_spl.resize import Image, Mask


@dataclass(frozen=True)
class CameraFrame:
    """A frame, and the mask of the targets that are known in it, if any."""

    image: Path
    mask: Path | None = None


def find_frames(root: Path) -> list[CameraFrame]:
    """The images of a folder, of its ``images/`` or all below, by name; numbers in names by their value.

    Masks are those of ``masks/`` beside ``images/``, if it is there.

    Raises:
        InputError: no folder, or no image in it.
    """
    if not root.is_dir():
        raise InputError(f"dataset: no folder {root}. Give the folder of frames as --data_path.")
    files = Files.below(root, masks_needed=False)
    in_order = sorted(
        files.images, key=lambda name: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name)]
    )
    return [CameraFrame(files.images[name], files.mask(name)) for name in in_order]


@dataclass(frozen=True)
class ImplantedSource:
    """Image ``i`` is frame ``i`` modulo their number, with targets that (seed, i) decides.

    A frame that has a mask keeps its targets, and new ones stay apart from them. Targets in frames without a
    mask are background to whoever trains on them.

    Args:
        frames: the frames.
        count: number of images.
        seed: of the whole set.
        targets: which targets.
        scenes: a share of the images is generated whole, so that a network does not forget what these frames
            do not show; None for none.
        share: how large it is.
    """

    frames: Sequence[CameraFrame]
    count: int
    seed: int = 0
    targets: Targets = field(default_factory=Targets)
    scenes: VariedSource | None = None
    share: float = 0.0

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """``0000042-FRAME``: a frame is there many times."""
        return f"{index:07d}-{self.frames[index % len(self.frames)].image.stem}"

    def load(self, index: int) -> tuple[Image, Mask]:
        """A frame as it is stored with its targets in, and the mask of all of them.

        Raises:
            InputError: a file cannot be read, or a mask has another size than its frame.
        """
        rng = np.random.default_rng((self.seed, index))
        if self.scenes is not None and rng.random() < self.share:
            return self.scenes.load(index)
        frame = self.frames[index % len(self.frames)]
        image = read_image(frame.image)
        mask = np.zeros(image.shape[:2], bool) if frame.mask is None else read_mask(frame.mask)
        if mask.shape != image.shape[:2]:
            raise InputError(f"dataset: the mask {frame.mask} has another size than the frame {frame.image}.")
        full = np.iinfo(image.dtype).max
        grey = np.asarray(image if image.ndim == 2 else image.mean(-1), np.float32) / np.float32(full)
        before = grey.copy()
        self.targets.implant(rng, grey, mask, noise=0.0)
        added = full * (grey - before)
        changed = image + (added if image.ndim == 2 else added[..., None])
        return np.clip(changed + 0.5, 0, full).astype(image.dtype), mask
