"""Targets that are put into an image: their shapes, their strength, and masks as annotators draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.errors import ConfigError
from sam_spl.resize import Mask

Field = NDArray[np.float32]

OUTLINE = 1 / 3  # of a target's peak: where its mask ends
_MARGIN = 3  # pixels between two targets, and around a target that count as its surroundings
_WEAKEST, _STRONGEST = 0.04, 0.75  # contrast of a target's peak, of full scale
_LARGEST = 10000  # pixels of a target
_TRIES = 20  # places that are looked at for a target


@dataclass(frozen=True)
class Targets:
    """How many targets an image gets, and which.

    A target's peak is ``scr`` times the standard deviation of its surroundings (signal-to-clutter ratio),
    but between 4 and 75 % of full scale and at least three times the noise. Its mask is where its body
    exceeds a third of its peak: annotators draw a target as wide as they see it. At the edge of SIRST's
    training masks the median contrast is 55 % of the peak's inside and 14 % outside.

    Attributes:
        areas: smallest and largest mask in pixels; sizes are log-uniform between.
        scr: smallest and largest signal-to-clutter ratio, log-uniform between.
        most_targets: per image. Six of ten images with targets have one.
        empty: the share of images without any.
        dark: the share of targets darker than their surroundings.

    Raises:
        ConfigError: a range that is empty or not positive.
    """

    areas: tuple[float, float] = (5.0, 200.0)
    scr: tuple[float, float] = (3.0, 30.0)
    most_targets: int = 3
    empty: float = 0.1
    dark: float = 0.0

    def __post_init__(self) -> None:
        if (
            not 1 <= self.areas[0] <= self.areas[1] <= _LARGEST
            or not 0 < self.scr[0] <= self.scr[1] < math.inf
        ):
            raise ConfigError(
                f"dataset: areas {self.areas} must be in order and in [1, {_LARGEST}] pixels, and "
                f"scr {self.scr} in order, above 0 and finite."
            )

    def implant(self, rng: np.random.Generator, image: Field, mask: Mask, noise: float) -> None:
        """Add targets to an image and mark them, both in place. A crowded image keeps those it has room for.

        Args:
            rng: of every choice.
            image: (H, W), full scale is 1; may leave [0, 1] by the targets, which saturate.
            mask: (H, W), of the targets that are there before; new ones stay apart from them.
            noise: standard deviation of what is added to the image later; 0 where it holds its noise.
        """
        if rng.random() < self.empty:
            return
        more = self.most_targets > 1 and rng.random() < 0.4
        for _ in range(int(rng.integers(2, self.most_targets + 1)) if more else 1):
            target = draw_target(rng, log_uniform(rng, *self.areas))
            sign = -1.0 if rng.random() < self.dark else 1.0
            for _ in range(_TRIES):
                if self._implanted(rng, *target, sign, image, mask, noise):
                    break

    def _implanted(
        self,
        rng: np.random.Generator,
        signal: Field,
        outline: Mask,
        sign: float,
        image: Field,
        mask: Mask,
        noise: float,
    ) -> bool:
        """Whether there was room for a target at a place drawn at random: its peak lies in the image."""
        place = draw_place(rng, signal.shape, image.shape)
        part = signal[place.inside]
        around = place.grown(_MARGIN, image.shape)
        if part.max() < 0.98 or mask[around].any():
            return False
        near = image[around]
        clutter = float(np.hypot(near.std(), noise))
        peak = min(max(log_uniform(rng, *self.scr) * clutter, _WEAKEST, 3 * noise), _STRONGEST)
        level = float(np.median(near))
        room = 1.05 - level if sign > 0 else level + 0.05
        if peak > room:  # it saturates, and must be seen all the same
            if room < max(_WEAKEST, 2.5 * clutter):
                return False
            peak = room
        image[place.window] += sign * peak * part
        mask[place.window] |= outline[place.inside]
        return True


@dataclass(frozen=True)
class Place:
    """Where a patch lies in an image: ``window`` of the image shows ``inside`` of the patch."""

    window: tuple[slice, slice]
    inside: tuple[slice, slice]

    def grown(self, by: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """The window with a margin, cut at the image's edges."""
        rows, columns = (
            slice(max(0, of.start - by), min(side, of.stop + by))
            for of, side in zip(self.window, shape, strict=True)
        )
        return rows, columns


