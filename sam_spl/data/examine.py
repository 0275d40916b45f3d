"""What one image and its mask hold: sizes, values, targets and what duplicates are found by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.data.duplicates import detail, perceptual_hash
from sam_spl.data.layout import Item
from sam_spl.data.reading import binarise, decode, decode_mask, read_image
from sam_spl.errors import InputError

_RING = 6  # background pixels around a target


def _nothing() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass
class Facts:
    """One image and its mask as they are stored; ``fault`` says what could not be read."""

    name: str
    role: str
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    mask_size: tuple[int, int] = (0, 0)
    mask_values: tuple[float, ...] = ()
    areas: list[int] = field(default_factory=list)
    contrast: float | None = None  # of the most visible target
    pixels: int = 0
    total: float = 0.0
    squares: float = 0.0
    digest: str = ""
    bits: NDArray[np.float32] = field(default_factory=_nothing)
    thumb: NDArray[np.float32] = field(default_factory=_nothing)
    fault: str = ""


def examine(item: Item, role: str) -> Facts:
    """Read one pair and measure it."""
    facts = Facts(item.name, role)
    try:
        stored, mask = decode(item.image), decode_mask(item.mask)
        image = read_image(item.image, stored)
    except InputError as error:
        facts.fault = str(error).removeprefix("dataset: ")
        return facts
    facts.size, facts.mask_size = image.shape[:2], mask.shape[:2]
    facts.mode = _mode(item.image, stored, image)
    flat = mask if mask.ndim == 2 else mask[..., :3].max(-1)
    if flat.dtype in (np.uint8, np.uint16):
        steps = int(np.iinfo(flat.dtype).max) + 1
        found = np.flatnonzero(cv2.calcHist([flat], [0], None, [steps], [0, steps]))
    else:
        found = np.unique(flat)
    facts.mask_values = tuple(found[:8].tolist())
    grey = (image if image.ndim == 2 else image.mean(-1)).astype(np.float32)
    grey = grey / np.float32(65535 if image.dtype == np.uint16 else 255)
    facts.pixels, facts.total, facts.squares = grey.size, float(grey.sum()), float(np.vdot(grey, grey))
    facts.digest = hashlib.sha1(repr(image.shape).encode() + image.tobytes()).hexdigest()
    facts.bits, facts.thumb = perceptual_hash(grey), detail(grey)
    binary = binarise(mask)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(binary.view(np.uint8), connectivity=8)
    facts.areas = stats[1:number, cv2.CC_STAT_AREA].tolist()
    if facts.areas and facts.size == facts.mask_size:
        facts.contrast = max(_contrast(grey, labels, stats, k) for k in range(1, min(number, 20)))
    return facts


def _mode(path: Path, stored: NDArray[Any], image: NDArray[Any]) -> str:
    """Grey, colour or grey stored as colour; palette; alpha; bits."""
    with path.open("rb") as stream:
        palette = (
            stream.read(26)[25:] == b"\3" and path.suffix.lower() == ".png"
        )  # colour type of the PNG header
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    kind = (
        "palette"
        if palette
        else "grey"
        if channels == 1
        else "colour"
        if image.ndim == 3
        else "grey stored as colour"
    )
    return f"{kind}{' with alpha' if channels in (2, 4) else ''}, {8 * stored.dtype.itemsize} bits"


def _contrast(
    grey: NDArray[np.float32], labels: NDArray[np.int32], stats: NDArray[np.int32], k: int
) -> float:
    """The mean of target ``k`` against the pixels around it, in their standard deviations."""
    left, top, width, height, _ = stats[k]
    window = (
        slice(max(0, top - _RING), top + height + _RING),
        slice(max(0, left - _RING), left + width + _RING),
    )
    inside, around = grey[window][labels[window] == k], grey[window][labels[window] == 0]
    if not len(around):
        return 0.0
    return abs(float(inside.mean() - around.mean())) / max(float(around.std()), 1 / 255)
