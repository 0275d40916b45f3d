from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sam_spl.data.dataset import (
    EpochSampler,
    EvaluationSet,
    TrainingSet,
    collate_evaluation,
    collate_training,
)
from sam_spl.data.normalise import Normalise
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.data.transforms import ResizeFlip, ScaleCrop


class OneImage:
    """Every index is the same image, so that samples differ by their random choices alone."""

    def __len__(self) -> int:
        return 4

    def name(self, index: int) -> str:
        return f"image_{index}"

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
        return image, image > 250


def test_samples_depend_on_seed_epoch_and_index_and_on_nothing_else():
    def sample(seed: int, epoch: int, index: int) -> torch.Tensor:
        return TrainingSet(OneImage(), ScaleCrop(64), seed)[epoch, index]["image"]

    keys = [(1, 3, 2), (2, 3, 2), (1, 4, 2), (1, 3, 0)]  # each differs from the first in one number
    samples = [sample(*key) for key in keys]
    assert [torch.equal(samples[0], other) for other in samples] == [True, False, False, False]
    assert all(torch.equal(one, sample(*key)) for one, key in zip(samples, keys, strict=True))
    loader = DataLoader(
        TrainingSet(OneImage(), ScaleCrop(64), 1),
        sampler=[(3, 2)],
        collate_fn=collate_training,
        num_workers=1,
    )
    (images,) = next(iter(loader))["image"]
    assert torch.equal(images[0], samples[0])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_an_epoch_and_step_equally_often(world):
    samplers = [EpochSampler(10, seed=1, rank=rank, world=world) for rank in range(world)]
    drawn = [list(sampler) for sampler in samplers]
    indices = [index for keys in drawn for _, index in keys]
    assert len({len(keys) for keys in drawn}) == 1
    assert len(indices) == len(set(indices)) == 10 // world * world
    samplers[0].epoch = 1
    assert [index for _, index in samplers[0]] != [index for _, index in drawn[0]]


@pytest.mark.parametrize(
    ("length", "world", "smallest", "left"),
    # Of 13 images in batches of 4 one is over, of 7 each of two processes three, of 12 none.
    [(13, 1, 1, 13), (13, 1, 2, 12), (14, 2, 3, 7), (14, 2, 4, 4), (12, 1, 4, 12), (2, 1, 3, 0)],
)
def test_a_last_batch_that_is_too_small_is_left_out_of_an_epoch(length, world, smallest, left):
    samplers = [
        EpochSampler(length, 1, rank, world, batch_size=4, smallest_batch=smallest) for rank in range(world)
    ]
    whole = [list(EpochSampler(length, 1, rank, world)) for rank in range(world)]
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
    assert [list(sampler) for sampler in samplers] == [drawn[:left] for drawn in whole]
    samplers[0].start = 4
    assert list(samplers[0]) == whole[0][4:left]


def test_batches():
    source = SyntheticSource(3, (64, 96))
    training = TrainingSet(source, ResizeFlip(64), 0)
    batch = collate_training([training[0, 0], training[0, 1]])
    assert [(images.shape, images.dtype) for images in batch["image"]] == [((2, 64, 64), torch.uint8)]
    assert (batch["mask"].shape, batch["mask"].dtype) == ((2, 1, 64, 64), torch.bool)
    assert batch["name"] == ["synthetic_000000", "synthetic_000001"]
    evaluation = EvaluationSet(source, 32, Normalise())
    (batch,) = collate_evaluation([evaluation[0], evaluation[2]])
    assert batch["image"].shape == (2, 3, 32, 32)
    assert [mask.shape for mask in batch["mask"]] == batch["size"] == [(64, 96)] * 2
    assert (batch["index"], batch["name"][1]) == ([0, 2], "synthetic_000002")
    assert EvaluationSet(source, None, Normalise())[0]["image"].shape == (3, 64, 96)


class MixedImages(OneImage):
    """Grey and colour, of 8 and 16 bits, as odd sets mix them."""

    kinds = (((64, 64), np.uint8), ((64, 64), np.uint8), ((64, 64), np.uint16), ((64, 64, 3), np.uint8))

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        shape, dtype = self.kinds[index]
        image = np.random.default_rng(index).integers(0, np.iinfo(dtype).max, shape, dtype)
        return image, np.zeros((64, 64), bool)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_mixed_images_has_the_values_of_each(channels):
    training, normalise = TrainingSet(MixedImages(), ResizeFlip(64), 0), Normalise((0.4,), (0.3,), channels)
    batch = collate_training([training[0, index] for index in range(4)])
    assert [tuple(images.shape) for images in batch["image"]] == [(2, 64, 64), (1, 64, 64), (1, 64, 64, 3)]
    together = torch.cat([normalise.batch(images) for images in batch["image"]])
    assert torch.equal(
        together, torch.stack([normalise(training[0, index]["image"].numpy()) for index in range(4)])
    )
