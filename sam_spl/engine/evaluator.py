"""Score a network on a data set: exact counts, whatever the batch size and the number of processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from sam_spl.data.dataset import EvaluationSet, collate_evaluation
from sam_spl.metrics import PROTOCOLS, DatasetCounts, Meter, Protocol
from sam_spl.predict.maps import check_finite, map_size, probabilities
from sam_spl.progress import Progress
from sam_spl.runtime import World, start_loader_process

T = TypeVar("T")

_THREADS = 2  # that count: more hardly help, as much of it holds Python's lock
_WAITING = 32  # images that may wait to be counted,
_WAITING_PIXELS = 2**23  # and values of their maps, 32 MB: one large frame at least


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
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
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
        batch_size: images that are loaded together, of which those of equal size are predicted together; None
            for :func:`usual_batch`.
        num_workers: loader processes.
        title: of the progress bar; none without.
        keep: called with the index of each image that this process predicts, and its probability map at its
            own size, from another thread than the caller's.
        waiting: context in which each batch is waited for.

    Returns:
        The counts of the whole data set, in every process.

    Raises:
        InputError: the network answers values that are not finite.
    """
    if batch_size is None:
        batch_size = usual_batch(world.device)
    indices = range(world.rank, len(dataset), world.size)
    share: Dataset[dict[str, Any]] = Subset(dataset, indices)
    loader = DataLoader(
        share,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_evaluation,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=start_loader_process,
    )
    metric = Meter(protocols, detailed=detailed)
    resolutions = list(dict.fromkeys([*metric.resolutions, *(["own"] if keep else [])]))

    def count(index: int, maps: dict[str, NDArray[np.float32]], mask: NDArray[np.bool_]) -> list[float]:
        if keep:
            keep(index, maps["own"])
        return metric.counter.row(index, maps, mask)

    # Images are counted beside the next forward pass, and taken in their order.
    queue: deque[tuple[int, Future[list[float]]]] = deque()

    def take(most: int, values: int) -> None:
        """Take counts until no more images and values than these wait."""
        while queue and (len(queue) > most or sum(size for size, _ in queue) > values):
            metric.add(queue.popleft()[1].result())

    with (
        _counting_threads() as pool,
        Progress(title, "images", len(indices), shown=bool(title) and world.main) as progress,
    ):
        for batch, logits in predict_batches(model, _waited_for(loader, waiting), world):
            check_finite(logits, batch["name"])
            maps = _maps(logits, batch["size"], resolutions, input_size)
            for image in zip(batch["index"], maps, batch["mask"], strict=True):
                values = sum(one.size for one in image[1].values())
                queue.append((values, pool.submit(count, *image)))
            take(_WAITING, _WAITING_PIXELS)
            progress.add(len(maps))
        take(0, 0)
    return metric.counts(world.gather)


def _waited_for(batches: Iterable[T], waiting: Callable[[], AbstractContextManager[None]]) -> Iterator[T]:
    iterator = iter(batches)
    while True:
        with waiting():
            try:
                batch = next(iterator)
            except StopIteration:
                return
        yield batch


def usual_batch(device: torch.device) -> int:
    """1 on a CPU, where larger ones gain nothing, and 12 elsewhere."""
    return 1 if device.type == "cpu" else 12


@contextmanager
def _counting_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that count; where something fails, what waits is dropped."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _maps(
    logits: Tensor, own: Sequence[tuple[int, int]], resolutions: Sequence[str], input_size: int | None
) -> list[dict[str, NDArray[np.float32]]]:
    """The probability maps of each image by resolution; those of one size are one map."""
    sizes = [
        {r: map_size(r, x, size, input_size) for r in resolutions}
        for x, size in zip(logits, own, strict=True)
    ]
    wanted = list(dict.fromkeys((k, size) for k, of in enumerate(sizes) for size in of.values()))
    made = dict(zip(wanted, probabilities(logits[:, 0], wanted), strict=True))
    return [{r: made[k, size] for r, size in of.items()} for k, of in enumerate(sizes)]


@torch.inference_mode()
def predict_batches(
    model: nn.Module, loader: Iterable[list[dict[str, Any]]], world: World
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Logits (B, 1, h, w) at the network's input size, batch by batch, with the model in evaluation mode."""
    training = model.training
    model.eval()
    try:
        for batch in chain.from_iterable(loader):
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
