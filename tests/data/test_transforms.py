from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sam_spl.data.copy_paste import CopyPaste, cut
from sam_spl.data.dataset import (
    EpochSampler,
    EvaluationSet,
    Normalise,
    TrainingSet,
    collate_evaluation,
    collate_training,
)
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.data.transforms import (
    AUGMENTATIONS,
    ResizeFlip,
    ScaleCrop,
    TargetCrop,
    build_transform,
    flip,
    pad_to,
)
from sam_spl.errors import ConfigError
from sam_spl.resize import RULES


def _pair(height: int = 60, width: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with one bright target, which an image and its mask must keep together."""
    image = np.full((height, width), 10, np.uint8)
    image[20:26, 30:38] = 250
    return image, image > 100


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(60, 90), (64, 64), (40, 120)])
def test_every_augmentation_gives_squares_and_moves_the_mask_with_the_image(name, size, rule):
    transform = AUGMENTATIONS[name](64, rule)
    image, mask = _pair(*size)
    agreements = []
    for seed in range(60):
        out, out_mask = transform(image, mask, np.random.default_rng(seed))
        assert out.shape == out_mask.shape
        assert out.shape[0] == out.shape[1] <= 64
        assert (out.dtype, out_mask.dtype) == (np.uint8, bool)
        if out_mask.sum() > 12:
            bright = out > 100
            agreements.append((bright & out_mask).sum() / (bright | out_mask).sum())
    assert len(agreements) > 4
    assert np.mean(agreements) > 0.6


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(60, 90), (200, 130), (120, 300)])
def test_image_and_mask_stay_where_they_are_to_each_other(name, size):
    """The centre of the target's brightness is the centre of its mask, but for rounding."""
    transform, offsets = AUGMENTATIONS[name](64, "pillow"), []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        image, mask = np.zeros(size, np.float32), np.zeros(size, bool)
        top, left = (int(rng.integers(20, side - 30)) for side in size)
        image[top : top + 9, left : left + 9], mask[top : top + 9, left : left + 9] = 200, True
        out, out_mask = transform(image, mask, rng)
        if out_mask.sum() > 0 and not (out_mask[[0, -1]].any() or out_mask[:, [0, -1]].any()):
            grid = np.indices(out.shape)
            bright = (grid * out).sum((1, 2)) / out.sum()
            marked = (grid * out_mask).sum((1, 2)) / out_mask.sum()
            offsets.append(np.abs(bright - marked))
    assert len(offsets) > 20
    assert np.mean(offsets) < 0.25


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(2, 600), (600, 2), (1, 1), (1, 40), (3, 3)])
def test_images_of_a_pixel_or_two_give_squares_too(name, size):
    image = np.full(size, 200, np.uint8)
    for mask in (np.zeros(size, bool), np.ones(size, bool)):
        for seed in range(20):
            out, out_mask = AUGMENTATIONS[name](64, "pillow")(image, mask, np.random.default_rng(seed))
            assert out.shape == out_mask.shape
            assert out.shape[0] == out.shape[1] > 0


def test_transforms_follow_their_generator():
    transform = ScaleCrop(64)
    first = transform(*_pair(), np.random.default_rng(5))
    again = transform(*_pair(), np.random.default_rng(5))
    other = transform(*_pair(), np.random.default_rng(6))
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()


def test_flips_reach_all_eight_symmetries_equally_often():
    image = np.array([[1, 2], [3, 4]], np.uint8)
    rng = np.random.default_rng(0)
    seen: dict[bytes, int] = {}
    for _ in range(4000):
        out, mask = flip(image, image > 2, rng)
        np.testing.assert_array_equal(mask, out > 2)
        key = np.ascontiguousarray(out).tobytes()
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 8
    assert min(seen.values()) > 400


def test_scale_crop_uses_scales_over_its_whole_range():
    image = np.full((64, 64), 200, np.uint8)
    filled = [
        (ScaleCrop(64)(image, image > 0, np.random.default_rng(seed))[0] > 100).mean() for seed in range(300)
    ]
    # Half the long side leaves a quarter of the square, all else is padding; above 1 nothing is padded.
    assert min(filled) == pytest.approx(0.25, abs=0.03)
    assert np.mean(np.array(filled) == 1) == pytest.approx(2 / 3, abs=0.08)


def test_resize_flip_keeps_every_touched_mask_pixel():
    mask = np.zeros((128, 128), bool)
    mask[64, 64] = True
    _, out = ResizeFlip(256)(mask.astype(np.uint8), mask, np.random.default_rng(0))
    # Bilinear upsampling spreads one pixel over 4x4, and all of them count.
    assert out.sum() == 16


def test_padding_goes_right_and_below():
    image, mask = pad_to(*_pair(30, 45), 64)
    assert image.shape == mask.shape == (64, 64)
    assert not image[30:].any()
    assert not image[:, 45:].any()
    assert image[:30, :45].all()


