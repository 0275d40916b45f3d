"""Generated scenes with predictions, as reports show them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam_spl.data.synthetic import SyntheticSource
from sam_spl.metrics import DatasetCounts, Meter, protocols_named
from sam_spl.metrics.curves import levels
from sam_spl.report.page import Sample

NAMES = [f"image_{k}" for k in range(7)] + ["a</script><!--<script>'\"&"]


@pytest.fixture(scope="session")
def predicted() -> tuple[list[Sample], list[np.ndarray]]:
    """Generated scenes with predictions that miss, hit and invent targets."""
    source, rng = SyntheticSource(len(NAMES), 96, seed=2, areas=(6, 40)), np.random.default_rng(0)
    samples, probs = [], []
    for k, name in enumerate(NAMES):
        image, mask = source.load(k)
        prob = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1) * rng.uniform(0.3, 1.5)
        for _ in range(2):
            y, x = rng.integers(0, 90, 2)
            prob[y : y + 3, x : x + 3] = rng.uniform(0.2, 1)
        prob = np.clip(prob, 0, 1)
        samples.append(Sample(name, image, mask, levels(prob)))
        probs.append(prob)
    return samples, probs


def counts_of(samples, probs, names=("native", "sam_spl")) -> DatasetCounts:
    metric = Meter(protocols_named(names), detailed=True)
    metric.update(
        range(len(probs)),
        [dict.fromkeys(metric.resolutions, prob) for prob in probs],
        [s.mask for s in samples],
    )
    return metric.counts()
