"""What a sample is, in training and in testing, and which samples each process takes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, default_collate

from sam_spl.data.normalise import Normalise
from sam_spl.data.reading import as_array
from sam_spl.data.sources import Source
from sam_spl.data.transforms import Transform
from sam_spl.errors import InputError
from sam_spl.resize import resize_image

#: Pixels of images that are predicted together: frames of a camera's own size fill a device one by one.
MOST_PIXELS = 12 * 512 * 512

_MOST_BAD = 100  # images in a row that cannot be read: then it is the disk


class TrainingSet(Dataset[dict[str, Any]]):
    """Augmented samples of one size. The seed and the index ``(epoch, i)`` fix every random choice.

    So an epoch's data depend neither on the number of workers nor on the epoch that a run was resumed at.

    Sample: ``image`` tensor in the stored type (uint8, uint16, or float32 in [0, 1]), grey (S, S) or RGB
    (S, S, 3); ``mask`` bool tensor (S, S); ``name``; ``bad``, why others could not be taken, a list.
    :func:`collate_training` makes batches of them.

    Args:
        source: images with masks.
        transform: of both.
        seed: of its random choices.
        skip_bad: take the next image instead of one that cannot be read.
    """

    def __init__(self, source: Source, transform: Transform, seed: int, *, skip_bad: bool = False) -> None:
        self.source, self.transform, self.seed, self.skip_bad = source, transform, seed, skip_bad

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        bad = list[str]()
        while True:
            try:
                image, mask = self.source.load(index)
                break
            except InputError as error:
                bad.append(str(error))
                if not self.skip_bad or len(bad) == min(len(self), _MOST_BAD):
                    raise
                index = (index + 1) % len(self)
        image, mask = self.transform(image, mask, np.random.default_rng((self.seed, epoch, index)))
        return {
            "image": torch.from_numpy(np.ascontiguousarray(as_array(image))),
            "mask": torch.from_numpy(np.ascontiguousarray(mask)),
            "name": self.source.name(index),
            "bad": bad,
        }


class EvaluationSet(Dataset[dict[str, Any]]):
    """Images at the size the network sees them, masks as they are stored.

    Sample: ``image`` float (C, S, S) normalised, or at its own size with ``image_size=None``; ``mask`` bool
    array (H, W) at the image's own size; ``index``; ``name``; ``size`` (H, W).

    Args:
        source: images with masks.
        image_size: side of the square that images are resized to; None for their own size.
        normalise: of the network.
        resize: how, one of :data:`sam_spl.resize.RULES`.
    """

    def __init__(
        self, source: Source, image_size: int | None, normalise: Normalise, resize: str = "pillow"
    ) -> None:
        self.source, self.image_size, self.normalise, self.resize = source, image_size, normalise, resize

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask = self.source.load(index)
        size = mask.shape if self.image_size is None else (self.image_size, self.image_size)
        return {
            "image": self.normalise(resize_image(image, size, self.resize)),
            "mask": mask,
            "index": index,
            "name": self.source.name(index),
            "size": mask.shape,
        }


class EpochSampler(Sampler[tuple[int, int]]):
    """A process's share of an epoch, which seed and epoch shuffle. Every process gets the same number.

    Processes step together in training, so up to ``world - 1`` images of the shuffled epoch are left
    out, and of each process those of a last batch that is too small to train on.

    Args:
        length: images of the set.
        seed: of the order, with the epoch.
        rank: of this process.
        world: number of processes.
        batch_size: images of a batch of one process.
        smallest_batch: the fewest that the last batch may have.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        batch_size: int = 1,
        smallest_batch: int = 1,
    ) -> None:
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        last = length // world % batch_size
        self.left_out = last if last < smallest_batch else 0
        self.epoch = 0
        self.start = 0  # of this process's images, where a resumed epoch goes on

    def __len__(self) -> int:
        return self.length // self.world - self.left_out

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for index in order[self.rank : len(self) * self.world : self.world][self.start :]:
            yield self.epoch, int(index)


def collate_training(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Batch as it goes to the device: ``image`` a list of tensors, ``mask`` bool (B, 1, S, S), ``name`` and
    ``bad`` lists.

    Images of one type and number of channels that follow each other are stacked: (N, S, S) or (N, S, S, 3).
    That is one tensor, except where a set mixes grey with colour or 8 with 16 bits.
    """
    images = [sample["image"] for sample in samples]
    return {
        "image": [torch.stack(list(run)) for _, run in groupby(images, lambda x: (x.dtype, x.ndim))],
        "mask": torch.stack([sample["mask"] for sample in samples])[:, None],
        "name": [sample["name"] for sample in samples],
        "bad": [why for sample in samples for why in sample["bad"]],
    }


def collate_evaluation(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Batches of images of one size each: ``image`` (B, C, H, W), the rest lists; masks keep their own sizes.

    Only equal sizes go together, as each network pads in its own way. A batch ends at :data:`MOST_PIXELS`.
    """
    of_size: dict[torch.Size, list[dict[str, Any]]] = {}
    for sample in samples:
        of_size.setdefault(sample["image"].shape, []).append(sample)
    batches = []
    for shape, alike in of_size.items():
        most = max(1, MOST_PIXELS // shape[-2:].numel())
        for start in range(0, len(alike), most):
            some = alike[start : start + most]
            batch: dict[str, Any] = {key: [sample[key] for sample in some] for key in some[0]}
            batches.append(batch | {"image": default_collate(batch["image"])})
    return batches
