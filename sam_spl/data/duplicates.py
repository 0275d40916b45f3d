"""Images that are on both sides of a split: equal ones, and those that look alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sam_spl.data.examine import Facts

_HASH_SIDE = 8  # a perceptual hash has 8 x 8 bits
_THUMB = 48
_NEAR_BITS = 10  # of 64, at most: candidates
# Correlation of two thumbnails without their smooth parts; two scenes of SIRST reach 0.6.
_NEAR_CORRELATION = 0.65


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


def perceptual_hash(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """64 signs (+1, -1): the lowest frequencies against their median, which leaves out the constant."""
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].ravel()
    return np.where(low > np.median(low[1:]), 1, -1).astype(np.float32)


def detail(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """A thumbnail without its smooth part, of length one: two clear skies do not look alike."""
    small = cv2.resize(grey, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    rest = small - cv2.GaussianBlur(small, (0, 0), 4)
    return rest / max(float(np.linalg.norm(rest)), 1e-6)
