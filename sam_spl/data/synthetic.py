"""Synthetic infrared scenes with small targets, to train and test on without a data set.

A scene is a background (sky, sea or ground), targets of known irradiance on top of it, the optics' blur, and
the sensor's noise. Everything follows from (seed, index).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_spl.errors import ConfigError
from sam_spl.resize import Image, Mask

Field = NDArray[np.float32]

SCENES = ("sky", "sea", "ground")
_MARGIN = 3  # pixels between a target and the image's edge, or another target


@dataclass(frozen=True)
class SyntheticSource:
    """Scenes with 0 to ``most_targets`` targets, generated when asked for.

    Target size is log-uniform in ``areas``; its mask is where its blurred signal exceeds half its peak, at
    least one pixel. Its peak is ``scr`` times the standard deviation of the local background and noise
    (signal-to-clutter ratio), uniform in the given range; a dark target has a negative one.

    Args:
        count: number of images.
        image_size: (H, W) or side, in pixels, at least 32.
        seed: of the whole set. Two sets with different seeds share no scene.
        areas: smallest and largest target in pixels.
        scr: smallest and largest signal-to-clutter ratio.
        most_targets: targets per image are uniform in [1, most_targets], except for
        empty: the share of images without any.
        dark: the share of targets darker than their surroundings.
    """

    count: int
    image_size: int | tuple[int, int] = 256
    seed: int = 0
    areas: tuple[float, float] = (1.0, 100.0)
    scr: tuple[float, float] = (3.0, 12.0)
    most_targets: int = 4
    empty: float = 0.05
    dark: float = 0.0

    def __post_init__(self) -> None:
        if min(self.shape) < 32:
            raise ConfigError(
                f"dataset.image_size: synthetic images need at least 32 pixels a side, got {self.shape}"
            )
        if not 0 < self.areas[0] <= self.areas[1] or not 0 < self.scr[0] <= self.scr[1]:
            raise ConfigError(f"dataset: areas {self.areas} and scr {self.scr} must be positive and in order")

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of every image."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """``synthetic_000042``."""
        return f"synthetic_{index:06d}"

    def load(self, index: int) -> tuple[Image, Mask]:
        """Scene ``index``: uint8 image and boolean mask, both (H, W)."""
        rng = np.random.default_rng((self.seed, index))
        background = scene(rng, SCENES[rng.integers(len(SCENES))], self.shape)
        noise = float(rng.uniform(0.008, 0.03))
        sigma = float(rng.uniform(0.5, 0.9))  # of the optics' blur, in pixels

        signal = np.zeros(self.shape, np.float32)
        mask = np.zeros(self.shape, bool)
        if rng.random() >= self.empty:
            for _ in range(int(rng.integers(1, self.most_targets + 1))):
                self._add_target(rng, background, noise, sigma, signal, mask)

        image = background + signal + noise * rng.standard_normal(self.shape, dtype=np.float32)
        return np.clip(255 * image + 0.5, 0, 255).astype(np.uint8), mask

    def _add_target(
        self,
        rng: np.random.Generator,
        background: Field,
        noise: float,
        sigma: float,
        signal: Field,
        mask: Mask,
    ) -> None:
        area = float(np.exp(rng.uniform(np.log(self.areas[0]), np.log(self.areas[1]))))
        shape = target_shape(rng, area, sigma)
        h, w = shape.shape
        height, width = self.shape
        if h + 2 * _MARGIN > height or w + 2 * _MARGIN > width:
            return
        for _ in range(20):  # a crowded image keeps the targets it has room for
            top = int(rng.integers(_MARGIN, height - h - _MARGIN + 1))
            left = int(rng.integers(_MARGIN, width - w - _MARGIN + 1))
            around = (slice(top - _MARGIN, top + h + _MARGIN), slice(left - _MARGIN, left + w + _MARGIN))
            if mask[around].any():
                continue
            clutter = float(np.hypot(background[around].std(), noise))
            sign = -1.0 if rng.random() < self.dark else 1.0
            peak = sign * float(rng.uniform(*self.scr)) * clutter
            window = (slice(top, top + h), slice(left, left + w))
            signal[window] += peak * shape
            mask[window] |= shape >= 0.5
            return


def target_shape(rng: np.random.Generator, area: float, sigma: float) -> Field:
    """A target's signal with peak 1: a blurred ellipse that is above one half on about ``area`` pixels.

    Below four pixels it is the optics' own spot, at a random position between pixels.
    """
    if area < 4:
        # A Gaussian spot is above one half on an area of 2 pi ln 2 sigma^2.
        spread = max(0.45, np.sqrt(area / (2 * np.pi * np.log(2))))
        radius = int(np.ceil(3 * spread))
        grid = np.arange(-radius, radius + 1, dtype=np.float32)
        dy, dx = rng.uniform(-0.5, 0.5, 2)
        spot = np.exp(-((grid[:, None] - dy) ** 2 + (grid[None] - dx) ** 2) / (2 * spread**2)).astype(
            np.float32
        )
        return spot / spot.max()

    aspect, angle = float(rng.uniform(1.0, 2.5)), float(rng.uniform(0, np.pi))
    a, b = np.sqrt(area * aspect / np.pi), np.sqrt(area / aspect / np.pi)  # half axes
    radius = int(np.ceil(a + 3 * sigma)) + 1
    grid = np.arange(-radius, radius + 1, dtype=np.float32)
    y, x = np.meshgrid(grid - rng.uniform(-0.5, 0.5), grid - rng.uniform(-0.5, 0.5), indexing="ij")
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    distance = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    # One pixel of soft edge, and a hot spot off the centre, as engines are.
    body = np.clip(0.5 + (1 - distance) * b, 0, 1) * (
        0.8 + 0.2 * np.exp(-((u - 0.3 * a) ** 2 + v**2) / (b * b))
    )
    body = cv2.GaussianBlur(body.astype(np.float32), (0, 0), sigma)
    return body / body.max()


def scene(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> Field:
    """A background of ``kind`` in [0, 1], before noise."""
    return {"sky": _sky, "sea": _sea, "ground": _ground}[kind](rng, shape)


def _sky(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Brightening towards the horizon, with clouds from none to overcast."""
    base, slope = rng.uniform(0.1, 0.35), rng.uniform(0.0, 0.3)
    clouds = fractal(rng, shape, coarsest=8, octaves=5, persistence=rng.uniform(0.4, 0.6))
    cover = rng.uniform(-1.0, 1.5)
    clouds = np.clip(clouds + cover, 0, 2) * rng.uniform(0.0, 0.22)
    return np.clip(base + slope * _ramp(shape) + clouds, 0, 0.9)


