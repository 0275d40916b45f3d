"""Generated scenes for networks that go to real images: many kinds of background, clutter, and sensors.

What real frames have and :mod:`sam_spl.data.synthetic` has not: contrast from a clear sky's to that of a
cloud at full scale, horizons, buildings, wires, warm things that are too large to be targets, hot and dead
pixels, stripes, noise from none to strong, pictures that were enlarged or compressed before they were stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from sam_spl.data.synthetic import SCENES, fractal, scene
from sam_spl.data.targets import Field, Targets, draw_place, draw_target, log_uniform
from sam_spl.errors import ConfigError
from sam_spl.resize import Image, Mask

Shape = tuple[int, int]

_SUBPIXEL = 3  # bits behind the point in OpenCV's coordinates


@dataclass(frozen=True)
class VariedSource:
    """Scenes with targets, generated when asked for; everything follows from (seed, index).

    Args:
        count: number of images.
        image_size: side in pixels, at least 32.
        seed: of the whole set. Two sets with different seeds share no scene.
        targets: how many an image has, and which.
    """

    count: int
    image_size: int = 256
    seed: int = 0
    targets: Targets = field(default_factory=Targets)

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise ConfigError(
                f"dataset.image_size: generated images need at least 32 pixels, got {self.image_size}"
            )

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """``varied_000042``."""
        return f"varied_{index:06d}"

    def load(self, index: int) -> tuple[Image, Mask]:
        """Scene ``index``: uint8 image and boolean mask, both (S, S)."""
        rng = np.random.default_rng((self.seed, index))
        side = self.image_size
        enlarged = log_uniform(rng, 1, 2.2)  # what the camera saw is this much smaller than what was stored
        seen = (max(32, round(side / enlarged)),) * 2

        image = np.clip(_enlarge(_exposed(rng, _background(rng, seen)), side), 0, 1)
        noise = _enlarge(_sensor_noise(rng, seen), side)
        if rng.random() < 0.3:
            _add_large_things(rng, image)
        mask = np.zeros((side, side), bool)
        self.targets.implant(rng, image, mask, float(noise.std()))
        image += noise
        if rng.random() < 0.15:
            _add_hot_pixels(rng, image, mask)
        stored = np.clip(255 * image + 0.5, 0, 255).astype(np.uint8)
        if rng.random() < 0.2:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 97))]
            stored = cv2.imdecode(cv2.imencode(".jpg", stored, quality)[1], cv2.IMREAD_GRAYSCALE)
        return stored, mask


def _background(rng: np.random.Generator, shape: Shape) -> Field:
    """A scene with mean 0 and standard deviation 1; one in seven is two scenes that fade into each other."""
    kinds = list(BACKGROUNDS)
    image = BACKGROUNDS[str(rng.choice(kinds))](rng, shape)
    if rng.random() < 0.15:
        other = BACKGROUNDS[str(rng.choice(kinds))](rng, shape)
        image += np.clip(1.5 * _clouds(rng, shape) - 0.2, 0, 1) * (other - image)
    return (image - image.mean()) / (image.std() + 1e-3)


def _exposed(rng: np.random.Generator, scene: Field) -> Field:
    """A scene of level and contrast in [0, 1]: deviations from 3 to 80 grey levels of 255; some clipped."""
    image = np.clip(rng.normal(0.42, 0.17), 0.05, 0.9) + log_uniform(rng, 0.012, 0.32) * scene
    if rng.random() < 0.3:
        image = np.clip(image, rng.uniform(-0.2, 0.1), rng.uniform(0.8, 1.1))
    return image.astype(np.float32)


def _sensor_noise(rng: np.random.Generator, shape: Shape) -> Field:
    """Noise of the pixels, smoothed in some pictures, and stripes of rows or columns in others."""
    strength = log_uniform(rng, 0.0015, 0.03)
    noise = strength * rng.standard_normal(shape, dtype=np.float32)
    if rng.random() < 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.4, 1.0))
    for stripes in ((shape[0], 1), (1, shape[1])):
        if rng.random() < 0.2:
            noise = noise + strength * rng.uniform(0.2, 1) * rng.standard_normal(stripes, dtype=np.float32)
    return noise


def _add_large_things(rng: np.random.Generator, image: Field) -> None:
    """One to three warm or cold things that are no targets: larger than any, sharp or soft."""
    for _ in range(int(rng.integers(1, 4))):
        thing = np.clip(draw_target(rng, log_uniform(rng, 600, 4000))[0] * rng.uniform(1, 3), 0, 1)
        thing = cv2.GaussianBlur(thing, (0, 0), rng.uniform(0.7, 4))
        place = draw_place(rng, thing.shape, image.shape)
        image[place.window] += rng.uniform(-0.4, 0.5) * thing[place.inside]


def _add_hot_pixels(rng: np.random.Generator, image: Field, mask: Mask) -> None:
    """Up to 30 single pixels away from targets: optics spread every real target over several."""
    rows, columns = rng.integers(0, len(image), (2, int(rng.integers(1, 30))))
    free = cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8))[rows, columns] == 0
    image[rows[free], columns[free]] += rng.uniform(-0.5, 0.7, int(free.sum())).astype(np.float32)


def _clouds(rng: np.random.Generator, shape: Shape) -> Field:
    """From haze to clouds with hard edges, in [0, 1]."""
    noise = fractal(
        rng,
        shape,
        coarsest=int(rng.integers(3, 9)),
        octaves=6,
        persistence=rng.uniform(0.35, 0.6),
        stretch=rng.uniform(1, 4),
    )
    return _sigmoid(log_uniform(rng, 0.5, 6) * (noise + rng.uniform(-1.2, 1.2)))


def _clear(rng: np.random.Generator, shape: Shape) -> Field:
    """A plane with a slope, and hardly anything on it."""
    slopes = rng.standard_normal(2)
    plane = slopes[0] * _ramp(shape[0])[:, None] + slopes[1] * _ramp(shape[1])[None]
    return plane + rng.uniform(0, 0.5) * fractal(rng, shape, coarsest=4, octaves=2, persistence=0.4)


def _waves(rng: np.random.Generator, shape: Shape) -> Field:
    """Water that is rougher near by, under the reflections of clouds; in some, only crests show."""
    waves = fractal(
        rng,
        shape,
        coarsest=int(rng.integers(12, 60)),
        octaves=4,
        persistence=rng.uniform(0.5, 0.9),
        stretch=rng.uniform(1, 8),
    )
    if rng.random() < 0.4:
        waves = np.maximum(waves, rng.uniform(-1, 1))
    near = np.linspace(rng.uniform(0.2, 1), 1, shape[0], dtype=np.float32)[:, None]
    return 0.25 * waves * near + rng.uniform(0, 0.5) * _clouds(rng, shape)


def _skyline(rng: np.random.Generator, shape: Shape) -> Field:
    """Sky above hills or roofs, which have a texture of their own and a sharp or soft edge."""
    height, width = shape
    sky = rng.uniform(0, 1) + rng.uniform(-0.5, 0.5) * _ramp(height)[:, None]
    sky = sky + rng.uniform(0, 0.25) * _clouds(rng, shape)
    edge = np.full(width, height * rng.uniform(0.35, 0.95))
    if rng.random() < 0.5:
        hills = fractal(
            rng, (2, width), coarsest=int(rng.integers(2, 8)), octaves=6, persistence=rng.uniform(0.3, 0.6)
        )[0]
        edge = edge + height * rng.uniform(0.01, 0.12) * hills
    else:
        level = edge[0]
        for _ in range(int(rng.integers(1, 10))):
            first, last = np.sort(rng.integers(0, width, 2))
            edge[first : last + 1] = level - rng.uniform(0, 0.35) * height
    below = _sigmoid((np.arange(height)[:, None] - edge[None]) / rng.uniform(0.3, 1.5))
    land = fractal(
        rng,
        shape,
        coarsest=int(rng.integers(4, 30)),
        octaves=6,
        persistence=rng.uniform(0.5, 0.9),
        stretch=rng.uniform(1, 5),
    )
    if rng.random() < 0.4:  # snow and rock, fields and woods
        land = rng.choice([-1, 1]) * _sigmoid(log_uniform(rng, 1, 6) * land)
    else:
        land = rng.uniform(0, 1) + rng.uniform(0.02, 0.3) * land
    return sky + below * (land - sky)


def _grove(rng: np.random.Generator, shape: Shape) -> Field:
    """Ground with hundreds of small warm or cold things on it, in rows or anywhere, none of them a target."""
    image = rng.uniform(0.2, 1) * fractal(
        rng, shape, coarsest=int(rng.integers(3, 20)), octaves=6, persistence=rng.uniform(0.4, 0.8)
    )
    number = int(log_uniform(rng, 40, 600))
    rows, columns = rng.uniform(0, shape[0], number), rng.uniform(0, shape[1], number)
    if rng.random() < 0.4:
        rows += rng.uniform(-1, 1) * columns
        between = rng.uniform(6, 24)
        rows = (np.round(rows / between) * between + rng.uniform(-0.1, 0.1, number) * between) % shape[0]
    dots = np.zeros(shape, np.float32)
    np.maximum.at(
        dots, (rows.astype(int), columns.astype(int)), rng.uniform(0.3, 1, number).astype(np.float32)
    )
    dots = cv2.GaussianBlur(dots, (0, 0), rng.uniform(0.5, 1.6), sigmaY=rng.uniform(0.5, 1.6))
    return image + rng.choice([-1, 1, 1, 1]) * rng.uniform(1, 4) * dots / dots.max()


def _town(rng: np.random.Generator, shape: Shape) -> Field:
    """Walls and roofs with outlines and rows of windows, poles and wires."""
    height, width = shape
    image = rng.uniform(0, 1) + rng.uniform(0.01, 0.15) * fractal(
        rng, shape, coarsest=int(rng.integers(3, 12)), octaves=5, persistence=0.55
    )
    for _ in range(int(rng.integers(1, 14))):
        h, w = max(2, int(height * rng.uniform(0.03, 0.6))), max(2, int(width * rng.uniform(0.02, 0.5)))
        top, left = int(rng.integers(-h // 2, height)), int(rng.integers(-w // 2, width))
        angle = rng.uniform(-10, 10) if rng.random() < 0.6 else rng.uniform(0, 180)
        corners = cv2.boxPoints(((left + w / 2, top + h / 2), (w, h), angle))
        corners = np.round(corners * 2**_SUBPIXEL).astype(np.int32)
        wall = np.zeros(shape, np.float32)
        cv2.fillConvexPoly(wall, corners, 1.0, cv2.LINE_AA, _SUBPIXEL)
        tone = rng.uniform(-0.5, 0.5)
        surface: Field | float = 1.0
        if rng.random() < 0.4:
            surface = 1 + rng.uniform(0, 0.4) * fractal(
                rng, shape, coarsest=int(rng.integers(4, 40)), octaves=3, persistence=0.6
            )
        image = image + 0.8 * wall * (image.mean() + tone * surface - image)
        if rng.random() < 0.5:
            shade = float(image.mean() + rng.uniform(-0.7, 0.7))
            thick = int(rng.integers(1, 3))
            cv2.polylines(image, [corners], True, shade, thick, cv2.LINE_AA, _SUBPIXEL)
        if rng.random() < 0.35 and min(h, w) > 16:
            step = int(rng.integers(6, 20))
            side = int(rng.integers(2, max(3, step // 2 + 1)))
            shade = float(image.mean() + rng.uniform(-0.5, 0.5))
            for row in range(max(0, top + 3), min(height, top + h - side), step):
                for column in range(max(0, left + 3), min(width, left + w - side), step):
                    image[row : row + side, column : column + side] = shade
    for _ in range(int(rng.integers(0, 6))):
        ends = rng.integers(0, (width, height), (2, 2)) * 2**_SUBPIXEL
        if rng.random() < 0.5:  # upright
            ends[1, 0] = ends[0, 0] + rng.integers(-20, 20)
        shade = float(image.mean() + rng.uniform(-0.6, 0.6))
        first, last = ends.tolist()
        cv2.line(image, first, last, shade, int(rng.integers(1, 4)), cv2.LINE_AA, _SUBPIXEL)
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.4, 1.2))


#: Kinds of background: (generator, shape) -> values of any scale. Those of the simpler source are among them.
BACKGROUNDS: dict[str, Callable[[np.random.Generator, Shape], Field]] = {
    "clear": _clear,
    "clouds": _clouds,
    "grove": _grove,
    "skyline": _skyline,
    "town": _town,
    "waves": _waves,
    **{kind: partial(lambda kind, rng, shape: scene(rng, kind, shape), kind) for kind in SCENES},
}


def _enlarge(image: Field, side: int) -> Field:
    return cv2.resize(np.asarray(image, np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def _ramp(length: int) -> Field:
    """From -0.5 to 0.5."""
    return np.linspace(-0.5, 0.5, length, dtype=np.float32)


def _sigmoid(x: Field) -> Field:
    return (1 / (1 + np.exp(-np.clip(x, -40, 40)))).astype(np.float32)
