"""Score a network on a data set: exact counts, whatever the batch size and the number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from sam_spl.data.dataset import EvaluationSet, collate_evaluation
from sam_spl.engine.distributed import World
from sam_spl.metrics import ImageCounts, NativeMetric

THRESHOLD = 0.5


def evaluate(
    model: nn.Module,
    dataset: EvaluationSet,
    world: World,
    *,
    batch_size: int | None = None,
    num_workers: int = 0,
    title: str = "",
) -> dict[int, ImageCounts]:
    """Count every image of ``dataset`` under the ``native`` protocol.

    Processes share the images without padding, so none is counted twice.

    Args:
        model: left in the mode it was in.
        dataset: images and masks.
        world: this process.
        batch_size: None for 1 on a CPU, where larger ones gain nothing, and 12 elsewhere.
        num_workers: loader processes.
        title: of the progress bar; none without.

    Returns:
        Counts by index, of the whole data set in every process.
    """
    if dataset.image_size is None:
        batch_size = 1  # images of their own sizes do not stack
    elif batch_size is None:
        batch_size = 1 if world.device.type == "cpu" else 12
    share: Dataset[dict[str, Any]] = Subset(dataset, range(world.rank, len(dataset), world.size))
    loader = DataLoader(
        share,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_evaluation,
        pin_memory=world.device.type == "cuda",
    )
    metric = NativeMetric().to(world.device)
    metric.update([], [], [])
    total = len(share)  # type: ignore[arg-type]
    with tqdm(total=total, desc=title, unit="img", disable=None if title and world.main else True) as bar:
        for batch, probs in predict_batches(model, loader, world):
            metric.update(batch["index"], [prob > THRESHOLD for prob in probs], batch["mask"])
            bar.update(len(probs))
    return metric.counts()


@torch.inference_mode()
def predict_batches(
    model: nn.Module, loader: DataLoader[dict[str, Any]], world: World
) -> Iterator[tuple[dict[str, Any], list[NDArray[np.float32]]]]:
    """Probability maps at the images' own sizes, batch by batch, with the model in evaluation mode."""
    training = model.training
    model.eval()
    try:
        for batch in loader:
            image = batch["image"].to(world.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            with world.autocast():
                logits = model(image)[0]
            yield batch, probabilities(logits, batch["size"])
    finally:
        model.train(training)


def probabilities(logits: Tensor, sizes: list[tuple[int, int]]) -> list[NDArray[np.float32]]:
    """Probability maps (H, W) at each image's own size, interpolated as logits."""
    maps = []
    for x, size in zip(logits.float(), sizes, strict=True):
        if x.shape[-2:] != torch.Size(size):
            x = F.interpolate(x[None], size=size, mode="bilinear", align_corners=False)[0]
        maps.append(x[0].sigmoid().cpu().numpy())
    return maps