def draw_place(rng: np.random.Generator, patch: tuple[int, ...], image: tuple[int, ...]) -> Place:
    """A place at random whose centre lies in the image; the patch may stand over its edges."""
    window, inside = [], []
    for own, side in zip(patch, image, strict=True):
        start = int(rng.integers(-(own // 2), side - own // 2))
        first, last = max(0, start), min(side, start + own)
        window.append(slice(first, last))
        inside.append(slice(first - start, last - start))
    return Place((window[0], window[1]), (inside[0], inside[1]))


def draw_target(rng: np.random.Generator, area: float) -> tuple[Field, Mask]:
    """A target's signal with peak 1, and its mask: of about ``area`` pixels, at least a point behind optics.

    One to three parts, as aircraft and ships show them, each an ellipse that is peaked or flat with a hot
    spot, behind optics whose blur has a standard deviation of 0.6 to 1.3 pixels. Some large ones are faint
    with one to four hot spots, as engines are; then the mask is that of the faint body.
    """
    sigma = rng.uniform(0.6, 1.3)
    parts = 1 if area < 25 else int(rng.choice([1, 1, 2, 3]))
    # A spot that only the optics make is above OUTLINE on 2 pi ln 3 sigma^2 pixels.
    area = max(0.15 * area, area + 2 * np.pi * np.log(OUTLINE) * sigma**2)
    radius = int(np.ceil(2.2 * np.sqrt(area) + 4 * sigma)) + 2
    grid = np.arange(-radius, radius + 1, dtype=np.float32)
    y, x = np.meshgrid(grid - rng.uniform(-0.5, 0.5), grid - rng.uniform(-0.5, 0.5), indexing="ij")
    level = rng.random() < 0.5  # most targets lie along the horizon, many do not
    heading = rng.normal(0, 0.2) if level else rng.uniform(0, np.pi)
    body = _ellipse(rng, x, y, area / parts, heading)
    for _ in range(parts - 1):
        dy, dx = rng.uniform(-0.8, 0.8, 2) * np.sqrt(area / np.pi)
        turn = heading + rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
        size = area / parts * log_uniform(rng, 0.4, 1.2)
        body = np.maximum(body, rng.uniform(0.5, 1) * _ellipse(rng, x - dx, y - dy, size, turn))
    body = _blurred(body, sigma)
    mask = body >= OUTLINE
    if area < 40 or rng.random() < 0.6:
        return body, mask
    signal = rng.uniform(0.3, 0.8) * body
    rows, columns = np.nonzero(body >= 0.6)
    for spot in rng.integers(len(rows), size=int(rng.integers(1, 5))):
        there = (y - y[rows[spot], 0]) ** 2 + (x - x[0, columns[spot]]) ** 2
        signal = np.maximum(signal, rng.uniform(0.6, 1) * np.exp(-there / (2 * log_uniform(rng, 1, 3) ** 2)))
    return signal / signal.max(), mask


def _blurred(signal: Field, sigma: float) -> Field:
    signal = cv2.GaussianBlur(signal.astype(np.float32), (0, 0), sigma)
    return signal / signal.max()


def _ellipse(rng: np.random.Generator, x: Field, y: Field, area: float, angle: float) -> Field:
    aspect = log_uniform(rng, 1, 3.5 if area > 15 else 1.8)
    a, b = np.sqrt(area * aspect / np.pi), np.sqrt(area / aspect / np.pi)  # half axes
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    squared = (u / a) ** 2 + (v / b) ** 2
    if rng.random() < 0.5:
        return np.exp(np.log(OUTLINE) * squared)
    body = np.clip(0.5 + (1 - np.sqrt(squared)) * b, 0, 1)  # one pixel of soft edge
    return body * (rng.uniform(0.6, 1) + 0.4 * np.exp(-((u - 0.3 * a) ** 2 + v**2) / (b * b)))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
