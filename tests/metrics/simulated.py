"""Data sets of known truth: what networks count on scenes like SIRST's, drawn from one population."""

from __future__ import annotations

import numpy as np

from sam_spl.metrics.figures import Array, Columns


class Population:
    """Images with 1.2 targets each, of 2 to 330 px (median 20), some of them hard; a method's runs on them.

    False alarms come in clusters on few images, so that Fa is heavy-tailed.

    Args:
        spread: between runs, as the standard deviation of what a training shifts: 0.6 gives runs that lie 2
            points of IoU apart.
        alarms: false alarms an image.
    """

    def __init__(self, rng: np.random.Generator, *, spread: float = 0.6, alarms: float = 0.25) -> None:
        self.rng, self.spread, self.alarms = rng, spread, alarms

    def scenes(self, images: int) -> dict[str, Array]:
        """What all runs of all methods meet."""
        rng = self.rng
        targets = np.where(rng.random(images) < 0.03, 0, 1 + rng.poisson(0.23, images))
        of = np.repeat(np.arange(images), targets)
        return {
            "targets": targets.astype(float),
            "of": of,
            "area": np.clip(np.rint(np.exp(rng.normal(3.0, 0.8, len(of)))), 2, 330),
            "pixels": np.rint(np.clip(np.exp(rng.normal(11.1, 0.4, images)), 13000, 236800)),
            **self._difficulty(images, len(of)),
        }

    def as_another_method(self, scenes: dict[str, Array], share: float = 0.2) -> dict[str, Array]:
        """The same scenes for a method that finds others of them hard; ``share`` of the variance is new."""
        new = self._difficulty(len(scenes["targets"]), len(scenes["of"]))
        mixed = {key: (1 - share) ** 0.5 * scenes[key] + share**0.5 * new[key] for key in ("hard", "dim")}
        clutter = np.where(self.rng.random(len(new["clutter"])) < share, new["clutter"], scenes["clutter"])
        return {**scenes, **mixed, "clutter": clutter}

    def run(self, scenes: dict[str, Array]) -> Columns:
        """What each image adds, of one training."""
        rng, of, area = self.rng, scenes["of"], scenes["area"]
        images, count = len(scenes["targets"]), len(of)
        find, outline, invent = self.spread * rng.normal(size=3)
        seen = (
            3.2
            - 0.9 * scenes["hard"][of]
            - 0.6 * rng.normal(size=images)[of]
            - 0.8 * scenes["dim"]
            + 0.25 * find
        )
        detected = rng.random(count) < _sigmoid(seen)
        quality = (
            1.2
            + 0.4 * scenes["dim"]
            - 0.3 * scenes["hard"][of]
            + 0.35 * rng.normal(size=count)
            + 0.2 * outline
        )
        quality = _sigmoid(quality)
        hit = np.rint(area * np.where(detected, quality, 0.05))
        extra = np.rint(area * np.where(detected, 0.7 * (1 - quality) * rng.random(count), 0))
        at = np.repeat(np.arange(images), rng.poisson(scenes["clutter"] * np.exp(0.25 * invent)))
        false = np.bincount(at, np.rint(np.exp(rng.normal(2.6, 0.9, len(at)))), minlength=images)

        def by_image(values: Array) -> Array:
            return np.bincount(of, values, minlength=images)

        intersection, labelled = by_image(hit), by_image(area)
        predicted = intersection + by_image(extra) + false
        union = predicted + labelled - intersection
        return {
            "iou_intersection": intersection,
            "iou_union": union,
            "iou_of_images": np.where(union > 0, intersection / np.maximum(union, 1), 1.0),
            "images_of_niou": np.ones(images),
            "intersection": intersection,
            "predicted": predicted,
            "labelled": labelled,
            "pixels": scenes["pixels"],
            "targets": scenes["targets"],
            "detected": by_image(detected.astype(float)),
            "false_alarm_pixels": false,
        }

    def _difficulty(self, images: int, targets: int) -> dict[str, Array]:
        clutter = self.rng.gamma(0.15, self.alarms / 0.15, images)
        return {
            "hard": self.rng.normal(size=images),
            "dim": self.rng.normal(size=targets),
            "clutter": clutter,
        }


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
