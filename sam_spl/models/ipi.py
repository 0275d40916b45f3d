"""Infrared patch-image model: background of low rank, targets sparse. Without weights, and slow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sam_spl.errors import ConfigError
from sam_spl.models.training_free import Grey, TrainingFree

Matrix = NDArray[np.float64]


class IPI(TrainingFree):
    """Infrared patch-image model (Gao, Meng, Yang, Wang, Zhou & Hauptmann, IEEE TIP 22(12), 2013).

    Overlapping patches of the image are the columns of a matrix D. Background patches resemble each other,
    wherever they lie, so D = B + T with B of low rank and T sparse: the minimum of
    ``|B|_* + lambda |T|_1 + |D - B - T|_F^2 / (2 mu)``, by accelerated proximal gradient (their
    Algorithm 1), mu falling from the second singular value of D to a twentieth of the fourth. A pixel of the
    target image is the median of T over the patches that hold it; negative ones are 0.

    The decomposition costs about patches^2 x patch^2 multiplications a step, so time grows with the square of
    the image's area: seconds for 256 x 256.

    Args:
        patch: side of a patch in pixels; at most half the image's side.
        step: pixels from patch to patch.
        weight: lambda times the square root of the larger side of D; 1 in the paper.
        tolerance: iterations end where B + T changes by less than this, relative to D.
        steps: iterations at most.
        k: of the threshold mean + k std.
    """

    def __init__(
        self,
        *,
        patch: int = 50,
        step: int = 10,
        weight: float = 1.0,
        tolerance: float = 1e-3,
        steps: int = 300,
        k: float = 15.0,
    ) -> None:
        super().__init__(k)
        for key, value in (("patch", patch), ("step", step), ("steps", steps)):
            if value < 1:
                raise ConfigError(f"model.{key}: {value} is not valid, give a whole number from 1.")
        for key, number in (("weight", weight), ("tolerance", tolerance)):
            if not number > 0:
                raise ConfigError(f"model.{key}: {number} is not valid, give a number above 0.")
        self.patch, self.step, self.weight = patch, step, weight
        self.tolerance, self.steps = tolerance, steps

    def filtered(self, image: Grey) -> Grey:
        height, width = image.shape
        tall, wide = (min(self.patch, side // 2) for side in image.shape)
        rows, columns = _starts(height, tall, self.step), _starts(width, wide, self.step)
        places = [(top, left) for top in rows for left in columns]
        patches = np.stack([image[top : top + tall, left : left + wide].ravel() for top, left in places], 1)
        sparse = self._sparse_part(patches.astype(np.float64)).astype(np.float32)

        shown = sparse.T.reshape(-1, tall, wide)
        target = np.empty_like(image)
        # Pixels between two neighbouring starts or ends of patches lie in the same ones.
        for top, bottom in _spans(height, tall, self.step):
            beside = [k for k, (y, _) in enumerate(places) if y <= top and bottom <= y + tall]
            for left, right in _spans(width, wide, self.step):
                holding = [k for k in beside if places[k][1] <= left and right <= places[k][1] + wide]
                values = [
                    shown[k, top - y : bottom - y, left - x : right - x]
                    for k in holding
                    for y, x in [places[k]]
                ]
                target[top:bottom, left:right] = np.median(values, axis=0)
        return np.maximum(target, 0)

    def _sparse_part(self, data: Matrix) -> Matrix:
        """T of D, by their Algorithm 1."""
        singular = np.sqrt(np.maximum(np.linalg.eigvalsh(_gram(data)), 0))[::-1]
        norm = float(np.linalg.norm(data))
        if norm == 0 or len(singular) < 4 or singular[1] <= 1e-9 * singular[0]:
            return data - data.mean(1, keepdims=True)  # all patches alike, or too few to compare
        weight = self.weight / max(data.shape) ** 0.5
        mu, least = float(singular[1]), 0.05 * float(singular[3])

        low = low_before = sparse = sparse_before = np.zeros_like(data)
        pace = pace_before = 1.0
        for _ in range(self.steps):
            ahead = (pace_before - 1) / pace
            y_low = low + ahead * (low - low_before)
            y_sparse = sparse + ahead * (sparse - sparse_before)
            residual = (y_low + y_sparse - data) / 2
            low_before, sparse_before = low, sparse
            low = _shrink_rank(y_low - residual, mu / 2)
            moved = y_sparse - residual
            sparse = np.sign(moved) * np.maximum(np.abs(moved) - weight * mu / 2, 0)
            change = np.linalg.norm(low + sparse - low_before - sparse_before)
            pace_before, pace = pace, (1 + (4 * pace**2 + 1) ** 0.5) / 2
            mu = max(0.9 * mu, least)
            if mu == least and change < self.tolerance * norm:
                break
        return sparse


def _shrink_rank(matrix: Matrix, threshold: float) -> Matrix:
    """Singular values less a threshold, at least 0: by the smaller Gram matrix, much faster than an SVD."""
    if matrix.shape[0] < matrix.shape[1]:
        return _shrink_rank(matrix.T, threshold).T
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    singular = np.sqrt(np.maximum(squares, 0))
    kept = singular > threshold
    vectors, singular = vectors[:, kept], singular[kept]
    shrunk: Matrix = (matrix @ vectors) * (1 - threshold / singular) @ vectors.T
    return shrunk


def _gram(matrix: Matrix) -> Matrix:
    product: Matrix = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    return product


def _starts(side: int, patch: int, step: int) -> list[int]:
    """Where patches begin along a side; the last ends at the border."""
    return sorted({*range(0, side - patch, step), side - patch})


def _spans(side: int, patch: int, step: int) -> list[tuple[int, int]]:
    """Parts of a side between all beginnings and ends of patches."""
    starts = _starts(side, patch, step)
    cuts = sorted({*starts, *(start + patch for start in starts)})
    return list(pairwise(cuts))
