"""What a data set holds, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.data.config import DatasetConfig
from sam_spl.data.identity import identify
from sam_spl.data.layout import Item, Split, fingerprint
from sam_spl.data.reading import binarise, decode, read_image
from sam_spl.errors import InputError

_HASH_SIDE = 8  # a perceptual hash has 8 x 8 bits
_THUMB = 48
_NEAR_BITS = 10  # of 64, at most: candidates
_NEAR_CORRELATION = (
    0.65  # of what is left of two thumbnails without their smooth part; two scenes of SIRST reach 0.6
)
_RING = 6  # background pixels around a target
_UNSEEN = 1.0  # of contrast: no mask of SIRST is below 1.5, and 95 % are where masks are shuffled
_LARGE = 0.05  # of an image: no small target is larger


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
    bits: NDArray[np.float32] | None = None
    thumb: NDArray[np.float32] | None = None
    fault: str = ""


def examine(item: Item, role: str) -> Facts:
    """Read one pair and measure it."""
    facts = Facts(item.name, role)
    try:
        stored, mask = decode(item.image), decode(item.mask)
        image = read_image(item.image, stored)
    except InputError as error:
        facts.fault = str(error).removeprefix("dataset: ")
        return facts
    facts.size, facts.mask_size = image.shape[:2], mask.shape[:2]
    facts.mode = _mode(item.image, stored, image)
    flat = mask if mask.ndim == 2 else mask[..., :3].max(-1)
    counted = np.flatnonzero(np.bincount(flat.ravel())) if flat.dtype.kind == "u" else np.unique(flat)
    facts.mask_values = tuple(counted[:8].tolist())
    grey = image if image.ndim == 2 else image.mean(-1)
    grey = grey.astype(np.float32) / (65535 if image.dtype == np.uint16 else 255)
    facts.pixels, facts.total, facts.squares = grey.size, float(grey.sum()), float(np.vdot(grey, grey))
    facts.digest = hashlib.sha1(repr(image.shape).encode() + image.tobytes()).hexdigest()
    facts.bits, facts.thumb = perceptual_hash(grey), _detail(grey)
    binary = binarise(mask)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(binary.view(np.uint8), connectivity=8)
    facts.areas = stats[1:number, cv2.CC_STAT_AREA].tolist()
    if facts.areas and facts.size == facts.mask_size:
        facts.contrast = max(_contrast(grey, labels, stats, k) for k in range(1, min(number, 20)))
    return facts


def check(split: Split, named: DatasetConfig) -> dict[str, Any]:
    """Examine every image of a split.

    Args:
        split: from :func:`sam_spl.data.layout.find_split` with ``skip_missing``.
        named: the settings of the set that it is called.

    Returns:
        Plain values for JSON: what there is, and under ``wrong`` and ``noteworthy`` what to do about it.
    """
    pairs = [(item, role) for role in ("train", "val", "test") for item in getattr(split, role)]
    with ThreadPoolExecutor(4) as pool:
        facts = list(pool.map(lambda pair: examine(*pair), pairs))
    read = [one for one in facts if not one.fault]
    by_role = {role: [one for one in facts if one.role == role] for role in ("train", "val", "test")}
    lists = {role: fingerprint(getattr(split, role)) for role in by_role if by_role[role]}
    areas = np.array([area for one in read for area in one.areas])
    train = [one for one in read if one.role == "train"]
    exact, near = duplicates(read)
    official = named.official_lists
    report: dict[str, Any] = {
        "where": str(split.root),
        "lists": split.lists,
        "images": {role: len(of) for role, of in by_role.items()},
        "fingerprints": {
            role: {"sha256": sha, "official": sha in official if official else None}
            for role, sha in lists.items()
        },
        "sizes": _most(f"{one.size[1]}x{one.size[0]}" for one in read),
        "modes": _most(one.mode for one in read),
        "mask_values": _most(str(list(one.mask_values)) for one in read),
        "targets": len(areas),
        "targets_per_image": _most(len(one.areas) for one in read),
        "target_area": {str(q): float(np.percentile(areas, q)) for q in (0, 25, 50, 75, 100)}
        if len(areas)
        else {},
        "train_mean": round(_mean(train), 6) if train else None,
        "train_std": round(_std(train), 6) if train else None,
        "areas": sorted(areas.tolist()),
        "empty_masks": _names(one for one in read if not one.areas),
        "missing": list(split.skipped),
        "unreadable": {one.name: one.fault for one in facts if one.fault},
        "mask_of_another_size": _names(one for one in read if one.size != one.mask_size),
        "mask_not_binary": _names(one for one in read if not _binary(one.mask_values)),
        "mask_read_as_empty": _names(one for one in read if not one.areas and len(one.mask_values) > 1),
        "target_too_large": _names(one for one in read if one.areas and max(one.areas) > _LARGE * one.pixels),
        "target_not_visible": _names(
            one for one in read if one.contrast is not None and one.contrast < _UNSEEN
        ),
        "in_train_and_test": sorted({item.name for item in split.train} & {item.name for item in split.test}),
        "exact_duplicates": exact,
        "near_duplicates": near,
    }
    identity = identify(named, split, [one.size for one in read])
    report["wrong"], report["noteworthy"] = _verdict(report)
    report["wrong"] += [text for text in asdict(identity).values() if text]
    return report


def perceptual_hash(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """64 signs (+1, -1): the lowest frequencies against their median, which leaves out the constant."""
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].ravel()
    return np.where(low > np.median(low[1:]), 1, -1).astype(np.float32)


def duplicates(facts: Sequence[Facts]) -> tuple[list[list[str]], list[list[str]]]:
    """Pairs [training or validation image, test image] with equal pixels, and those that look alike."""
    tests = [one for one in facts if one.role == "test"]
    others = [one for one in facts if one.role != "test"]
    if not tests or not others:
        return [], []
    by_digest = defaultdict(list)
    for one in others:
        by_digest[one.digest].append(one.name)
    exact = [[other, test.name] for test in tests for other in by_digest[test.digest] if other != test.name]

    known = {tuple(pair) for pair in exact}
    near = []
    test_bits = np.stack([one.bits for one in tests])
    for start in range(0, len(others), 1024):
        some = others[start : start + 1024]
        distance = (_HASH_SIDE**2 - np.stack([one.bits for one in some]) @ test_bits.T) / 2
        for i, j in np.argwhere(distance <= _NEAR_BITS):
            pair = (some[i].name, tests[j].name)
            alike = float(np.vdot(some[i].thumb, tests[j].thumb))
            if pair not in known and pair[0] != pair[1] and alike >= _NEAR_CORRELATION:
                near.append((alike, pair))
    return exact, [list(pair) for _, pair in sorted(near, key=lambda entry: -entry[0])]


def _verdict(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is wrong, and what is only worth knowing; each says how to fix it."""
    wrong, noteworthy = [], []

    def add(key: str, text: str, to: list[str] = wrong) -> None:
        names = list(report[key])
        if names:
            first = ", ".join(" = ".join(name) if isinstance(name, list) else name for name in names[:3])
            to.append(f"{len(names)} {text.format(first=first)}")

    add(
        "missing",
        "listed image(s) without file or mask, first {first}. Add them, or use dataset.missing=skip",
    )
    add("unreadable", "image(s) or mask(s) cannot be read, first {first}. Replace them")
    add(
        "mask_of_another_size",
        "mask(s) of another size than the image, first {first}. Fix them, or have them resized: "
        "dataset.odd_masks=[...]",
    )
    add(
        "mask_read_as_empty",
        "mask(s) with values, but none above half, which count as empty, first {first}. Save them with 0 and "
        "255",
    )
    add("target_too_large", "mask(s) mark more than 5 % of the image as one target, first {first}. Inverted?")
    add(
        "target_not_visible",
        "mask(s) without a visible target, first {first}. Check whether the mask belongs to another image",
        noteworthy,
    )
    add(
        "in_train_and_test",
        "image(s) in both the training and the test list, first {first}. Remove them from one",
    )
    add(
        "exact_duplicates",
        "test image(s) equal, pixel for pixel, to training ones, first {first}. Remove them from "
        "the training list",
    )
    add(
        "near_duplicates",
        "pair(s) of a training and a test image look alike (neighbouring frames?), first {first}. Split by "
        "sequence: sam-spl prepare --by sequence",
        noteworthy,
    )
    add(
        "mask_not_binary",
        "mask(s) with more than two values, first {first}. Pixels above half count",
        noteworthy,
    )
    add("empty_masks", "image(s) without target, first {first}", noteworthy)
    if not report["targets"]:
        wrong.append("no mask marks a target. See mask_values")
    return wrong, noteworthy


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


def _binary(values: tuple[float, ...]) -> bool:
    return len(values) <= 1 or (len(values) == 2 and values[0] == 0 and values[1] in (1, 255, 65535))


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


def _detail(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """A thumbnail without its smooth part, of length one: two clear skies should not look alike."""
    small = cv2.resize(grey, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    rest = small - cv2.GaussianBlur(small, (0, 0), 4)
    return rest / max(float(np.linalg.norm(rest)), 1e-6)


def _mean(facts: Sequence[Facts]) -> float:
    return sum(one.total for one in facts) / sum(one.pixels for one in facts)


def _std(facts: Sequence[Facts]) -> float:
    squares = sum(one.squares for one in facts) / sum(one.pixels for one in facts)
    return float(np.sqrt(max(0.0, squares - _mean(facts) ** 2)))


def _most(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}


def _names(facts: Any) -> list[str]:
    return [one.name for one in facts]
