"""Synthetic images, augmentation, checking and metrics, on one core."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import torch
from skimage.measure import label, regionprops
from torchvision.transforms.v2 import functional as tv

from benchmark.rows import Row
from benchmark.timing import interleaved
from sam_spl.data.examine import examine
from sam_spl.data.layout import Item
from sam_spl.data.normalise import Normalise
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.data.transforms import AUGMENTATIONS
from sam_spl.metrics import PROTOCOLS, Meter, count_image, protocols_named
from sam_spl.metrics.curves import curve_counts
from sam_spl.metrics.hiou import count_hierarchical
from sam_spl.metrics.target import components
from sam_spl.resize import resize_image
from sam_spl.runtime import one_opencv_thread


@one_opencv_thread()
def measure(size: int, repeat: int) -> list[Row]:
    """Rows of work on 50 generated images of a size."""
    source = SyntheticSource(1000, size, seed=1)
    samples = [source.load(index) for index in range(50)]
    rng = np.random.default_rng(0)
    work: dict[str, Callable[[], object]] = {
        "synthetic image": lambda: [source.load(index) for index in range(50)]
    }
    large = SyntheticSource(50, (400, 592), seed=2)
    pictures = [large.load(index)[0] for index in range(50)]
    normalise = Normalise()
    for name, make in AUGMENTATIONS.items():
        transform = make(size, "pillow")
        work[f"augment {name}"] = lambda t=transform: [t(image, mask, rng) for image, mask in samples]
        work[f"augment {name}, normalise"] = lambda t=transform: [
            normalise(t(image, mask, rng)[0]) for image, mask in samples
        ]
    to = (size, size)
    work |= {
        "400x592 resized": lambda: [resize_image(image, to) for image in pictures],
        "400x592 by Pillow": lambda: [
            PIL.Image.fromarray(image).resize(to, PIL.Image.Resampling.BILINEAR) for image in pictures
        ],
        "400x592 by torchvision": lambda: [
            tv.resize(torch.from_numpy(image)[None], list(to), antialias=True) for image in pictures
        ],
        "400x592 by INTER_AREA": lambda: [
            cv2.resize(image, to, interpolation=cv2.INTER_AREA) for image in pictures
        ],
        "400x592 by INTER_LINEAR": lambda: [cv2.resize(image, to) for image in pictures],
    }

    cases = [(response(mask, rng), mask) for _, mask in samples]
    noise = [(cv2.GaussianBlur(rng.random(m.shape, dtype=np.float32), (0, 0), 1), m) for _, m in samples]
    every = Meter(protocols_named(PROTOCOLS))
    work |= {
        "counts, native": lambda: [count_image(prob > 0.5, mask) for prob, mask in cases],
        "counts, every protocol": lambda: every.update(
            range(50),
            [dict.fromkeys(every.resolutions, prob) for prob, _ in cases],
            [mask for _, mask in cases],
        ),
        "counts, native and hIoU": lambda: [counts_and_hierarchy(prob > 0.5, mask) for prob, mask in cases],
        "counts and hIoU, pure noise": lambda: [
            counts_and_hierarchy(prob > 0.5, mask) for prob, mask in noise
        ],
        "curves, pure noise": lambda: [curve_counts(prob, mask) for prob, mask in noise],
        "curves at 200 thresholds": lambda: [curve_counts(prob, mask) for prob, mask in cases],
        "regions by scikit-image": lambda: [plain_regions(prob > 0.5, mask) for prob, mask in cases],
    }
    with tempfile.TemporaryDirectory() as folder:
        items = []
        for index, (image, mask) in enumerate(samples):
            paths = Path(folder) / f"{index}.png", Path(folder) / f"{index}_mask.png"
            for path, content in zip(paths, (image, mask.astype(np.uint8) * 255), strict=True):
                cv2.imwrite(str(path), content)
            items.append(Item(str(index), *paths))
        work["sam-spl check"] = lambda: [examine(item, "train") for item in items]
        times = interleaved(work, repeat, torch.device("cpu"))
    row = Row(name="", mode="data", image_size=size)
    return [replace(row, name=name).timed(of.rounds, 50) for name, of in times.items()]


def response(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a network may answer: blurred targets of all strengths, seven false ones, a little noise."""
    prob = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.2) * rng.uniform(0.6, 1.6)
    for _ in range(7):
        y, x = rng.integers(0, min(mask.shape) - 3, 2)
        prob[y : y + 3, x : x + 3] += rng.uniform(0.3, 1)
    noise = rng.random(mask.shape, dtype=np.float32) * 1e-3
    return np.clip(cv2.GaussianBlur(prob, (0, 0), 0.7) * 0.98, 0, 0.99) + noise


def counts_and_hierarchy(pred: np.ndarray, mask: np.ndarray) -> None:
    """All that one threshold is counted for, from one labelling of each map."""
    predictions, targets = components(pred), components(mask)
    count_image(pred, mask, predictions=predictions, targets=targets)
    count_hierarchical(predictions, targets)


def plain_regions(pred: np.ndarray, mask: np.ndarray) -> None:
    """What published meters compute before they match anything: regions of both maps, and their centroids."""
    for binary in (pred, mask):
        for region in regionprops(label(binary, connectivity=2)):
            region.centroid, region.area  # noqa: B018
