"""Score a network on a data set: exact counts, whatever the batch size and the number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from sam_spl.data.dataset import EvaluationSet, collate_evaluation
from sam_spl.metrics import PROTOCOLS, DatasetCounts, Meter, Protocol
from sam_spl.predict.maps import check_finite, map_size, probability
from sam_spl.runtime import World


def evaluate(
    model: nn.Module,
    dataset: EvaluationSet,
    world: World,
    *,
    protocols: Sequence[Protocol] = (PROTOCOLS["native"],),
    detailed: bool = False,
    input_size: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    title: str = "",
    keep: Callable[[int, NDArray[np.float32]], None] | None = None,
) -> DatasetCounts:
    """Count every image of ``dataset``, under several protocols over the same predictions.

    Processes share the images without padding, so none is counted twice.

    Args:
        model: left in the mode it was in.
        dataset: images and masks.
        world: this process.
        protocols: what to count for.
        detailed: count for hIoU and curves as well.
        input_size: side that protocols at the network's input are scored at, where the network sees each
            image at its own size.
        batch_size: None for 1 on a CPU, where larger ones gain nothing, and 12 elsewhere.
        num_workers: loader processes.
        title: of the progress bar; none without.
        keep: called with the index of each image that this process predicts, and its probability map at its
            own size.

    Returns:
        The counts of the whole data set, in every process.

    Raises:
        InputError: the network answers values that are not finite.
    """
    if dataset.image_size is None:
        batch_size = 1  # images of their own sizes do not stack
    elif batch_size is None:
        batch_size = 1 if world.device.type == "cpu" else 12
    indices = range(world.rank, len(dataset), world.size)
    share: Dataset[dict[str, Any]] = Subset(dataset, indices)
    loader = DataLoader(
        share,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_evaluation,
        pin_memory=world.device.type == "cuda",
    )
    metric = Meter(protocols, detailed=detailed)
    resolutions = list(dict.fromkeys([*metric.resolutions, *(["own"] if keep else [])]))
    with tqdm(
        total=len(indices), desc=title, unit="img", disable=None if title and world.main else True
    ) as bar:
        for batch, logits in predict_batches(model, loader, world):
            check_finite(logits, batch["name"])
            maps = [
                {r: probability(x, map_size(r, x, size, input_size)) for r in resolutions}
                for x, size in zip(logits, batch["size"], strict=True)
            ]
            metric.update(batch["index"], maps, batch["mask"])
            if keep:
                for index, of in zip(batch["index"], maps, strict=True):
                    keep(index, of["own"])
            bar.update(len(maps))
    return metric.counts(world.gather)


@torch.inference_mode()
def predict_batches(
    model: nn.Module, loader: DataLoader[dict[str, Any]], world: World
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Logits (B, 1, h, w) at the network's input size, batch by batch, with the model in evaluation mode."""
    training = model.training
    model.eval()
    try:
        for batch in loader:
            image = (
                batch["image"]
                .to(world.device, non_blocking=True)
                .contiguous(memory_format=torch.channels_last)
            )
            with world.autocast():
                logits = model(image)[0]
            yield batch, logits.float()
    finally:
        model.train(training)