def _sea(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Waves that shorten towards the horizon, glint, and sometimes sky above."""
    height, width = shape
    horizon = int(rng.uniform(0, 0.4) * height) if rng.random() < 0.6 else 0
    rows = height - horizon
    waves = fractal(rng, (rows, width), coarsest=14, octaves=5, persistence=0.65, stretch=rng.uniform(2, 5))
    sea = rng.uniform(0.15, 0.4) + rng.uniform(0.015, 0.06) * waves * (0.4 + 0.6 * _ramp((rows, width)))
    if rng.random() < 0.5:  # glint: the crests of one strip shine
        centre, spread = rng.uniform(0, width), width * rng.uniform(0.05, 0.2)
        strip = np.exp(-(((np.arange(width) - centre) / spread) ** 2) / 2).astype(np.float32)
        sea += rng.uniform(0.02, 0.12) * np.clip(waves - 0.6, 0, 2) * strip
    if not horizon:
        return np.clip(sea, 0, 0.9)
    above = _sky(rng, (horizon, width)) if horizon >= 8 else np.full((horizon, width), 0.3, np.float32)
    return np.clip(np.concatenate([above, sea]), 0, 0.9).astype(np.float32)


def _ground(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Rough terrain with fields of different temperature, their straight edges, and a road now and then."""
    relief = fractal(rng, shape, coarsest=10, octaves=6, persistence=rng.uniform(0.5, 0.7))
    ground = rng.uniform(0.2, 0.45) + rng.uniform(0.03, 0.09) * relief
    height, width = shape
    for _ in range(int(rng.integers(0, 6))):
        corners = _quadrilateral(rng, shape, rng.uniform(0.08, 0.35) * min(shape))
        field = np.zeros(shape, np.float32)
        cv2.fillConvexPoly(field, corners, 1.0, cv2.LINE_AA)
        ground += float(rng.uniform(-0.1, 0.12)) * field
    if rng.random() < 0.4:
        ends = [(0, int(rng.integers(height))), (width - 1, int(rng.integers(height)))]
        road = np.zeros(shape, np.float32)
        cv2.line(road, ends[0], ends[1], 1.0, int(rng.integers(2, 7)), cv2.LINE_AA)
        ground += float(rng.uniform(-0.12, 0.15)) * road
    return np.clip(cv2.GaussianBlur(ground.astype(np.float32), (0, 0), 0.7), 0, 0.9)


def fractal(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    coarsest: int,
    octaves: int,
    persistence: float,
    stretch: float = 1.0,
) -> Field:
    """Fractal noise with mean 0 and standard deviation 1: octaves of smooth random grids.

    Args:
        rng: where the grids come from.
        shape: (H, W).
        coarsest: cells of the first octave along the longer side; each further one has twice as many.
        octaves: how many, at most as many as there are pixels for.
        persistence: amplitude of an octave over that of the one before.
        stretch: cells are this many times as wide as high.
    """
    height, width = shape
    noise = np.zeros(shape, np.float32)
    cells, amplitude = coarsest / 4, 1.0
    for _ in range(octaves):
        columns = min(width, max(2, round(cells * width / max(shape) / np.sqrt(stretch))))
        rows = min(height, max(2, round(cells * height / max(shape) * np.sqrt(stretch))))
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        noise += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, amplitude = cells * 2, amplitude * persistence
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def _quadrilateral(rng: np.random.Generator, shape: tuple[int, int], side: float) -> NDArray[np.int32]:
    centre = rng.uniform((0, 0), shape[::-1])
    angles = rng.uniform(0, np.pi / 2) + np.arange(4) * np.pi / 2 + rng.uniform(-0.3, 0.3, 4)
    radii = side * rng.uniform(0.6, 1.4, 4)
    return np.round(centre + np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)).astype(np.int32)


def _ramp(shape: tuple[int, int]) -> Field:
    """From 0 in the top row to 1 in the bottom row."""
    return np.linspace(0, 1, shape[0], dtype=np.float32)[:, None].repeat(shape[1], 1)
