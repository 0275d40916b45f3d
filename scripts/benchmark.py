#!/usr/bin/env python3
"""Measure speed: the networks, what feeds them and what scores them. Medians of interleaved repetitions.

    python scripts/benchmark.py                                  everything, on the best device there is
    python scripts/benchmark.py networks --models sam_spl_t --image_size 256 --batch_size 4
    python scripts/benchmark.py data

The figures in docs/benchmarks.md come from here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from skimage.measure import label, regionprops
from timm.models.hieradet_sam2 import HieraDet
from torch import nn
from torchvision.transforms.v2 import functional as tv

from sam_spl.cli.main import finish
from sam_spl.data.examine import examine
from sam_spl.data.layout import Item
from sam_spl.data.normalise import Normalise
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.data.transforms import AUGMENTATIONS
from sam_spl.engine.losses import SegmentationLoss
from sam_spl.metrics import PROTOCOLS, Meter, count_image, protocols_named
from sam_spl.metrics.curves import curve_counts
from sam_spl.metrics.hiou import count_hierarchical
from sam_spl.metrics.target import components
from sam_spl.models.registry import build_model, built_from, channels_of
from sam_spl.resize import resize_image
from sam_spl.runtime import World, pick_device, pick_precision, place


def benchmark(argv: list[str]) -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("all", "networks", "data"), default="all")
    parser.add_argument("--models", nargs="+", default=["sam_spl_t"])
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args(argv)
    device = pick_device(options.device)
    world = World(0, 1, device, pick_precision(options.precision, device))
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"torch {torch.__version__}, {name}, {str(world.precision or torch.float32).removeprefix('torch.')}"
    )
    if options.what in ("all", "data"):
        data(options.image_size, options.repeat)
    if options.what in ("all", "networks"):
        for model in options.models:
            network(model, options.image_size, options.batch_size, options.repeat, world)


def data(size: int, repeat: int) -> None:
    """Synthetic images, augmentation, checking and metrics, on one core."""
    cv2.setNumThreads(1)
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
        for name, seconds in interleaved(work, repeat, lambda: None).items():
            speed = (
                f"{1000 * seconds / 50:8.3f} ms an image of {size} px, {50 / seconds:8.0f} images/s a core"
            )
            print(f"{name:<34} {speed}")


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


def network(name: str, size: int, batch: int, repeat: int, world: World) -> None:
    """Forward pass and training step, and the forward pass without our two exact savings."""
    torch.manual_seed(0)
    model = place(build_model(name), world.device).eval()
    image = torch.randn(batch, channels_of(model), size, size, device=world.device)
    image = image.contiguous(memory_format=torch.channels_last)
    mask = (torch.rand(batch, 1, size, size, device=world.device) > 0.999).float()
    loss_of = SegmentationLoss()

    def forward() -> None:
        with torch.inference_mode(), world.autocast():
            model(image)

    def plain() -> None:
        trunk = model.encoder.trunk
        trunk.forward_block = lambda index, tokens: reference[index](tokens)
        heads = list(model.decoder.heads)
        try:
            for index, head in enumerate(heads):
                model.decoder.heads[index] = _InterpolateFirst(head, size)
            forward()
        finally:
            del trunk.forward_block
            for index, head in enumerate(heads):
                model.decoder.heads[index] = head

    def step() -> None:
        model.train()
        with world.autocast():
            logits = model(image)
        loss_of(logits, mask).backward()
        model.zero_grad(set_to_none=True)
        model.eval()

    work = {"forward": forward, "training step": step}
    if hasattr(model, "sam2_trunk"):
        reference = _timms_blocks(model).to(world.device)
        work["forward, savings switched off"] = plain
    for what, seconds in interleaved(work, repeat, lambda: synchronise(world.device)).items():
        print(f"{name + ' ' + what:<38} {1000 * seconds / batch:9.2f} ms an image ({batch} x {size} px)")


def _timms_blocks(model: nn.Module) -> nn.Module:
    """The trunk's blocks as SAM 2 runs them: padded before the projections, cropped after them."""
    of = built_from(model)["arguments"]
    keys = ("embed_dim", "num_heads", "stages", "window_spec", "global_att_blocks")
    timms = HieraDet(**{key: of[key] for key in keys}, q_pool=len(of["stages"]) - 1, num_classes=0)
    timms.blocks.load_state_dict(model.encoder.trunk.blocks.state_dict())
    return timms.blocks.eval()


class _InterpolateFirst(nn.Module):
    def __init__(self, head: nn.Module, size: int) -> None:
        super().__init__()
        self.head, self.size = head, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.interpolate(x, size=self.size, mode="bilinear", align_corners=False))


def interleaved(
    work: dict[str, Callable[[], object]], repeat: int, synchronise: Callable[[], None]
) -> dict[str, float]:
    """Median seconds of each, in turn in every round, so that a drift of the machine affects all equally."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(repeat + 1):
        for name, call in work.items():
            synchronise()
            start = time.perf_counter()
            call()
            synchronise()
            if round_:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise(device: torch.device) -> None:
    """Wait for what a CUDA device has queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    finish(lambda: benchmark(sys.argv[1:]))