def test_target_crops_hold_a_target_as_often_as_asked():
    image, mask = _pair(256, 256)
    held = [TargetCrop(64, 256)(image, mask, np.random.default_rng(seed))[1].any() for seed in range(300)]
    assert np.mean(held) == pytest.approx(0.8 + 0.2 * 0.09, abs=0.06)


def test_unknown_augmentations_name_the_nearest():
    with pytest.raises(ConfigError, match="Nearest: scale_crop"):
        build_transform("scalecrop", 64, SyntheticSource(1, 64))


def test_chips_are_rectangles_around_targets():
    image, mask = _pair()
    ((chip, chip_mask),) = cut(image, mask)
    np.testing.assert_array_equal(chip, image[18:28, 28:40])
    np.testing.assert_array_equal(chip_mask, mask[18:28, 28:40])


def test_copy_paste_adds_targets_from_the_training_source_alone():
    source = SyntheticSource(20, 64, seed=3, empty=0)
    chips = [chip for index in range(20) for chip in cut(*source.load(index))]
    paste = CopyPaste.from_source(source, probability=1.0)
    assert len(paste.chips) == len(chips)
    image, mask = np.zeros((64, 64), np.uint8), np.zeros((64, 64), bool)
    numbers = []
    for seed in range(60):
        out, out_mask = paste(image, mask, np.random.default_rng(seed))
        numbers.append(cv2.connectedComponents(out_mask.view(np.uint8))[0] - 1)
        assert (out[out_mask] > 0).all()
    assert not image.any()  # the cached original is not written to
    assert min(numbers) >= 1
    assert max(numbers) > 20


def test_copy_paste_probability():
    paste = CopyPaste([(np.full((2, 2), 9, np.uint8), np.ones((2, 2), bool))], probability=0.3)
    image, mask = np.zeros((16, 16), np.uint8), np.zeros((16, 16), bool)
    pasted = [paste(image, mask, np.random.default_rng(seed))[1].any() for seed in range(500)]
    assert np.mean(pasted) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    ("image_type", "shape"), [(np.uint8, (16, 16)), (np.uint8, (16, 16, 3)), (np.uint16, (16, 16))]
)
@pytest.mark.parametrize("chip", [np.full((2, 2), 9, np.uint8), np.full((2, 2, 3), 9, np.uint8)])
def test_chips_take_the_channels_and_depth_of_the_image(image_type, shape, chip):
    paste = CopyPaste([(chip, np.ones((2, 2), bool))], probability=1.0)
    out, mask = paste(np.zeros(shape, image_type), np.zeros(shape[:2], bool), np.random.default_rng(0))
    assert out.shape == shape
    assert (out[mask] == (9 * 257 if image_type == np.uint16 else 9)).all()


def test_normalise_equals_its_formula_for_every_depth_and_channel_count():
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    three = Normalise((0.5, 0.4, 0.3), (0.1, 0.2, 0.4))
    for channel, (mean, std) in enumerate(((0.5, 0.1), (0.4, 0.2), (0.3, 0.4))):
        expected = (torch.from_numpy(grey).float() / 255 - mean) / std
        torch.testing.assert_close(three(grey)[channel], expected)
        torch.testing.assert_close(three(grey.astype(np.uint16) * 257)[channel], expected)
    assert Normalise((0.0,), (1.0,), 1)(np.dstack([grey] * 3)).shape == (1, 2, 2)


def test_samples_depend_on_seed_epoch_and_index_alone():
    def sample(seed, key):
        dataset = TrainingSet(SyntheticSource(4, 64), ResizeFlip(64), Normalise(), seed)
        return dataset[key]["image"]

    assert torch.equal(sample(1, (3, 2)), sample(1, (3, 2)))
    assert not torch.equal(sample(1, (3, 2)), sample(1, (4, 2))) or not torch.equal(
        sample(1, (3, 2)), sample(1, (5, 2))
    )


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_an_epoch_and_step_equally_often(world):
    samplers = [EpochSampler(10, seed=1, rank=rank, world=world) for rank in range(world)]
    drawn = [list(sampler) for sampler in samplers]
    indices = [index for keys in drawn for _, index in keys]
    assert len({len(keys) for keys in drawn}) == 1
    assert len(indices) == len(set(indices)) == 10 // world * world
    samplers[0].epoch = 1
    assert [index for _, index in samplers[0]] != [index for _, index in drawn[0]]


def test_batches():
    source = SyntheticSource(3, (64, 96))
    training = TrainingSet(source, ResizeFlip(64), Normalise(), 0)
    batch = collate_training([training[0, 0], training[0, 1]])
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["mask"].shape == (2, 1, 64, 64)
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    evaluation = EvaluationSet(source, 32, Normalise())
    batch = collate_evaluation([evaluation[0], evaluation[2]])
    assert batch["image"].shape == (2, 3, 32, 32)
    assert [mask.shape for mask in batch["mask"]] == batch["size"] == [(64, 96)] * 2
    assert (batch["index"], batch["name"][1]) == ([0, 2], "synthetic_000002")
    assert EvaluationSet(source, None, Normalise())[0]["image"].shape == (3, 64, 96)
